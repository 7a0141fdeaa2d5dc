"""Index files and images -> seeded, checked batches of pixels."""
