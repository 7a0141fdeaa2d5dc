"""The fault table: the injected fault, the required behaviour and the group of each row.

A test that injects a fault is marked `@pytest.mark.fault(ROW)`, in any test file. `make faults`
runs these tests and prints every row with its tests and result (`tests/faults/plugin.py`). A group
is named after its file: `make faults GROUP=disk` runs the rows of `tests/faults/test_disk*.py`,
including their tests in other folders.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One fault. open: why its strictest test still fails; empty: all its tests must pass."""

    number: int
    group: str
    fault: str
    required: str
    open: str = ""


def _group(name: str, *rows: tuple[int, str, str] | tuple[int, str, str, str]) -> list[Row]:
    return [Row(number, name, *rest) for number, *rest in rows]


_ROWS = [
    *_group(
        "interruptions",
        (
            1,
            "SIGKILL at random moments while a checkpoint or state is written",
            "the previous state loads, no file is torn, the next start removes temporary files",
        ),
        (
            2,
            "SIGKILL between the checkpoint and the metrics or status",
            "the resumed run is bit-equal to an undisturbed run",
        ),
        (
            3,
            "SIGTERM or SIGUSR1 within an epoch",
            "the step finishes, a state is saved, status preempted, exit 75, bit-equal resume",
        ),
        (4, "a second SIGTERM or Ctrl-C", "the process ends at once; its files stay consistent"),
    ),
    *_group(
        "resume",
        (
            5,
            "resume within an epoch with shuffling and augmentation",
            "order, augmentation, rate, averages and best metric continue bit-equal",
        ),
        (6, "resume with another number of workers", "the losses are identical"),
        (
            7,
            "resume with another rate, class count or backbone",
            "refused with the keys that differ; a forced resume is recorded",
        ),
        (
            43,
            "resume after data, split, label map or weights changed",
            "refused with both values, for the run's own state and for a named state",
        ),
        (
            44,
            "forced resume from a state beyond task.epochs",
            "one line, before any training",
        ),
    ),
    *_group(
        "checkpoints",
        (
            8,
            "the newest training state is cut short",
            "its path is printed and the previous complete state is used",
        ),
        (9, "one flipped byte in a checkpoint", "the digest differs; nothing is loaded"),
        (10, "a checkpoint that holds a malicious pickle", "refused; no code is executed"),
        (
            11,
            "an HTML page, LFS pointer or empty file as a checkpoint",
            "one line that names the kind of the file",
        ),
        (
            12,
            "a checkpoint of another backbone, class count or label map",
            "refused with both values",
        ),
        (30, "weights that differ from the pinned digest or revision", "refused"),
        (
            49,
            "a checkpoint config that names a hub, a path or a huge model",
            "refused; nothing is contacted, opened or built",
        ),
    ),
    *_group(
        "disk",
        (
            13,
            "the disk is full while a checkpoint, event, table or dataset is written",
            "one line with path and bytes, earlier files intact, exit not 0",
        ),
        (
            14,
            "an output folder that cannot be written",
            "refused before any work; the message names it",
        ),
        (
            50,
            "a flipped bit in a cache of features, manifests, memo, weights or costs",
            "recomputed with a note; never used, never fatal",
        ),
        (
            51,
            "SIGKILL at a rename in any output folder",
            "the next start leaves no temporary file there",
        ),
        (
            58,
            "the disk is full when a stream is closed",
            "the first error is printed, with path and bytes",
        ),
    ),
    *_group(
        "runs",
        (
            15,
            "two processes for one run folder",
            "the second is refused and the holder named; the lock of a dead process is free",
        ),
        (
            16,
            "the output folder is already complete",
            "skipped, or a new run_id; never mixed, never overwritten",
        ),
        (
            17,
            "a job of a sweep raises, runs out of memory or diverges",
            "the other jobs run; the report holds the traceback; exit not 0",
        ),
        (18, "a job of a sweep calls sys.exit or is killed", "the other jobs run"),
        (
            19,
            "a sweep is started again",
            "finished jobs are skipped, failed and preempted jobs run",
        ),
    ),
    *_group(
        "pictures",
        (
            20,
            "a training image that is cut short, empty or HTML",
            "reported, or skipped and counted, by policy; never replaced by another image",
        ),
        (
            21,
            "an evaluation image that cannot be read",
            "counted as wrong; the number of images does not change",
        ),
        (
            22,
            "CMYK, grey, alpha, palette, 1-bit, 16-bit and EXIF-turned images",
            "one defined RGB result per kind",
        ),
        (23, "a decompression bomb", "refused with its path"),
        (
            46,
            "EPS, PDF, MP4 or a script named .jpg",
            "refused by kind; no external program is started",
        ),
        (
            47,
            "images and archives that expand to gigabytes",
            "refused below a stated limit of pixels and bytes",
        ),
        (48, "a damaged .mat file", "one line with the path; the process survives"),
    ),
    *_group(
        "data",
        (
            24,
            "a file of an official dataset is missing or altered",
            "an error that names the first file; user data get a new digest and a note",
        ),
        (
            25,
            "label maps with duplicate names, gaps, another order or another size",
            "refused with the offending entries",
        ),
        (26, "identical images in train and test", "a warning; they are counted and listed"),
        (
            27,
            "archives with `..`, absolute paths or links",
            "rejected; nothing is written outside the root",
        ),
        (
            28,
            "a download that is cut short, altered or an error page",
            "retried, then an error with URL and digest; no temporary file remains",
        ),
    ),
    *_group(
        "stack",
        (
            29,
            "no network and nothing cached",
            "an error within 5 s with model, revision, command and the local alternative",
        ),
        (
            34,
            "FiftyOne or its database is missing",
            "training and evaluation finish, the export is written, task=view names the fix",
        ),
        (
            41,
            "a device that this machine does not have",
            "a clear error; device=auto falls back and is stamped",
        ),
    ),
    *_group(
        "training",
        (
            31,
            "a loss that is NaN or infinite",
            "training stops, the last good state is kept, the images are named",
        ),
        (
            32,
            "the device is out of memory",
            "a line with batch and image size, status oom, no torn state",
        ),
        (
            35,
            "TensorBoard events are cut short",
            "the resumed run rewrites the events: one monotonic curve",
        ),
        (
            40,
            "a rank dies, or two ranks want one folder",
            "the others end in bounded time, only rank 0 writes, each image counts once",
        ),
        (
            45,
            "uneven micro-batches per rank with the contrastive loss; SIGTERM during a wait",
            "the run ends in bounded time and handles the signal",
        ),
    ),
    *_group(
        "workers",
        (
            33,
            "a loader worker is killed or raises",
            "an error with path and row in bounded time, exit not 0",
        ),
    ),
    *_group(
        "secrets",
        (
            36,
            "no git checkout, a dirty tree, no conda, no nvidia-smi",
            "null or dirty in the stamp; the run continues",
        ),
        (
            54,
            "untracked secrets in the checkout",
            "no record contains a copy of them",
        ),
    ),
    *_group(
        "prune",
        (
            37,
            "prune with a wrong clock, pins, running runs and links outside",
            "no run younger than 90 recorded days, pinned or locked is deleted; dry run by default",
        ),
        (
            38,
            "SIGKILL during prune",
            "a run is complete or absent",
        ),
    ),
    *_group(
        "names",
        (
            39,
            "paths and classes with spaces, `=`, `/`, either Unicode form, differing in case only",
            "they work end to end, and messages print the quoted form",
        ),
        (
            53,
            "class names with formulas, HTML, Markdown or shell characters",
            "inert in tables, pages, cards and printed commands",
        ),
    ),
    *_group(
        "doors",
        (
            42,
            "an unknown key or option",
            "the nearest name, exit 2, no folder",
        ),
        (
            52,
            "a pipe, a device or a circular link in place of a file",
            "refused by kind, without waiting",
        ),
        (
            57,
            "a folder or file of a dataset without read permission",
            "an error that names it; never treated as empty",
        ),
    ),
    *_group(
        "records",
        (
            55,
            "a forged record with all digests recomputed",
            "the audit reports what it cannot prove; a replay finds the forgery",
            "open until replay is implemented",
        ),
        (
            56,
            "the retention file or another side file comes from another run",
            "the audit finds it",
        ),
    ),
]

ROWS: dict[int, Row] = {row.number: row for row in sorted(_ROWS, key=lambda row: row.number)}
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(row.group for row in _ROWS))

assert len(ROWS) == len(_ROWS) == 58
