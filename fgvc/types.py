"""What one room hands the next: plain, typed, frozen; nothing here computes more than a digest.

data/ -> Dataset, Batch; model/ -> Tokens; learn/ -> Fit; task/ -> Predictions; store/ -> Features.
N images, B batch, C classes, D token width, P prefix tokens, K top predictions.
"""

from __future__ import annotations

import functools
import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:  # for annotations only: an error message must not wait for torch
    from torch import Tensor


def nfc(path: str) -> str:
    """A path in Unicode's composed form (NFC): file systems store a name in different forms."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


# the dataset's own split; where it has no VAL, `Split` carves validation from TRAIN
TRAIN, TEST, VAL = 0, 1, 2
ABSENT = "0" * 64  # stands for the SHA256 of a file that cannot be read


@dataclass(frozen=True)
class LabelMap:
    """Class index -> (the dataset's own id, class name), in index order.

    Built once per dataset over all splits, so that a class missing from one split shifts nothing.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def digest(self) -> str:
        """SHA256 over the pairs (id, name) in index order; 64 hex digits."""
        pairs = [list(pair) for pair in zip(self.ids, self.names, strict=True)]
        text = json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Parts:
    """Part locations in original pixels, one row per image and part.

    xy_NK2: float32, NaN where the part is not visible; names: the K parts.
    """

    names: tuple[str, ...]
    xy_NK2: np.ndarray


@dataclass(frozen=True)
class Hierarchy:
    """The dataset's own tree above its classes.

    chain: class by class, in the label map's order, the ids of the nodes from parent to root.
    names: of those nodes, by id; nodes of different levels may share a name.
    """

    chain: tuple[tuple[str, ...], ...]
    names: Mapping[str, str]


@dataclass(frozen=True)
class Manifest:
    """Every image of a dataset once, column by column; data/ orders the images by their paths.

    path: relative to root, posix separators. label_N: int64 class index. split_N: uint8, TRAIN,
    TEST or VAL. sha256: of the file's bytes; ABSENT where they cannot be read. box_N4: float32 x,
    y, width, height in original pixels, NaN where there is none. cropped: whether a picture means
    the part of it inside its box. max_pixels: of a picture; a larger one is refused, and nothing
    else depends on it.
    """

    root: Path
    path: tuple[str, ...]
    label_N: np.ndarray
    split_N: np.ndarray
    sha256: Sequence[str]
    box_N4: np.ndarray | None = None
    parts: Parts | None = None
    cropped: bool = False
    max_pixels: int = 64_000_000

    def __len__(self) -> int:
        return len(self.path)

    @property
    def cut_N4(self) -> np.ndarray | None:
        """The boxes, where pictures mean what is inside them; None where they are taken whole."""
        return self.box_N4 if self.cropped else None

    @functools.cached_property
    def key_N(self) -> np.ndarray:
        """A stable key of each image, uint64: the first 8 bytes of the SHA256 of its `nfc` path.

        All draws for an image (its place in an epoch, augmentation, random patches) follow from
        this key. Among 675,000 images, some two share a key with probability 1e-8; they would get
        the same draws, and nothing else depends on the key.
        """
        digests = (hashlib.sha256(nfc(path).encode()).digest()[:8] for path in self.path)
        return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)

    @functools.cached_property
    def digest(self) -> str:
        """SHA256 over (`nfc` path, label, split, sha256), sorted: root and order change nothing.

        Boxes are in it where pictures are cropped to them: they decide about pixels then.
        """
        cut_N4 = self.cut_N4
        running = hashlib.sha256()
        # row by row, and JSON by hand: an index may have 675,000
        paths = [nfc(path) for path in self.path]
        for row in sorted(range(len(self)), key=paths.__getitem__):
            path, sha256 = encode_basestring(paths[row]), self.sha256[row]
            box = "" if cut_N4 is None else f", {cut_N4[row].tolist()}"
            line = f'[{path}, {self.label_N[row]}, {self.split_N[row]}, "{sha256}"{box}]\n'
            running.update(line.encode())
        return running.hexdigest()


