"""Every reader (door) reads damaged files or refuses them in one line.

    FGVC_FUZZ_SECONDS=120 python -m pytest tests/faults/test_fuzz.py -s -k png

One second or 50 inputs per door by default. An input is made from a number: FGVC_FUZZ_SEED=N starts
at number N, and with FGVC_FUZZ_SECONDS=0 gives this input alone. FGVC_FUZZ_FINDINGS=FOLDER keeps
the inputs found. Inputs of earlier findings come first: tests/faults/corpus/<module>/<door>/.
"""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fgvc.types import UserError
from tests.faults.fuzz import Count, Door, Finding, fuzz, replay, summary
from tests.faults.mutate import MOST, mutated

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
SECONDS = float(os.environ.get("FGVC_FUZZ_SECONDS", "1"))
FIRST = int(os.environ.get("FGVC_FUZZ_SEED", "0"))
USUAL = 50  # inputs per door at most, unless a time is given
REFUSED = {("fuzz_checkpoints", "tar")}  # no form of weights: sound files too
ROWS = {  # of the fault table, by door
    "jpeg": (20, 46, 47),
    "png": (20, 46, 47),
    "other pictures": (20, 46, 47),
    "tar": (27, 47),
    "zip": (27, 47),
    "features": (50,),
    "memo": (50,),
    "manifest": (50,),
    "command line": (42,),
}


def doors() -> Iterator[tuple[str, str]]:
    """(module, door) of every fuzz_*.py beside this file."""
    for file in sorted(HERE.glob("fuzz_*.py")):
        module = importlib.import_module(f"tests.faults.{file.stem}")
        for name in getattr(module, "DOORS", {}):
            yield file.stem, name


def door_of(module: str, name: str, record: Callable[[], Path] = Path) -> Door:
    """record: the folder of a finished run, for a door that damages one by a number."""
    door = importlib.import_module(f"tests.faults.{module}").DOORS[name]
    if callable(door):
        folder = record()
        return Door(name, [], lambda file: door(folder, file.parent / "runs", _int(file)), "")
    seeds, read, suffix = door
    return Door(name, list(seeds if isinstance(seeds, Sequence) else seeds()), read, suffix)


def _int(file: Path) -> int:
    return int(file.read_bytes())


def marked(module: str, name: str) -> object:
    rows = ROWS.get(name, ()) if module == "fuzz_own" else ()
    marks = [pytest.mark.fault(*rows)] if rows else []
    place = f"{module.removeprefix('fuzz_')}-{name.replace(' ', '-')}"
    return pytest.param(module, name, id=place, marks=marks)


def refuse_findings(door: Door, count: Count) -> None:
    """Keep the inputs, and fail with the first."""
    folder = os.environ.get("FGVC_FUZZ_FINDINGS")
    for finding in count.findings if folder else ():
        file = Path(folder or "") / door.name.replace(" ", "-") / f"{finding.number}.case"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(finding.data)
    lines = [
        f"FGVC_FUZZ_SEED={failure.number}: {failure.what}\n{failure.trace}"
        for failure in count.findings
    ]
    assert not lines, f"{door.name}: {lines[0]}"


@pytest.mark.parametrize(("module", "name"), [marked(*pair) for pair in doors()])
def test_a_door_takes_damaged_files(module, name, finished, small_probe, tmp_path, capfd):
    door = door_of(module, name, lambda: finished(*small_probe).folder)
    sound = replay(door, tmp_path / "fuzz", door.seeds)
    refuse_findings(door, sound)
    if door.seeds:  # sound files are read, or the damage tests nothing
        assert sound.refused < len(door.seeds) or (module, name) in REFUSED
        assert max(map(len, door.seeds)) <= MOST
    cases = CORPUS / module.removeprefix("fuzz_") / name.replace(" ", "-")
    case_files = sorted(cases.glob("*.case"))
    refuse_findings(
        door, replay(door, tmp_path / "fuzz", [file.read_bytes() for file in case_files])
    )
    start = time.monotonic()
    most = None if "FGVC_FUZZ_SECONDS" in os.environ else USUAL
    numbers = itertools.islice(itertools.count(FIRST), most)
    count = fuzz(door, tmp_path / "fuzz", SECONDS, numbers)
    with capfd.disabled():
        print(f"\n{summary(door, count, time.monotonic() - start)} from FGVC_FUZZ_SEED={FIRST}")
    refuse_findings(door, count)


# --- the fuzz itself ---


def _door(read: object) -> Door:
    return Door("made up", [b"sound"], read, ".bin")  # type: ignore[arg-type]


def _findings(read: object, tmp_path: Path) -> list[Finding]:
    return replay(_door(read), tmp_path / "fuzz", [b"a", b"b"]).findings


def _refuse(file: Path) -> None:
    raise UserError(f"{file}: no")


def _leave(file: Path) -> None:
    (file.parent / "left.tmp").touch()
    raise UserError(f"{file}: no")


def _escape(file: Path) -> None:
    (file.parents[1] / "escaped").touch()


def _several(file: Path) -> None:
    raise UserError("one\ntwo")


def _nameless(file: Path) -> None:
    raise OSError(5, "Input/output error")


def _crash(file: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _swell(file: Path) -> None:
    bytes(1 << 31)


def test_what_a_door_may_do_is_no_finding(tmp_path):
    assert _findings(lambda file: file.read_bytes(), tmp_path) == []
    assert replay(_door(_refuse), tmp_path / "fuzz", [b"a"]) == Count(1, 1)


@pytest.mark.parametrize(
    ("read", "problem"),
    [
        (lambda file: 1 / 0, "ZeroDivisionError"),
        (_crash, f"the process ended with {-signal.SIGSEGV}"),
        (_swell, "MemoryError"),
        (_leave, "left behind: ['inside/left.tmp']"),
        (_escape, "left behind: ['escaped']"),
        (_several, "several lines"),
        (_nameless, "without a file name"),
    ],
)
def test_what_a_door_may_not_do_is_found_with_its_input(read, problem, tmp_path):
    first, second = _findings(read, tmp_path)
    assert problem in first.what
    assert (first.data, second.data) == (b"a", b"b")


def test_an_endless_door_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.faults.fuzz.HANG", 0.2)
    (finding,) = replay(_door(lambda file: signal.pause()), tmp_path / "fuzz", [b"a"]).findings
    assert finding.what.startswith("no end within")


def test_a_number_means_the_same_input(tmp_path):
    seeds = [b'{"a": [1, 2]}', b"PK\x03\x04", b"line\nline\n"]
    inputs = [mutated(seeds, number) for number in range(300)]
    assert inputs == [mutated(seeds, number) for number in range(300)]
    assert len(set(inputs)) > 200
    count = fuzz(
        Door("made up", seeds, lambda file: 1 / 0, ".bin"), tmp_path / "fuzz", 0.0, [17, 18]
    )
    assert [(finding.number, finding.data) for finding in count.findings] == [(17, inputs[17])]
