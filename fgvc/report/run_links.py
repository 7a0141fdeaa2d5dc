"""Run folders, complete or in progress -> a folder of links with a readable name per run.

TensorBoard names a run by its folder, and the folders of records are named by digests. Each run has
a folder here, with links to the files of its tb/ and a declaration that puts the hyperparameters
that differ between the runs first.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.record.tensorboard import hparams
from fgvc.record.verify import CONFIG, STAMP
from fgvc.report.flatten import flatten
from fgvc.report.run_rows import run_name
from fgvc.untrusted.escape import visible

BOARD = "tb"
PATTERNS = tuple("*/" * depth + BOARD for depth in range(4))  # run_id/config_hash/checkpoint_id
MOST_DIFFERENCES = 3  # keys in a name
MAX_VALUE, MAX_NAME = 20, 120  # characters


def find_boards(root: Path) -> list[Path]:
    """The run folders at or below `root` that have events."""
    boards = {path for pattern in PATTERNS for path in root.glob(pattern) if path.is_dir()}
    return sorted(path.parent for path in boards)


def name_runs(runs: Sequence[Path]) -> dict[str, Path]:
    """A file name for each run: its axes, and what distinguishes it from runs of the same axes."""
    groups: dict[str, list[Path]] = defaultdict(list)
    configs = {run: _read(run / CONFIG) for run in runs}
    for run in runs:
        groups[_axes(run, configs[run])].append(run)
    named = {}
    for axes, members in groups.items():
        flat = {run: flatten(configs[run]) for run in members}
        keys = sorted({key for values in flat.values() for key in values})
        values_of = {key: {json.dumps(values.get(key)) for values in flat.values()} for key in keys}
        varied = [
            key
            for key in keys
            if len(values_of[key]) > 1 and max(map(len, values_of[key])) <= MAX_VALUE
        ][:MOST_DIFFERENCES]
        for run in members:
            words = [f"{key.rpartition('.')[2]} {flat[run].get(key)}" for key in varied]
            name = _file_name(" · ".join([axes, *words]))
            if name in named:  # a repetition: the time of its run_id, then its own folder
                name = f"{name} · {_file_name(run.parent.parent.name)}"
            named[f"{name} · {run.name[:8]}" if name in named else name] = run
    return named


def update(folder: Path, root: Path) -> int:
    """Bring the links up to date with the runs; returns the number of runs."""
    named = name_runs(find_boards(root))
    varied = hparams.varied([flatten(_read(run / CONFIG)) for run in named.values()])
    for old in folder.iterdir():
        if old.name not in named:
            shutil.rmtree(old)
    for name, run in named.items():
        target = folder / name
        if not target.exists():
            hparams.write_declaration(target, varied)
        for link in target.iterdir():
            if link.is_symlink() and not link.exists():  # the run has ended, and its folder moved
                link.unlink()
        for file in (run / BOARD).iterdir():
            link = target / file.name
            if not link.is_symlink() and (file.is_file() or file.is_dir()):  # no pipe, no device
                link.symlink_to(file.absolute())
    return len(named)


def _axes(run: Path, config: Mapping[str, Any]) -> str:
    """The dataset and the axes of a run; its folder if its config is damaged."""
    try:
        task = _read(run / STAMP).get("task", config["task"]["name"])
        axes = run_name(config, task, config["resolution"]["side"], forced=False)
        return f"{config['dataset']['name']} · {axes}"
    except (KeyError, TypeError, AttributeError):
        return " ".join(run.parts[-3:])


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; empty if it is missing or damaged."""
    try:
        document = untrusted.read_json(file)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _file_name(text: str) -> str:
    return visible(text).replace("/", "_").lstrip(".")[:MAX_NAME]
