"""Many run folders -> one table, derived from what the folders say and from nothing else."""
