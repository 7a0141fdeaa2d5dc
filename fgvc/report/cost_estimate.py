"""Estimated cost of each job -> the lines that a dry run prints; no number is exact.

Times of images are derived from rates measured on this machine, scaled by multiply-accumulates
(MACs); times of fits from their products and the machine's matrix rate (see fit_estimate).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fgvc.report.fit_estimate import FitCost
from fgvc.report.job_groups import GroupRow, format_groups, merge_equal

FORWARDS_PER_STEP = 3  # cost of a training step in forward passes
MIN_IMAGES = 100  # images behind a rate that is scaled to another model or resolution
MAX_MACS_RATIO = 8.0  # a rate is not scaled beyond this ratio
# assumed of torch.compile on a GPU: seconds to compile, and speed over that without it
COMPILE_SECONDS, COMPILE_SPEEDUP = 60.0, 1.2
INDENT = 40  # column of the choices of a job
LISTED = 20  # more jobs than this are grouped
LIST_JOBS = "runtime.dry_run_jobs=all"
NO_FIT = "DOES NOT FIT"


@dataclass(frozen=True)
class Rate:
    """Measured images per second of one model at one resolution.

    shape: distinguishes models of the same name. side: pixels. macs: per image. images: number of
    images measured.
    """

    model: str
    shape: str
    side: int
    macs: float
    images_per_s: float
    images: int


@dataclass(frozen=True)
class JobCost:
    """Cost of one job, in images.

    forward: to forward. trained: to train on, counted per epoch. cached: with features in the
    cache. shared: whose features an earlier job extracts. done: the job is complete. macs: per
    image, roughly. kept: bytes of the features and of the run folder. fit: of the head; None if
    none is fitted to features. values: of the keys that vary between the jobs.
    """

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
    fit: FitCost | None = None
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Assumptions:
    """Inputs of the estimate: rates measured on this device, free bytes, notes on the data.

    free: on the disk of the run folders. free_cache: on the disk of the features; None if it is the
    same disk. flops: per second, of a float32 product measured now; None if it was not measured,
    because the fits are short. memory: bytes of this machine. compiles: runtime.compile.
    """

    device: str | None
    rates: Sequence[Rate]
    free: int
    notes: Sequence[str]
    free_cache: int | None = None
    flops: float | None = None
    memory: int | None = None
    compiles: bool = False


@dataclass(frozen=True)
class Layout:
    """How to print an estimate. width: columns. list_jobs: a line per job instead of groups."""

    width: int = 80
    list_jobs: bool = True


def vit_macs(width: int, depth: int, tokens: int) -> float:
    """Multiply-accumulates of a ViT on one image, counting its blocks only."""
    return float(depth * (12 * tokens * width**2 + 2 * tokens**2 * width))


def nearest_rate(item: JobCost, rates: Sequence[Rate]) -> tuple[Rate, bool] | None:
    """The measured rate for a job, and whether it is of the same model and resolution.

    None if no rate is near enough: decoding and startup do not scale with the model.
    """
    family = [rate for rate in rates if (rate.model, rate.shape) == (item.model, item.shape)]
    if same := [rate for rate in family if rate.side == item.side]:
        return same[0], True

    def macs_ratio(rate: Rate) -> float:
        """Of the larger number to the smaller."""
        return max(rate.macs, item.macs) / min(rate.macs, item.macs)

    measured = [rate for rate in family or rates if rate.images >= MIN_IMAGES]
    nearest = min(measured, key=macs_ratio, default=None)
    return (nearest, False) if nearest and macs_ratio(nearest) <= MAX_MACS_RATIO else None


def seconds(item: JobCost, rates: Sequence[Rate], flops: float | None = None) -> float | None:
    """Seconds for the images of a job and, at `flops` per second, the fit; None: no known rate."""
    images = item.forward + FORWARDS_PER_STEP * item.trained
    if item.done:
        return 0.0
    fit = _fit_seconds(item, flops)
    if not images:
        return fit
    if (nearest := nearest_rate(item, rates)) is None:
        return None
    rate, is_same = nearest
    return fit + images / rate.images_per_s * (1.0 if is_same else item.macs / rate.macs)


def _fit_seconds(item: JobCost, flops: float | None) -> float:
    return item.fit.flops / flops if flops is not None and item.fit is not None else 0.0


def format_estimate(
    run_id: str,
    common: str,
    items: Sequence[JobCost],
    left_out: Sequence[tuple[str, str]],
    assumptions: Assumptions,
    layout: Layout,
) -> Iterator[str]:
    """The whole estimate: the totals, then the jobs, one by one or in groups.

    Args:
        common: the choices that all jobs share.
        left_out: choices and reason of each combination that is left out.
    """
    width = layout.width
    number = f"{len(items)} job{'s' if len(items) > 1 else ''}"
    yield f"run_id {run_id}: {number}, nothing started"
    if common:
        yield from wrap("  each: ", common, width)
    yield from _format_totals(items, assumptions, width)
    if layout.list_jobs:
        yield from _format_jobs(items, assumptions, width)
    else:
        yield from format_groups(_groups(items, assumptions), width)
    for reason in dict.fromkeys(reason for _, reason in left_out):
        combinations = [choices for choices, other in left_out if other == reason]
        if layout.list_jobs:
            yield from wrap("  left out: ", reason, width)
            for choices in combinations:
                yield from wrap(" " * 4, choices, width)
        else:
            line = f"  left out: {len(combinations)}: {reason}"
            yield line if len(line) <= width else f"{line[: width - 2].rstrip()} …"
    if not layout.list_jobs:
        yield f"{LIST_JOBS} lists every job"


def _format_jobs(items: Sequence[JobCost], assumptions: Assumptions, width: int) -> Iterator[str]:
    yield f"  {'config':<16}  {'images':>10} {'time':>8}"
    for item in items:
        images = f"{item.forward + item.trained:,}"
        takes = seconds(item, assumptions.rates, assumptions.flops)
        duration = _format_duration(takes)
        if item.done:
            images, duration = "–", "done"
        elif not item.forward + item.trained:
            images = "cached" if item.cached else "as above"
            duration = duration if takes else "–"
        head = f"  {item.hash[:16]}  {images:>10} {duration:>8}"
        yield from wrap(f"{head:<{INDENT}}", item.choices, width)


def _groups(items: Sequence[JobCost], assumptions: Assumptions) -> Mapping[str, list[GroupRow]]:
    """Per varying key, its values with the number and the sums of their jobs."""
    groups = {}
    for key in dict.fromkeys(key for item in items for key in item.values):
        jobs: dict[str, list[JobCost]] = {}
        for item in items:
            jobs.setdefault(item.values.get(key, "–"), []).append(item)
        cells = {value: _sums(members, assumptions) for value, members in jobs.items()}
        groups[key] = merge_equal(cells)
    return groups


def _sums(items: Sequence[JobCost], assumptions: Assumptions) -> tuple[str, ...]:
    """The cells of a group: jobs, images, time, disk; `> 2 h` where some times are unknown."""
    todo = [item for item in items if not item.done]
    images = sum(item.forward + item.trained for item in todo)
    durations = [seconds(item, assumptions.rates, assumptions.flops) for item in todo]
    known = [value for value in durations if value]
    time = _format_duration(sum(known)) if known else "–"
    if None in durations:
        time = f"> {time}" if known else "?"
    elif not todo:
        time = "done"
    disk = _format_bytes(sum(sum(item.kept) for item in todo))
    return str(len(items)), f"{images:,}", time, disk


def _format_totals(items: Sequence[JobCost], assumptions: Assumptions, width: int) -> Iterator[str]:
    todo = [item for item in items if not item.done]
    names = {"forward": "images to forward", "trained": "to train on, over all epochs"}
    names |= {"shared": "read from an earlier job", "cached": "cached"}
    counts = ((name, sum(getattr(item, name) for item in todo)) for name in names)
    parts = [f"{n:,} {names[name]}" for name, n in counts if n or name == "forward"]
    yield from wrap("images: ", "; ".join(parts), width)
    if len(todo) < len(items):
        yield f"done: {len(items) - len(todo)} of {len(items)} jobs, complete, thus skipped"
    yield from wrap("time: ", _format_time(todo, assumptions), width)
    if fits := _format_fits(todo, assumptions):
        yield from wrap("fits: ", fits, width)
    if memory := _format_memory(todo, assumptions):
        yield from wrap("memory: ", memory, width)
    yield from wrap("disk: ", _format_disk(todo, assumptions), width)
    notes = [*assumptions.notes, *_compile_notes(todo, assumptions)]
    for note in notes:
        yield from wrap("note: ", note, width)


def _format_fits(todo: Sequence[JobCost], assumptions: Assumptions) -> str:
    """The time of the fits and its basis; empty if it was not estimated."""
    flops = assumptions.flops
    fitted = [item.fit for item in todo if item.fit is not None]
    total = sum(fit.flops for fit in fitted)
    if flops is None or not total:
        return ""
    bases = ", ".join(dict.fromkeys(fit.basis for fit in fitted))
    return (
        f"about {_format_duration(total / flops)} on the CPU, an estimate: {_round(total / 1e12)} "
        f"TFLOP at {_round(flops / 1e9)} GFLOP/s, measured now by a float32 product; {bases}"
    )


def _format_memory(todo: Sequence[JobCost], assumptions: Assumptions) -> str:
    """The memory of the job that takes most, if it is known and more than the imports."""
    most = max((item.fit.memory for item in todo if item.fit is not None), default=0)
    if assumptions.memory is None or not most:
        return ""
    text = f"about {_format_bytes(most)} for the largest job; this machine has "
    text += _format_bytes(assumptions.memory)
    return f"{NO_FIT}: {text}" if most > assumptions.memory else text


def _compile_notes(todo: Sequence[JobCost], assumptions: Assumptions) -> Iterator[str]:
    """A line if jobs on a GPU forward enough images to compile; each compiles for itself."""
    if assumptions.device != "cuda" or assumptions.compiles:
        return
    least = COMPILE_SECONDS * COMPILE_SPEEDUP / (COMPILE_SPEEDUP - 1)  # of images, in seconds
    long = [item for item in todo if (seconds(item, assumptions.rates) or 0.0) >= least]
    if not long:
        return
    item = max(long, key=lambda job: seconds(job, assumptions.rates) or 0.0)
    images = item.forward + FORWARDS_PER_STEP * item.trained
    share = least / (seconds(item, assumptions.rates) or least)
    yield (
        f"runtime.compile=true would pay off in {len(long)} of {len(todo)} jobs: with {item.model} "
        f"at {item.side} px from about {_round(images * share)} forward passes on (an assumption: "
        f"{COMPILE_SECONDS:.0f} s to compile, then {COMPILE_SPEEDUP:g} times as fast)"
    )


def _format_disk(todo: Sequence[JobCost], assumptions: Assumptions) -> str:
    """The bytes that the jobs write, the free bytes, and whether they suffice."""
    features, folders = (sum(item.kept[place] for item in todo) for place in (0, 1))
    free, free_cache = assumptions.free, assumptions.free_cache
    if free_cache is None:
        text = f"about {_format_bytes(features)} of features and {_format_bytes(folders)} of run "
        text += f"folders; {_format_bytes(free)} free"
        short = features + folders - free
    else:
        text = f"about {_format_bytes(features)} of features ({_format_bytes(free_cache)} free) "
        text += f"and {_format_bytes(folders)} of run folders ({_format_bytes(free)} free)"
        short = max(features - free_cache, 0) + max(folders - free, 0)
    return f"{NO_FIT}, {_format_bytes(short)} short: {text}" if short > 0 else text


def _format_time(todo: Sequence[JobCost], assumptions: Assumptions) -> str:
    if not todo:
        return "none: every job is complete"
    busy = [item for item in todo if item.forward + item.trained]
    if not busy:
        return "no image is forwarded; only heads are fitted and records written"
    durations = [seconds(item, assumptions.rates) for item in busy]
    unknown = sum(value is None for value in durations)
    if unknown == len(busy):
        return (
            "unknown: no similar run was measured here yet; the first jobs will measure the rate, "
            "and so does a run of a few hundred images"
        )
    nearest = [nearest_rate(item, assumptions.rates) for item in busy]
    used = dict.fromkeys(pair[0] for pair in nearest if pair)
    scaled = sum(not pair[1] for pair in nearest if pair)
    rates = [f"{r.model} at {r.side} px ({r.images_per_s:.3g} images/s)" for r in used]
    listed_rates = ", ".join(rates[:3]) + (f" and {len(rates) - 3} more" if len(rates) > 3 else "")
    total = _format_duration(sum(value or 0.0 for value in durations))
    parts = [f"about {total} on {assumptions.device}"]
    if unknown:
        parts[0] += f", without {unknown} of {len(busy)} jobs without a measured rate"
    parts.append(f"from rates measured here: {listed_rates}")
    if scaled:
        verb = "is" if scaled == 1 else "are"
        parts.append(f"{scaled} of {len(busy)} jobs {verb} scaled by multiply-accumulates")
    if any(item.trained for item in busy):
        parts.append(f"a training step is taken as {FORWARDS_PER_STEP} forward passes")
    fits = "" if assumptions.flops is not None else "fitting heads and "
    parts.append(f"{fits}writing records takes extra time")
    return "; ".join(parts)


def wrap(head: str, text: str, width: int) -> list[str]:
    """Wrap to `width` columns; further lines are indented to the start of the text."""
    wrapper = textwrap.TextWrapper(
        width, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    )
    wrapper.break_long_words = False  # a path stays whole
    return wrapper.wrap(text) or [head.rstrip()]


def _format_duration(duration: float | None) -> str:
    """A duration in one unit, rounded to two digits."""
    if duration is None:
        return "?"
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if duration >= 1.5 * length:
            return f"{_round(duration / length)} {unit}"
    return f"{_round(max(duration, 1))} s"


def _round(value: float) -> str:
    return f"{value:.1f}" if value < 3 else f"{float(f'{value:.2g}'):,.0f}"


def _format_bytes(count: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= length:
            return f"{_round(count / length)} {unit}"
    return f"{_round(count / 1e3)} kB"
