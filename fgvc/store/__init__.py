"""Bytes -> files written atomically, stores addressed by digest, and caches by key."""
