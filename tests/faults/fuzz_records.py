"""Fuzz door of run folders: one file of a sealed run gets other content, every reader reads it.

Each reader ends well or refuses in one line (UserError, DamageError, UnreadableFileError); anything
else is a fault. `fuzz(run, home, seed)` is one try: the same seed gives the same try.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fgvc.record import checkpoint, retention
from fgvc.record.run_dir import now
from fgvc.record.verify import DamageError
from fgvc.report import audit, model_card
from fgvc.report.audit.pull_request_block import render_block
from fgvc.report.baselines import write_baselines
from fgvc.report.compare import compare_runs
from fgvc.report.prune import OutputRoot
from fgvc.types import UserError
from tests.faults import forger

ODD: tuple[Any, ...] = (
    *(None, True, "", "x" * 10_000, [], {}, [[]], {"": None}),
    *(-1, 0, 10**30, 2**63 - 1, -(2**63), 1e308, 1e-308, -0.0, 0.5),
    *(
        "NaN",
        "\x1b[2J",
        "a\nb",
        "`; rm -rf ~`",
        "</script><script>",
        "../../etc/passwd",
        "/dev/zero",
    ),
    *("\ud800", "\u202e", "0" * 64, "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+14:00"),
)
RAW = (b"", b"NaN", b"[" * 5000, b"\xff\xfe\x00", b"1e999", b'{"a":' * 500 + b"1" + b"}" * 500)
JSON = (
    *("metrics.json", "env_stamp.json", "config.canonical.json", "labelmap.json"),
    *("splits/digests.json", "fiftyone/metadata.json", "artifacts.json", "status.json"),
    *(retention.FILE, checkpoint.FILE),
)
OTHER = (
    *("config.yaml", "command.txt", "per_class.csv", "confusion.csv", "predictions.parquet"),
    *("splits/train.txt", "splits/test.txt", "fiftyone/samples.json", "report.html"),
)
REFUSALS = (UserError, DamageError, retention.RetentionError)


def fuzz(run: Path, home: Path, seed: int) -> str:
    """Change one file of a copy of a run below `home`, and read it; returns what was changed.

    Half of the copies are sealed again, so that readers believe what they find.
    """
    rng = random.Random(seed)
    shutil.rmtree(home, ignore_errors=True)
    folder = Path(shutil.copytree(run, home.joinpath(*run.parts[-3:])))
    name = rng.choice(JSON) if rng.random() < 0.75 else rng.choice(OTHER)
    change = _change(rng, folder, name)
    if rng.random() < 0.5:
        folder = _seal(folder)
    read(home, folder, run)
    return f"{name}: {change}"


def read(home: Path, folder: Path, other_folder: Path) -> None:
    """Every reader of a run folder and of its output root.

    Args:
        whole: the run without the change, to be compared.
    """
    for reader in (
        lambda: render_block(*audit.run_audit(folder)),
        lambda: write_baselines(home, home / "tables"),
        lambda: OutputRoot(home, now(), 90).survey(),
        lambda: checkpoint.read(folder),
        lambda: compare_runs(folder, other_folder, force=True),
        lambda: _card(folder),
    ):
        _tolerated(reader)


def _card(folder: Path) -> str:
    """The model card of an export of the run."""
    _, facts, checkpoint_id = checkpoint.read(folder)
    return model_card.render_model_card(
        folder,
        facts,
        ids={"checkpoint": checkpoint_id, "exported_from": checkpoint_id},
        weights={"license": "none", "contamination": "none"},
        agreement={},
        digests={},
    )


def _tolerated(reader: Callable[[], object]) -> None:
    line = "done"
    try:
        reader()
    except REFUSALS as why:
        line = str(why)
    assert line.strip(), "an empty refusal"
    assert "\n" not in line, f"more than one line: {line}"


def _seal(folder: Path) -> Path:
    """The folder with its digests computed again, as far as its files allow."""
    try:
        return forger.seal(folder)
    except Exception:  # what is sealed is too odd for the forger itself: it stays as it is
        return folder


def _change(rng: random.Random, folder: Path, name: str) -> str:
    file = folder / name
    if name == checkpoint.FILE:
        return _change_checkpoint(rng, folder)
    if name not in JSON or rng.random() < 0.2:
        file.write_bytes(_bytes(rng, file.read_bytes()))
        return "bytes"
    plain = json.loads(file.read_text())
    change = _change_plain(rng, plain)
    file.write_text(json.dumps(plain))
    return change


def _change_checkpoint(rng: random.Random, folder: Path) -> str:
    if rng.random() < 0.3:
        file = folder / checkpoint.FILE
        file.write_bytes(_bytes(rng, file.read_bytes()))
        return "bytes"
    changes: list[str] = []
    try:
        forger.rewrite_checkpoint(folder, lambda facts: changes.append(_change_plain(rng, facts)))
    except (ValueError, TypeError):  # no fact that the writer itself can write
        return "nothing"
    return changes[0]


def _change_plain(rng: random.Random, plain: Any) -> str:
    """Put something odd at a random place of a JSON document, or take the place out."""
    paths = [path for path, _ in forger.leaves(plain)]
    path = rng.choice(paths)
    path = path[: rng.randint(1, len(path))]
    node = plain
    for key in path[:-1]:
        node = node[key]
    where = ".".join(map(str, path))
    if rng.random() < 0.2:
        del node[path[-1]]
        return f"{where} taken out"
    value = rng.choice(ODD)
    node[path[-1]] = value
    return f"{where} = {value!r:.40}"


def _bytes(rng: random.Random, data: bytes) -> bytes:
    """Flipped, cut, doubled or replaced bytes."""
    kind, changed = rng.randrange(4), bytearray(data)
    if kind == 0 and data:
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        changed = changed[: rng.randint(0, len(data))]
    elif kind == 2:
        at = rng.randint(0, len(data))
        changed[at:at] = changed[:at][-200:]
    else:
        changed = bytearray(rng.choice(RAW))
    return bytes(changed)


DOORS = {"run": fuzz}
