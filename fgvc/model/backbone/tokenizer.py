"""A tokenizer.json -> prompts as SigLIP 2 was trained to read them: lower case, ended, padded.

Training lower-cased its text and did nothing else to it, so neither does this: zero-shot evaluators
that also strip punctuation would weld "black-footed" into "blackfooted".

B prompts, L text length.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgvc import untrusted
from fgvc.store import hashing
from fgvc.types import UserError
from fgvc.untrusted import MIB

MAX_BYTES = 256 * MIB  # of a tokenizer.json; those of 256,000 tokens have 35
END, PAD = "<eos>", "<pad>"


class PromptTokenizer:
    """Calling it turns prompts into token_BL: int64, END after the text, then PAD.

    identity: what a record needs to tell this tokenizer from another one.
    """

    def __init__(self, path: Path | None, length: int, vocabulary: int) -> None:
        """path: None for bytes as tokens, which serves random weights.

        Raises:
            UserError: the file is no tokenizer of this family.
        """
        self._path = path
        self._library = _byte_tokenizer() if path is None else _read(path)
        self._library.no_padding()
        self._library.no_truncation()
        self._end = self._library.token_to_id(END)
        self._pad = self._library.token_to_id(PAD)
        self._length = length
        size = self._library.get_vocab_size()
        if self._end is None or self._pad is None or size > vocabulary:
            raise UserError(
                f"tokenizer {path} has {size} tokens, but the model knows {vocabulary}, {END} and "
                f"{PAD} among them: take the {path and path.name} that belongs to the weights"
            )
        self.identity: dict[str, object] = {
            "tokenizer_sha256": self._digest(path),
            "length": length,
            "lower_case": True,
            "end": self._end,
            "pad": self._pad,
            "versions": {"tokenizers": version("tokenizers")},
        }

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Raises UserError if the tokenizer cannot encode the prompts."""
        try:
            return torch.tensor([self._padded(prompt) for prompt in prompts])
        except BaseException as error:  # the library raises bare Exception, and panics of Rust
            raise _unreadable(self._path, error) from error

    def _padded(self, prompt: str) -> list[int]:
        ids = self._library.encode(prompt.lower(), add_special_tokens=False).ids
        ended = [*ids[: self._length - 1], self._end]
        return ended + [self._pad] * (self._length - len(ended))

    def _digest(self, path: Path | None) -> str:
        if path is None:
            return hashing.sha256_bytes(self._library.to_str().encode())
        return hashing.sha256_file(path)


def _read(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_buffer(untrusted.read_bytes(path, MAX_BYTES))
    except OSError:
        raise
    except BaseException as error:  # the library raises bare Exception, and panics of Rust
        raise _unreadable(path, error) from error


def _unreadable(path: Path | None, error: BaseException) -> BaseException:
    # a panic of Rust is no Exception, and neither is a notice to stop, which is no fault of a file
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        return error
    reason = str(error).partition("\n")[0][:200]
    return UserError(f"tokenizer {path} cannot be read: {reason}; fetch it again")


def _byte_tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    names = [PAD, END, "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {name: place for place, name in enumerate(names)}
    return Tokenizer(BPE(vocab, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
