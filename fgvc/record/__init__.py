"""Numbers -> the run folder, by an ordered tuple of writers; checkpoint, resume state, verify."""
