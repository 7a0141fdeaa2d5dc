"""Index files and images -> seeded, verified batches of pixels."""
