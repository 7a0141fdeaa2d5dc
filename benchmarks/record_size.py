"""A record of many images and classes -> seconds and peak memory of each writer, and of the audit.

    python -m benchmarks.record_size IMAGES CLASSES [FOLDER]

A run of task=probe whose dataset, features and head are made up: IMAGES test images, and as many
validation and training images as iNaturalist 2017 has in proportion; features near the means of
their classes, whose sizes have a long tail. 85 % of the images lie near the mean of their own
class, the others near that of another class. No image is decoded.
FOLDER must be empty. The writers run in one process, the audit in another, a kNN bank and the class
means of the training images in a third. Each line is the peak of the whole process during this
step, with Python's libraries and the features in memory (Linux only: the peak is reset between
steps).
N images, C classes, D feature width.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

TEST, VAL, TRAIN = 95_986, 57_918, 521_266  # of iNaturalist 2017, 10 % of train as validation
WIDTH, BRANCHES, RIGHT = 768, 13, 0.85
CHUNK = 4096  # features that are drawn together
STEPS = ("write", "audit", "bank")


def main(words: list[str]) -> None:
    if words and words[0] in STEPS:
        globals()[words[0]](int(words[1]), int(words[2]), Path(words[3]))
        return
    if not 2 <= len(words) <= 3:
        sys.exit("usage: python -m benchmarks.record_size IMAGES CLASSES [FOLDER]")
    with tempfile.TemporaryDirectory() as temporary:
        folder = words[2] if len(words) == 3 else temporary
        for step in STEPS:
            print(f"\n{step}: {words[0]} test images, {words[1]} classes")
            command = [sys.executable, "-m", "benchmarks.record_size", step, *words[:2], folder]
            subprocess.run(command, check=False)


def peak_mib() -> float:
    """Peak resident memory of this process since `measured` reset it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


@contextmanager
def measured(name: str, folder: Path | None = None) -> Iterator[None]:
    """Print seconds (wall, CPU), peak memory and the bytes by which a folder grows."""

    def size() -> int:
        files = () if folder is None else folder.rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())

    before = size()
    Path("/proc/self/clear_refs").write_text("5")
    start, cpu_start = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        seconds, peak = time.perf_counter() - start, peak_mib()
        cpu = time.process_time() - cpu_start
        written = f"{(size() - before) / 2**20:9.1f} MiB written" if folder is not None else ""
        print(
            f"  {name:34} {seconds:8.2f} s {cpu:8.2f} s CPU {peak:8.0f} MiB {written}", flush=True
        )


def make_dataset(images: int, classes: int) -> Any:
    """Paths, labels and digests in proportion to iNaturalist 2017; classes by a power law."""
    from fgvc.types import TEST as TEST_SPLIT
    from fgvc.types import Dataset, Hierarchy, LabelMap, Manifest, Split

    counts = [max(1, round(count * images / TEST)) for count in (TRAIN, VAL)]
    ends = np.cumsum([*counts, images])
    rng, share_C = np.random.default_rng(0), 1 / (1 + np.arange(classes)) ** 0.7
    label_N = rng.choice(classes, int(ends[-1]), p=share_C / share_C.sum())
    names = tuple(f"Genus{label % 997} species{label:04d}" for label in range(classes))
    paths = tuple(
        f"train_val_images/Branch{label % BRANCHES}/{names[label]}/{row:032x}.jpg"
        for row, label in enumerate(label_N.tolist())
    )
    sha256 = tuple(f"{row * 0x9E3779B97F4A7C15 % 2**64:016x}{row:048x}" for row in range(ends[-1]))
    split_N = np.zeros(ends[-1], np.uint8)
    split_N[ends[1] :] = TEST_SPLIT
    parts = [np.arange(first, end) for first, end in zip((0, *ends), ends, strict=False)]
    chain = tuple((f"branch{label % BRANCHES}", "life") for label in range(classes))
    nodes = {node: node for path in chain for node in path}
    return Dataset(
        "inat2017",
        Manifest(Path("/nowhere"), paths, label_N, split_N, sha256),
        LabelMap(tuple(map(str, range(classes))), names),
        Split(*parts),
        partial=(images, classes) != (TEST, 5089),
        hierarchy=Hierarchy(chain, nodes),
    )


def class_means_CD(classes: int) -> np.ndarray:
    mean_CD = np.random.default_rng(1).standard_normal((classes, WIDTH), np.float32)
    return mean_CD / np.linalg.norm(mean_CD, axis=1, keepdims=True)


def make_features(dataset: Any, row_N: np.ndarray, bad: int = 0) -> Any:
    """Unit features near the mean of the label, or for some images near that of another class."""
    from fgvc.types import BadImage, Features

    label_N, mean_CD = dataset.manifest.label_N, class_means_CD(len(dataset.labelmap))
    images = tuple(BadImage(int(row), "torn", lost=False) for row in row_N[:bad])
    row_N, rng = row_N[bad:], np.random.default_rng(2)
    x_ND = np.empty((len(row_N), WIDTH), np.float32)
    for first in range(0, len(row_N), CHUNK):
        target_B = label_N[row_N[first : first + CHUNK]].copy()
        wrong_B = rng.random(len(target_B)) > RIGHT
        target_B[wrong_B] = (target_B[wrong_B] + rng.integers(1, 4, wrong_B.sum())) % len(mean_CD)
        noise_BD = rng.standard_normal((len(target_B), WIDTH), np.float32)
        x_ND[first : first + CHUNK] = mean_CD[target_B] + noise_BD * 0.02
    return Features(x_ND, row_N, images)


