"""Bytes -> files that are whole or absent, found again by digest, computed once by key."""
