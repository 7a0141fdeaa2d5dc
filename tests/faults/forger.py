"""A finished run -> a consistent forgery: one changed value, with every digest recomputed.

The forger knows the code and owns the folder. The audit can only find the forgery if two files
contradict each other, or if the code contradicts them.
"""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from fgvc.record import checkpoint, retention
from fgvc.record import run_dir as folders
from fgvc.store import hashing

Plain = Any
Leaf = tuple[str | int, ...]  # keys from the root of a JSON document to one value


def reseal(folder: Path) -> None:
    """Rewrite artifacts.json, retention.json and status.json to match the current files."""
    (folder / "artifacts.json").write_text(json.dumps(folders.index_files(folder)))
    stamp, sealed_at = json.loads((folder / "env_stamp.json").read_text()), folders.now()
    own = "/".join(str(part) for part in (stamp["run_id"], *names(folder)))
    record = retention.new_retention(sealed_at, 90, own)
    retention.write(folder / retention.FILE, record)
    started = datetime.datetime.fromisoformat(stamp["started"])
    folders.write_status(folder, "done", started, of=own, updated=sealed_at)


def names(folder: Path) -> tuple[str, str]:
    """Folder names of a run: short hashes of its config and of its checkpoint."""
    config, ckpt = (
        hashing.sha256_file(folder / name)[: folders.SHORT]
        for name in ("config.canonical.json", checkpoint.FILE)
    )
    return config, ckpt


def rewrite_json(file: Path, change: Callable[[Plain], object]) -> None:
    """Change a JSON file in place; the canonical config stays canonical."""
    plain = json.loads(file.read_text())
    change(plain)
    canonical = file.name == "config.canonical.json"
    file.write_bytes(hashing.canonical_json(plain) if canonical else json.dumps(plain).encode())


def rewrite_checkpoint(
    folder: Path,
    change: Callable[[Plain], object] = lambda facts: None,
    tensors: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> None:
    """Rewrite ckpt.bin with other facts or tensors and a new content digest."""
    (folder / "artifacts.json").unlink(missing_ok=True)  # it holds the digest of the old checkpoint
    old_tensors, facts, _ = checkpoint.read(folder / checkpoint.FILE)
    change(facts)
    checkpoint.write(folder, tensors(old_tensors), facts)


def seal(folder: Path) -> Path:
    """Make the forgery consistent, rename the folder to match its new hashes, and return it.

    The hash of the config is written to the stamp, the checkpoint, the metrics and the retention.
    """
    config = hashing.sha256_file(folder / "config.canonical.json")
    stamp = json.loads((folder / "env_stamp.json").read_text())
    old = folder.parent.name
    if isinstance(stamp, dict) and config[: folders.SHORT] != old:
        for name in ("env_stamp.json", "metrics.json", "fiftyone/metadata.json"):
            if (folder / name).is_file():
                text = (folder / name).read_text()
                (folder / name).write_text(text.replace(stamp["config_hash"], config))
        rewrite_checkpoint(folder, lambda facts: facts.update(config_hash=config))
    reseal(folder)
    home = folder.parents[1].joinpath(*names(folder))
    if home != folder:
        home.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, home)
    return home


def leaves(plain: Plain, path: Leaf = ()) -> Iterator[tuple[Leaf, Plain]]:
    """Every value of a JSON document that is neither a mapping nor a list, with its path."""
    if isinstance(plain, dict | list) and plain:
        pairs = plain.items() if isinstance(plain, dict) else enumerate(plain)
        for key, value in pairs:
            yield from leaves(value, (*path, key))
    else:
        yield path, plain


def put(plain: Plain, path: Leaf, value: Plain) -> None:
    """Set the value at a path."""
    for key in path[:-1]:
        plain = plain[key]
    plain[path[-1]] = value


def forge_value(value: Plain) -> Plain:
    """Another plausible value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.25 + 0.125
    if isinstance(value, str):
        return _other_text(value)
    return "a lie" if value is None else value


def _other_text(text: str) -> str:
    try:
        time = datetime.datetime.fromisoformat(text)
        return (time + datetime.timedelta(days=1)).isoformat()
    except ValueError:
        pass
    if text and not set(text) - set("0123456789abcdef"):
        return ("0" if text[0] != "0" else "1") + text[1:]
    return f"{text} forged"