def write(images: int, classes: int, folder: Path) -> None:
    """Run task=probe with everything made up; prints a line per writer."""
    import torch

    from fgvc.model.head_layers import LinearHead
    from fgvc.pipeline import experiment as experiments
    from fgvc.pipeline import write_run as record_writer
    from fgvc.pipeline.inference import predict_features
    from fgvc.record import class_means
    from fgvc.record.writers import WRITERS, WriterSpec
    from fgvc.run import main as run_fgvc
    from fgvc.task import probe
    from fgvc.types import Batch

    dataset = make_dataset(images, classes)

    def load(task: str, conf: Any, notes: object) -> Any:
        card = {name: str(value) for name, value in asdict(conf.dataset.card).items()}
        return replace(dataset, card=card)

    experiments._load_dataset = load

    class MadeImages:
        """Noise in place of images."""

        root, heat_map = Path("/nowhere"), None

        def __init__(self, *_: object) -> None:
            self._rng = np.random.default_rng(3)

        def pixels(self, path: str) -> np.ndarray:
            return self._rng.integers(0, 256, (224, 224, 3), np.uint8)

        def network_views(self, row_N: np.ndarray) -> Iterator[Batch]:
            pixels = self._rng.integers(0, 256, (len(row_N), 3, 224, 224), np.uint8)
            yield Batch(torch.from_numpy(pixels), row_N)

        def overlays(self) -> Iterator[Any]:
            return iter(())

    record_writer.DatasetImages = MadeImages  # pyright: ignore[reportAttributeAccessIssue]

    def results(experiment: Any) -> Any:
        split, label_N = dataset.split, dataset.manifest.label_N
        mean_CD = torch.from_numpy(class_means_CD(classes))
        head = LinearHead(mean_CD * 12, torch.zeros(classes))
        val, test = make_features(dataset, split.val_N), make_features(dataset, split.test_N, bad=1)
        experiment.record_test_read()
        predictions = {}
        for name, features in (("val", val), ("test", test)):
            with measured(f"predictions of {name}"):
                predictions[name] = predict_features(head, features, dataset)
        fitted_N = np.concatenate([split.train_N, split.val_N])
        with measured("digests of the fitted images"):
            fitted = experiment.digest_fitted_images(fitted_N, fitted_N[:0])
        return experiments.Results(
            predictions,
            head.state_dict(),
            {"selection": None, "fitted_on": len(fitted_N)},
            fitted,
            features=test,
            unreadable=test.bad,
            class_means=class_means.fit(val.x_ND, np.arange(len(val.row_N)), label_N[val.row_N]),
        )

    def timed(spec: WriterSpec) -> WriterSpec:
        def write_part(record: Any) -> None:
            with measured(" ".join(spec.files), record.run.path):
                spec.write(record)

        return replace(spec, write=write_part)

    writers = tuple(map(timed, WRITERS))
    probe._probe = results
    record_writer.write_run = functools.partial(record_writer.write_run, writers=writers)
    numbers = record_writer._numbers

    def timed_numbers(*arguments: Any) -> Any:
        with measured("numbers"):
            return numbers(*arguments)

    record_writer._numbers = timed_numbers
    words = ["backbone=vit", "backbone.size=mini", "backbone.pretrained=false", "head=linear"]
    words += ["dataset=inat2017", f"dataset.partial={str(dataset.partial).lower()}"]
    words += ["runtime.device=cpu", "runtime.run_id=made", "dataset.on_bad_image=skip"]
    words += [f"runtime.output_root={folder}", f"runtime.cache_root={folder / 'cache'}"]
    with measured("everything, with start and seal"):
        run_fgvc(words)


def audit(images: int, classes: int, folder: Path) -> None:
    """Audit the folder that `write` made; prints a line per check."""
    from fgvc.report import audit as audits
    from fgvc.report.audit.check import Check
    from fgvc.run import main as run_fgvc

    def timed(check: Check) -> Check:
        @functools.wraps(check)
        def run_timed(record: Any) -> Any:
            with measured(check.__name__):
                return check(record)

        return run_timed

    audits.CHECKS = tuple(map(timed, audits.CHECKS))
    (sealed,) = (file.parent for file in folder.glob("made/*/*/artifacts.json"))
    with measured("the whole audit"):
        run_fgvc(["task=audit", f"run={sealed}", f"task.output={folder / 'audit.json'}"])


def bank(images: int, classes: int, folder: Path) -> None:
    """Class means, and a checkpoint with the features of all training images, as head=knn has."""
    import torch

    from fgvc.record import checkpoint, class_means

    dataset = make_dataset(images, classes)
    fitted_N = np.concatenate([dataset.split.train_N, dataset.split.val_N])
    steps: dict[str, Callable[[], object]] = {}
    with measured(f"{len(fitted_N)} features"):
        features = make_features(dataset, fitted_N)
    label_N = dataset.manifest.label_N[fitted_N]
    steps["class means"] = lambda: class_means.fit(features.x_ND, np.arange(len(label_N)), label_N)
    tensors = {"head.bank_ND": torch.from_numpy(features.x_ND)}
    steps["ckpt.bin with a kNN bank"] = lambda: checkpoint.write(folder, tensors, {"format": 1})
    for name, step in steps.items():
        with measured(name):
            step()


if __name__ == "__main__":
    main(sys.argv[1:])
