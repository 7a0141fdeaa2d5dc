"""Weights of a backbone: where they are (sources), and which tensors a file holds (the rest).

find(conf) -> where the weights are
select(path, wanted, convert) -> the part of the file that fits a model
read(path) -> the named tensors of the file, without a model
"""

from fgvc.model.backbone.weights.errors import as_user_errors
from fgvc.model.backbone.weights.read_file import files_of
from fgvc.model.backbone.weights.select_state import Convert, SelectedState, Tower, read, select
from fgvc.model.backbone.weights.sources import TOKENIZER, find, tokenizer

__all__ = [
    "TOKENIZER",
    "Convert",
    "SelectedState",
    "Tower",
    "as_user_errors",
    "files_of",
    "find",
    "read",
    "select",
    "tokenizer",
]
