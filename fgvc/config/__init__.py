"""Choices -> one typed config and its hash. Only config, launch and run.py import Hydra."""
