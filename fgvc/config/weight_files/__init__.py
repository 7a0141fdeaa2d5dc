"""Weights files -> tensor names, shards, digests and metadata, without torch.

Composing a config reads them, because the config hash contains the digest of the weights.
"""
