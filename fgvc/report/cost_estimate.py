"""What a plan's jobs would read, run and keep -> the lines of a dry run; no number is exact.

Times are scaled from rates that were measured on this machine, by multiply-accumulates.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BACKWARD = 3  # a step of training, in forward passes
STEADY = 100  # images that a rate must be measured on to speak for another model or side
FAR = 8.0  # times the multiply-accumulates: further away, nothing is said
COLUMNS = 80
INDENT = 40  # where the choices of a job begin


@dataclass(frozen=True)
class Rate:
    """Images a second as measured here, of one model at one side; macs: of an image.

    shape: what sets a model apart from others of its name. images: how many were measured.
    """

    model: str
    shape: str
    side: int
    macs: float
    images_per_s: float
    images: int


@dataclass(frozen=True)
class JobCost:
    """One job. forward: images to forward now; trained: images to train on, epochs included;
    cached: images whose features are there; shared: those that a job above extracts; done: complete
    already; macs: of an image, roughly; kept: bytes of features and of its run folder."""

    hash: str
    choices: str
    model: str
    shape: str
    side: int
    macs: float
    forward: int
    trained: int
    cached: int
    shared: int
    done: bool
    kept: tuple[int, int]


@dataclass(frozen=True)
class Assumptions:
    """What the plan stands on: rates measured on this device, free bytes, notes on the data."""

    device: str | None
    rates: Sequence[Rate]
    free: int
    notes: Sequence[str]


def vit_macs(width: int, depth: int, tokens: int) -> float:
    """Multiply-accumulates of a ViT on one image, roughly: its blocks alone."""
    return float(depth * (12 * tokens * width**2 + 2 * tokens**2 * width))


def nearest_rate(item: JobCost, rates: Sequence[Rate]) -> tuple[Rate, bool] | None:
    """The measured rate to go by, and whether it is of this very model at this side.

    None where there is none that is near: decoding and starting do not grow with the model.
    """
    family = [rate for rate in rates if (rate.model, rate.shape) == (item.model, item.shape)]
    if same := [rate for rate in family if rate.side == item.side]:
        return same[0], True
    near = [rate for rate in family or rates if rate.images >= STEADY and _far(rate, item) <= FAR]
    return (min(near, key=lambda rate: _far(rate, item)), False) if near else None


def _far(rate: Rate, item: JobCost) -> float:
    """By what factor one takes more multiply-accumulates than the other."""
    return max(rate.macs, item.macs) / min(rate.macs, item.macs)


def seconds(item: JobCost, rates: Sequence[Rate]) -> float | None:
    """How long its images take; None where nothing was measured. Fits of heads come on top."""
    images = item.forward + BACKWARD * item.trained
    if item.done or not images:
        return 0.0
    if (found := nearest_rate(item, rates)) is None:
        return None
    rate, same = found
    return images / rate.images_per_s * (1.0 if same else item.macs / rate.macs)


def format_estimate(
    run_id: str,
    common: str,
    items: Sequence[JobCost],
    left_out: Sequence[tuple[str, str]],
    ground: Assumptions,
) -> Iterator[str]:
    """The whole plan in 80 columns.

    Args:
        common: the choices that all jobs share.
        left_out: of each combination, its choices and why.
    """
    number = f"{len(items)} job{'s' if len(items) > 1 else ''}"
    yield f"run_id {run_id}: {number}, nothing started"
    if common:
        yield from _wrapped("  each: ", common)
    yield f"  {'config':<16}  {'images':>10} {'time':>8}"
    for item in items:
        yield from _row(item, seconds(item, ground.rates))
    for why in dict.fromkeys(why for _, why in left_out):
        yield from _wrapped("  left out: ", why)
        for choices in (choices for choices, other in left_out if other == why):
            yield from _wrapped(" " * 4, choices)
    yield from _totals(items, ground)


def _row(item: JobCost, takes: float | None) -> Iterator[str]:
    images, time = f"{item.forward + item.trained:,}", _span(takes)
    if item.done:
        images, time = "–", "done"
    elif not item.forward + item.trained:
        images, time = "cached" if item.cached else "as above", "–"
    head = f"  {item.hash[:16]}  {images:>10} {time:>8}"
    yield from _wrapped(f"{head:<{INDENT}}", item.choices)


def _totals(items: Sequence[JobCost], ground: Assumptions) -> Iterator[str]:
    todo = [item for item in items if not item.done]
    forward, trained, cached, shared = (
        sum(getattr(item, name) for item in todo)
        for name in ("forward", "trained", "cached", "shared")
    )
    parts = [f"{forward:,} images to forward"]
    parts += [f"{trained:,} to train on, epochs counted"] if trained else []
    parts += [f"{shared:,} read from a job above"] if shared else []
    parts += [f"{cached:,} cached"] if cached else []
    yield from _wrapped("images: ", "; ".join(parts))
    if len(todo) < len(items):
        done = len(items) - len(todo)
        yield f"done: {done} of {len(items)} jobs, which are complete and skipped"
    yield from _wrapped("time: ", _time(todo, ground))
    features, folders = (sum(item.kept[place] for item in todo) for place in (0, 1))
    yield from _wrapped(
        "disk: ",
        f"about {_size(features)} of features and {_size(folders)} of run folders; "
        f"{_size(ground.free)} free",
    )
    for note in ground.notes:
        yield from _wrapped("note: ", note)


def _time(todo: Sequence[JobCost], ground: Assumptions) -> str:
    if not todo:
        return "none: every job is complete"
    busy = [item for item in todo if item.forward + item.trained]
    if not busy:
        return "no image is forwarded: only heads are fitted, and records written"
    takes = [seconds(item, ground.rates) for item in busy]
    unknown = sum(one is None for one in takes)
    if unknown == len(busy):
        return (
            "not known: nothing like it was measured here yet; the first jobs tell, and so does a "
            "run of some hundred images"
        )
    found = [nearest_rate(item, ground.rates) for item in busy]
    used = dict.fromkeys(pair[0] for pair in found if pair)
    scaled = sum(not pair[1] for pair in found if pair)
    rates = [f"{r.model} at {r.side} px ({r.images_per_s:.3g} images/s)" for r in used]
    shown = ", ".join(rates[:3]) + (f" and {len(rates) - 3} more" if len(rates) > 3 else "")
    parts = [f"about {_span(sum(one or 0.0 for one in takes))} on {ground.device}"]
    if unknown:
        parts[0] += f", without {unknown} of {len(busy)} jobs, nothing like which was measured"
    parts.append(f"from what was measured here: {shown}")
    if scaled:
        verb = "is" if scaled == 1 else "are"
        parts.append(f"{scaled} of {len(busy)} jobs {verb} scaled by multiply-accumulates")
    if any(item.trained for item in busy):
        parts.append(f"a training step is taken as {BACKWARD} forward passes")
    parts.append("fits of heads and records come on top")
    return "; ".join(parts)


def _wrapped(head: str, text: str) -> list[str]:
    """Within 80 columns; what follows the first line stands below its text."""
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
    ) or [head.rstrip()]


def _span(takes: float | None) -> str:
    """A duration in one unit, as coarse as it is known."""
    if takes is None:
        return "?"
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if takes >= 1.5 * length:
            return f"{_coarse(takes / length)} {unit}"
    return f"{_coarse(max(takes, 1))} s"


def _coarse(value: float) -> str:
    return f"{value:.1f}" if value < 3 else f"{float(f'{value:.2g}'):,.0f}"


def _size(count: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= length:
            return f"{_coarse(count / length)} {unit}"
    return f"{_coarse(count / 1e3)} kB"