@dataclass(frozen=True)
class Split:
    """Rows of a Manifest, ascending. test_N: TEST. val_N: VAL, or where the dataset has none a part
    carved from TRAIN; train_N: TRAIN without that part."""

    train_N: np.ndarray
    val_N: np.ndarray
    test_N: np.ndarray

    def digest(self, path: tuple[str, ...]) -> str:
        """SHA256 over the sorted `nfc` paths of each part, whatever the order of the index."""
        running = hashlib.sha256()
        # JSON by hand, path by path: an encoder would hold 675,000 pieces at once
        for opens, name in zip("{,,", ("test", "train", "val"), strict=True):
            running.update(f'{opens}{" " if opens == "," else ""}"{name}": ['.encode())
            rows = getattr(self, f"{name}_N")
            for place, image in enumerate(sorted(nfc(path[row]) for row in rows.tolist())):
                running.update(f"{', ' if place else ''}{encode_basestring(image)}".encode())
            running.update(b"]")
        running.update(b"}")
        return running.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A dataset ready to be read: what data/ hands to a task.

    partial: classes or images are missing against the official counts (declared by the user).
    notes: one line each, printed and recorded (synthetic approval, duplicates across splits, ...).
    warnings: the notes that a reader of the numbers must know; also recorded with the numbers.
    card: provenance as it stands in the dataset's conf file (source, licence, approval, ...).
    subset: what `dataset.subset` chose, with checksum, coverage and expected seconds; else None.
    hierarchy: what lies above the classes, where the dataset says so.
    test_source: what serves as test: "test", the dataset's own; "val", its validation split, as it
    has no test; "carved", a seeded part of its training images.
    """

    name: str
    manifest: Manifest
    labelmap: LabelMap
    split: Split
    partial: bool = False
    notes: tuple[str, ...] = ()
    card: Mapping[str, str] = field(default_factory=dict)
    subset: Mapping[str, object] | None = None
    hierarchy: Hierarchy | None = None
    warnings: tuple[str, ...] = ()
    test_source: str = "test"

    @functools.cached_property
    def split_digest(self) -> str:
        """SHA256 of which image is in which part of the split."""
        return self.split.digest(self.manifest.path)


@dataclass(frozen=True)
class BadImage:
    """An image that could not be used: its row in the manifest and one line that names the path.

    lost: the file could be read when the manifest was made, so another run may read it again.
    """

    row: int
    message: str
    lost: bool = False


@dataclass(frozen=True)
class Batch:
    """pixels_BCHW: uint8 RGB, preprocessed but not normalized. row_B: rows of the Manifest.

    bad: images of this batch that could not be read; they have no pixels and no row here.
    place_B: in training, where each image stands in its global batch.
    """

    pixels_BCHW: Tensor
    row_B: np.ndarray
    bad: tuple[BadImage, ...] = ()
    place_B: np.ndarray | None = None


@dataclass(frozen=True)
class Tokens:
    """What every backbone returns: prefix tokens, patch tokens and one pooled feature an image."""

    prefix_BPD: Tensor
    patch_BND: Tensor
    pooled_BD: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class Features:
    """Cached features of some manifest rows. x_ND: float32; row_N: manifest rows, ascending;
    bad: rows that could not be read (they are in neither)."""

    x_ND: np.ndarray
    row_N: np.ndarray
    bad: tuple[BadImage, ...] = ()


@dataclass(frozen=True)
class Predictions:
    """Per image. logits_NC: float32 (log-probabilities for kNN); an unreadable image has a row of
    -inf and counts as wrong. label_N: class indices. row_N: manifest rows."""

    row_N: np.ndarray
    label_N: np.ndarray
    logits_NC: np.ndarray


@dataclass(frozen=True)
class AttentionMaps:
    """Where part attention looked in the images of row_N (manifest rows, ascending).

    index_NK: the kept patches, row by row over the token grid. score_NG: float32, what they were
    chosen by, over the whole grid; None for choices that score nothing. grid: patches along a side.
    """

    row_N: np.ndarray
    index_NK: np.ndarray
    score_NG: np.ndarray | None
    grid: int


@dataclass(frozen=True)
class WeightsSource:
    """Where a backbone's weights came from.

    sha256: of the file (None: random weights). made_by: the run of fgvc that wrote the file, with
    the weights that it began with; None for any other file. held: numbers in the checkpoint that
    will replace random weights, which bounds the model's size; None: nothing replaces them.
    """

    kind: str  # file | hub | random
    name: str
    path: Path | None = None
    sha256: str | None = None
    revision: str | None = None
    made_by: Mapping[str, Any] | None = None
    held: int | None = None


class Progress(Protocol):
    """Advance a bar by `n` units; `note` is a short text beside it."""

    def __call__(self, n: int, note: str = "") -> None: ...


Compute = Callable[[np.ndarray], Features]  # manifest rows -> their features
# several shards' rows -> (place, features) of each, in any order
ComputeMany = Callable[[Sequence[np.ndarray]], Iterator[tuple[int, Features]]]


class Preempted(BaseException):
    """SIGTERM, SIGUSR1 or SIGUSR2: stop here, keep what is whole, resume later (exit code 75)."""


class UserError(ValueError):
    """Something the user can mend, in one line: the value, the bound, the way out. It is printed as
    it stands; any other exception is ours and keeps its traceback in run.log."""
