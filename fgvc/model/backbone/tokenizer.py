"""A tokenizer.json -> token ids of prompts as in SigLIP 2's training: lower case, end, padding.

The text of the training was lower-cased and otherwise unchanged. Zero-shot evaluators that also
strip punctuation turn "black-footed" into "blackfooted".

B prompts, L text length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from fgvc import untrusted
from fgvc.store import hashing
from fgvc.types import UserError
from fgvc.untrusted import MIB

MAX_BYTES = 256 * MIB  # of a tokenizer.json; a vocabulary of 256,000 tokens takes 35 MiB
END, PAD = "<eos>", "<pad>"


class PromptTokenizer:
    """Calling it turns prompts into token_BL: int64, END after the text, then PAD.

    identity: distinguishes this tokenizer from others in a record.
    """

    def __init__(self, path: Path | None, length: int, vocabulary: int) -> None:
        """path: None: bytes as tokens, for random weights.

        Raises:
            UserError: the file is no tokenizer of this family.
        """
        from tokenizers import Tokenizer
        from tokenizers.models import BPE

        self._path, self._length = path, length
        if path is None:
            names = [PAD, END, "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
            vocab = {name: index for index, name in enumerate(names)}
            model = BPE(vocab, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
            self._library = Tokenizer(model)
            sha256 = hashing.sha256_bytes(self._library.to_str().encode())
        else:
            with _one_line_errors(path):
                self._library = Tokenizer.from_buffer(untrusted.read_bytes(path, MAX_BYTES))
            sha256 = hashing.sha256_file(path)
        self._library.no_padding()
        self._library.no_truncation()
        self._end = self._library.token_to_id(END)
        self._pad = self._library.token_to_id(PAD)
        size = self._library.get_vocab_size()
        if self._end is None or self._pad is None or size > vocabulary:
            raise UserError(
                f"tokenizer {path} has {size} tokens, but the model knows {vocabulary}, {END} and "
                f"{PAD} among them: take the {path and path.name} that belongs to the weights"
            )
        self.identity: dict[str, object] = {
            "tokenizer_sha256": sha256,
            "length": length,
            "lower_case": True,
            "end": self._end,
            "pad": self._pad,
            "versions": {"tokenizers": version("tokenizers")},
        }

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """token_BL of the prompts; raises UserError if the tokenizer cannot encode them."""
        with _one_line_errors(self._path):
            return torch.tensor([self._padded(prompt) for prompt in prompts])

    def _padded(self, prompt: str) -> list[int]:
        ids = self._library.encode(prompt.lower(), add_special_tokens=False).ids
        text_ids = [*ids[: self._length - 1], self._end]
        return text_ids + [self._pad] * (self._length - len(text_ids))


@contextmanager
def _one_line_errors(path: Path | None) -> Iterator[None]:
    """Raise the library's errors as UserErrors; it raises bare Exception, and panics of Rust."""
    try:
        yield
    except OSError:
        raise
    except BaseException as error:
        # a Rust panic is no Exception; neither is a signal to stop, which is no fault of the file
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).partition("\n")[0][:200]
        raise UserError(f"tokenizer {path} cannot be read: {reason}; fetch it again") from error
