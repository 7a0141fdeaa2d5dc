"""Weights of a backbone: where they lie (sources), and which tensors a file holds (files)."""

from fgvc.model.backbone.weights.files import read, read_json
from fgvc.model.backbone.weights.sources import COMPANIONS, NAMES, TOKENIZER, find, tokenizer

__all__ = ["COMPANIONS", "NAMES", "TOKENIZER", "find", "read", "read_json", "tokenizer"]
