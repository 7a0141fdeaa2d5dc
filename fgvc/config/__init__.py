"""Choices -> one typed config and its hash. The only room that knows Hydra, beside run.py."""
