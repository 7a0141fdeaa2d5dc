"""The types that packages exchange: plain, typed, frozen; they compute only digests and sums.

data/ -> Dataset, Batch; model/ -> Tokens; store/ -> Features; pipeline/ -> Predictions.
N images, B batch, C classes, D token width, P prefix tokens, K top predictions, T thresholds.
"""

from __future__ import annotations

import functools
import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
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


# the dataset's own split; without VAL, `Split` takes validation images from TRAIN
TRAIN, TEST, VAL = 0, 1, 2
ABSENT = "0" * 64  # in place of the SHA256 of a file that cannot be read


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

    chain: per class, in the order of the label map, the ids of its ancestors from parent to root.
    names: of the nodes, by id; nodes of different levels may share a name.
    """

    chain: tuple[tuple[str, ...], ...]
    names: Mapping[str, str]


@dataclass(frozen=True)
class ConfusionCounts:
    """The nonzero cells of a confusion matrix, by ascending true, then predicted class.

    V nonzero cells: at most one per image, so 5,000 classes take no 25 million counts.

    classes: C. truth_V, pred_V: class indices; pred_V is C for images that could not be read.
    count_V: images. All are int64.
    """

    classes: int
    truth_V: np.ndarray
    pred_V: np.ndarray
    count_V: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> ConfusionCounts:
        """The counts of a matrix of C rows and, where images could not be read, C + 1 columns."""
        truth_V, pred_V = np.nonzero(matrix)
        return cls(len(matrix), truth_V, pred_V, matrix[truth_V, pred_V].astype(np.int64))

    @functools.cached_property
    def support_C(self) -> np.ndarray:
        """Images of each true class."""
        return self._sums(self.truth_V)[: self.classes]

    @functools.cached_property
    def predicted_C(self) -> np.ndarray:
        """Images that are predicted as each class."""
        return self._sums(self.pred_V)[: self.classes]

    @functools.cached_property
    def hit_C(self) -> np.ndarray:
        """Images of each class that are predicted correctly."""
        return self._sums(np.where(self.truth_V == self.pred_V, self.truth_V, self.classes))[:-1]

    @functools.cached_property
    def errors(self) -> int:
        """Images that are not predicted correctly."""
        return int(self.count_V.sum() - self.hit_C.sum())

    def dense(self) -> np.ndarray:
        """The matrix of C rows (truth) and C + 1 columns (prediction)."""
        matrix = np.zeros((self.classes, self.classes + 1), np.int64)
        matrix[self.truth_V, self.pred_V] = self.count_V
        return matrix

    def _sums(self, index_V: np.ndarray) -> np.ndarray:
        # float64 sums of bincount are exact below 2**53 images
        sums = np.bincount(index_V, weights=self.count_V, minlength=self.classes + 1)
        return sums.astype(np.int64)


@dataclass(frozen=True)
class Manifest:
    """Every image of a dataset once, column by column; data/ orders the images by their paths.

    path: relative to root, posix separators. label_N: int64 class index. split_N: uint8, TRAIN,
    TEST or VAL. sha256: of the file's bytes; ABSENT where they cannot be read. box_N4: float32 x,
    y, width, height in original pixels, NaN where there is no box. cropped: whether images are
    cropped to their boxes. max_pixels: larger images are refused; nothing else depends on it.
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
        """The boxes to which images are cropped; None where images are used whole."""
        return self.box_N4 if self.cropped else None

    @functools.cached_property
    def key_N(self) -> np.ndarray:
        """A stable key of each image, uint64: the first 8 bytes of the SHA256 of its `nfc` path.

        All draws for an image (its place in an epoch, augmentation, random patches) follow from
        this key. Among 675,000 images, any two share a key with probability 1e-8; they would get
        the same draws, and nothing else depends on the key.
        """
        digests = (hashlib.sha256(nfc(path).encode()).digest()[:8] for path in self.path)
        return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)

    @functools.cached_property
    def digest(self) -> str:
        """SHA256 over (`nfc` path, label, split, sha256), sorted: root and order have no effect.

        It includes the boxes to which images are cropped, because they change the pixels.
        """
        cut_N4 = self.cut_N4
        running = hashlib.sha256()
        # row by row with JSON written by hand, because an index may have 675,000 rows
        paths = [nfc(path) for path in self.path]
        for row in sorted(range(len(self)), key=paths.__getitem__):
            path, sha256 = encode_basestring(paths[row]), self.sha256[row]
            box = "" if cut_N4 is None else f", {cut_N4[row].tolist()}"
            line = f'[{path}, {self.label_N[row]}, {self.split_N[row]}, "{sha256}"{box}]\n'
            running.update(line.encode())
        return running.hexdigest()


