"""Features or batches -> weights."""
