"""A run -> the properties that runs ranked together must share, and why it may not be ranked.

Only this module defines the key and words the reasons; the writer of a record, report, compare and
audit call it. A reason that is part of the key ranks its runs apart. The other reasons leave a run
of a key without a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fgvc.store import hashing

# How the head was fitted. A zero-shot run has no fit, so it matches any value of these.
# The split belongs here: it divides train into train and validation; the manifest defines test.
FITTED = ("fitted_manifest", "fitted_split", "final_fit", "split")
NAMES = {  # field -> name in messages
    "manifest": "images (manifest)",
    "split": "split",
    "labelmap": "label map",
    "metrics": "metric code",
    "preprocess": "preprocess",
    "fitted_manifest": "images of the fit (manifest)",
    "fitted_split": "split of the fit",
    "final_fit": "final_fit",
    "forced": "forced resume",
    "debug": "task.debug",
}
UNRANKED, APART = "not ranked", "not ranked beside plain runs"
Plain = Mapping[str, Any]


@dataclass(frozen=True)
class Comparability:
    """The parts of the comparability key.

    fitted_manifest, fitted_split: digests of the images and the split that the head was fitted on;
    manifest, split: of the images and the split that it was evaluated on. fitted_*, final_fit and
    split are None for a zero-shot run. metrics: version of the metric code. forced: whether the
    training was resumed by force with another config. debug: task.debug.
    """

    fitted_manifest: str | None
    fitted_split: str | None
    final_fit: str | None
    manifest: str
    split: str | None
    labelmap: str
    metrics: str
    preprocess: str
    forced: bool
    debug: str | None

    @property
    def fitted_elsewhere(self) -> bool:
        """Whether the head was fitted on a different manifest or split than evaluated on."""
        fitted_on = (self.fitted_manifest, self.fitted_split)
        return None not in fitted_on and fitted_on != (self.manifest, self.split)

    @property
    def key(self) -> str:
        """comparability_key: runs that share it are ranked together."""
        return hashing.sha256_json(asdict(self))

    @property
    def base(self) -> str:
        """comparability_base: the key without the fields in FITTED."""
        rest = {name: value for name, value in asdict(self).items() if name not in FITTED}
        return hashing.sha256_json(rest)


def describe(
    config: Plain,
    *,
    fitted_on: tuple[str, str],
    evaluated_on: tuple[str, str],
    labelmap: str,
    metrics: str,
    forced: bool,
) -> Comparability:
    """The comparability of a run.

    Args:
        config: the hashed config.
        fitted_on, evaluated_on: digests of the manifest and of the split; fitted_on is ignored for
            a zero-shot run.
        labelmap: digest of the label map.
        metrics: version of the metric code.
        forced: whether the training was resumed by force.
    """
    zero_shot = config["task"]["name"] == "zero_shot"
    manifest, split = (None, None) if zero_shot else fitted_on
    return Comparability(
        fitted_manifest=manifest,
        fitted_split=split,
        final_fit=None if zero_shot else config["final_fit"],
        manifest=evaluated_on[0],
        split=None if zero_shot else evaluated_on[1],
        labelmap=labelmap,
        metrics=metrics,
        preprocess=config["preprocess"],
        forced=forced,
        debug=config["task"].get("debug"),
    )


def of_record(config: Plain, stamp: Plain, numbers: Plain, facts: Plain) -> Comparability:
    """Recompute the comparability of a record; the copy in metrics.json is not read.

    Args:
        config: config.canonical.json.
        stamp: env_stamp.json.
        numbers: metrics.json.
        facts: of ckpt.bin; task=eval keeps the checkpoint of the run that fitted the head.
    """
    return describe(
        config,
        fitted_on=(facts["answer"]["manifest_digest"], facts["split_digest"]),
        evaluated_on=(stamp["manifest_digest"], stamp["split_digest"]),
        labelmap=stamp["labelmap_digest"],
        metrics=numbers["metric_version"],
        forced=was_forced(numbers, facts),
    )


def was_forced(numbers: Plain, facts: Plain) -> bool:
    """Whether the training was resumed by force, according to metrics.json or the checkpoint."""
    resumed, fit = numbers.get("resumed") or {}, facts.get("fit") or {}
    return bool(resumed.get("forced", False) or fit.get("forced", False))


def difference(left: Comparability, right: Comparability) -> dict[str, tuple[str, str]]:
    """The differing parts of two runs by name, with both values; zero-shot matches any fit."""
    zero_shot = None in (left.fitted_manifest, right.fitted_manifest)
    compared = [name for name in NAMES if not (zero_shot and name in FITTED)]
    pairs = {NAMES[name]: (getattr(left, name), getattr(right, name)) for name in compared}
    return {name: (str(a), str(b)) for name, (a, b) in pairs.items() if a != b}


@dataclass(frozen=True)
class Reason:
    """Why a report does not rank a run beside plain runs.

    badge: the reason in a few words. text: the reason in full. apart: whether the run is ranked
    apart, among runs of the same kind; otherwise it has no place in any ranking.
    """

    badge: str
    text: str
    apart: bool = True

    @property
    def sentence(self) -> str:
        """What follows from the reason, and the reason in full."""
        return f"{APART if self.apart else UNRANKED}: {self.text}"


def reasons(numbers: Plain, parts: Comparability) -> Iterator[Reason]:
    """The reasons that a run's own record holds.

    Args:
        numbers: metrics.json. parts: its comparability, as recorded or recomputed.
    """
    overlap = numbers.get("overlap") or {}
    if images := overlap.get("images"):
        n, fitted = numbers["test"]["n"], "the head"
        if earlier := overlap.get("backbone"):
            fitted = f"the head or, in earlier runs, the backbone ({earlier})"
        yield Reason(
            f"fitted or chosen on {images} of {n} test images",
            f"{images} of the {n} test images fitted or chose {fitted}",
            apart=False,
        )
    if parts.forced:
        lost = "best_lost" in (numbers.get("resumed") or {})
        how = "without its best weights" if lost else "under another config"
        yield Reason("forced resume", f"resumed by force {how}")
    if parts.debug is not None:
        yield Reason(f"debug: {parts.debug}", f"a debugging run, task.debug={parts.debug}")
    if parts.fitted_elsewhere:
        # the data differ in their manifest or, if it is the same, in their split
        same = parts.fitted_manifest == parts.manifest
        data = str(parts.fitted_split if same else parts.fitted_manifest)
        text = f"fitted on other data ({data[:8]})"
        yield Reason(text, text)


def contradiction(folder: str) -> Reason:
    """The reason of an evaluation whose predictions differ from those of the run in `folder`."""
    text = f"its predictions differ from those of {folder}, the same checkpoint"
    return Reason("other predictions", text, apart=False)