@dataclass(frozen=True)
class Split:
    """Rows of a Manifest, ascending. test_N: TEST. val_N: VAL, or a part of TRAIN without VAL.
    train_N: TRAIN without that part."""

    train_N: np.ndarray
    val_N: np.ndarray
    test_N: np.ndarray

    def digest(self, path: tuple[str, ...]) -> str:
        """SHA256 over the sorted `nfc` paths of each part; the order of the index has no effect."""
        running = hashlib.sha256()
        # JSON written by hand, path by path: an encoder would hold 675,000 strings at once
        for opening, name in zip("{,,", ("test", "train", "val"), strict=True):
            running.update(f'{opening}{" " if opening == "," else ""}"{name}": ['.encode())
            rows = getattr(self, f"{name}_N")
            for index, image in enumerate(sorted(nfc(path[row]) for row in rows.tolist())):
                running.update(f"{', ' if index else ''}{encode_basestring(image)}".encode())
            running.update(b"]")
        running.update(b"}")
        return running.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A dataset that is ready to be read.

    partial: whether classes or images are missing, compared with the official counts; declared by
    the user.
    notes: one line each, printed and recorded (synthetic approval, duplicates across splits, ...).
    warnings: the notes that a reader of the numbers must know; also recorded with the numbers.
    card: provenance from the dataset's conf file (source, licence, approval, ...). subset: the
    images of `dataset.subset`, with checksum, coverage and expected seconds; otherwise None.
    hierarchy: the tree above the classes, if the dataset has one. test_source: which images serve
    as test: "test", the dataset's own; "val", its validation split, because it has no test split;
    "carved", a seeded part of its training images.
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
        """SHA256 over the paths of each part of the split."""
        return self.split.digest(self.manifest.path)


@dataclass(frozen=True)
class BadImage:
    """An unreadable image: its row in the manifest and a one-line message that names the path.

    lost: the file could be read when the manifest was made, so another run may read it again.
    """

    row: int
    message: str
    lost: bool = False


@dataclass(frozen=True)
class Batch:
    """pixels_BCHW: uint8 RGB, preprocessed but not normalized. row_B: rows of the Manifest.

    bad: images of this batch that could not be read; they have no pixels and no row here.
    place_B: in training, the index of each image in its global batch.
    """

    pixels_BCHW: Tensor
    row_B: np.ndarray
    bad: tuple[BadImage, ...] = ()
    place_B: np.ndarray | None = None


@dataclass(frozen=True)
class Tokens:
    """The output of a backbone: prefix tokens, patch tokens and one pooled feature per image."""

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
class ThresholdCounts:
    """Counts of every class against the rest, over all `images`, at T thresholds.

    hit_CT, false_CT: true and false positives of a class, that is, images whose probability of the
    class reaches the threshold. support_C: images of the class.
    """

    hit_CT: np.ndarray
    false_CT: np.ndarray
    support_C: np.ndarray
    images: int


@dataclass(frozen=True)
class Predictions:
    """Columns per image, from which every number of a split follows.

    row_N: manifest rows. label_N: class indices. top_NK: int64, the K most probable classes, the
    most probable first; -1 for an unreadable image, which counts as wrong. score_NK: their
    probabilities. label_logprob_N, entropy_N: of the label and of the prediction, nats. These three
    are float64, NaN for an unreadable image.
    logits_NC: float32 (log-probabilities for kNN), -inf for an unreadable image; None if there are
    too many to keep (`fgvc.metrics.keeps_logits`). curves: counts of the precision-recall curves,
    only where the logits are not kept.
    """

    row_N: np.ndarray
    label_N: np.ndarray
    top_NK: np.ndarray
    score_NK: np.ndarray
    label_logprob_N: np.ndarray
    entropy_N: np.ndarray
    logits_NC: np.ndarray | None = None
    curves: ThresholdCounts | None = None

    @property
    def pred_N(self) -> np.ndarray:
        """The most probable class; -1 for an unreadable image."""
        return self.top_NK[:, 0]


@dataclass(frozen=True)
class AttentionMaps:
    """The patches that part attention selected in the images of row_N (manifest rows, ascending).

    index_NK: the selected patches, numbered row by row over the token grid. score_NG: float32
    scores of all patches; None for selections without scores. grid: patches along a side.
    """

    row_N: np.ndarray
    index_NK: np.ndarray
    score_NG: np.ndarray | None
    grid: int


@dataclass(frozen=True)
class WeightsSource:
    """The source of a backbone's weights.

    sha256: of the file (None: random weights). made_by: the run of fgvc that wrote the file, with
    its initial weights; None for any other file. value_count: number of values in the checkpoint
    that will replace random weights, which bounds the model's size; None: nothing replaces them.
    """

    kind: str  # file | hub | random
    name: str
    path: Path | None = None
    sha256: str | None = None
    revision: str | None = None
    made_by: Mapping[str, Any] | None = None
    value_count: int | None = None


class Progress(Protocol):
    """Advance a progress bar by `n` units; `note` is a short text beside the bar."""

    def __call__(self, n: int, note: str = "") -> None: ...


class Preempted(KeyboardInterrupt):
    """Stopped by SIGTERM, SIGUSR1, SIGUSR2 or, in training, Ctrl-C; resumable (exit code 75).

    A KeyboardInterrupt, because Python lets no other exception out of some of its functions: its
    compiler drops the exception of a handler that runs while it folds constants.
    """


def is_interruption(error: BaseException) -> bool:
    """Whether a signal to stop ended the work, also if an error replaced its exception.

    A library's cleanup can fail if Ctrl-C comes halfway through its work: OmegaConf's raises an
    AttributeError then. The signal remains the reason.
    """
    pending: list[BaseException | None] = [error]
    checked: set[int] = set()
    while pending:
        error_or_none = pending.pop()
        if error_or_none is None or id(error_or_none) in checked:
            continue
        if isinstance(error_or_none, KeyboardInterrupt):
            return True
        checked.add(id(error_or_none))
        pending += [error_or_none.__cause__, error_or_none.__context__]
    return False


class UserError(ValueError):
    """An error the user can fix; its one line names the value, the bound and the way out. It is
    printed without a traceback; any other exception is a bug, with its traceback in run.log."""
