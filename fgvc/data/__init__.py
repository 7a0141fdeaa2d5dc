"""Index files and pictures -> seeded, checked batches of pixels."""
