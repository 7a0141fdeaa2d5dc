"""Files of weights -> names, shards, digests and metadata, without torch.

Composing a config reads them: the hash holds the digest of the weights.
"""
