"""Jobs -> processes -> how they ended: one job, the jobs of a sweep, the trials of a search."""
