"""Rows 42, 52 and 57: pipes and devices at every reader, odd data files, odd commands."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from fgvc import untrusted
from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import expand_experiment
from fgvc.config.weight_files import checkpoint_metadata, shards, tensor_names
from fgvc.data import (
    cub_files,
    decode,
    digest_cache,
    file_state,
    find_root,
    image_formats,
    image_input,
    json_stream,
    matlab,
    rescale,
)
from fgvc.data.datasets import folder, table
from fgvc.data.datasets.table import paths
from fgvc.data.doctor import definition
from fgvc.data.download.unpack import unpack
from fgvc.model.backbone import hf_config
from fgvc.model.backbone.weights import npz, pickled, torchscript
from fgvc.model.backbone.weights import read_file as weights
from fgvc.pipeline import input_images, restore
from fgvc.pipeline import input_images as given
from fgvc.record import checkpoint, prediction_tables, resume_state, retention, verify
from fgvc.record.retention import RetentionError
from fgvc.record.run_page import gallery
from fgvc.record.verify import DamageError
from fgvc.report.audit.record import Record
from fgvc.run import main
from fgvc.store import feature_cache, file_lock, hashing, tensor_file
from fgvc.store.content_store import ContentStore
from fgvc.types import UserError
from fgvc.untrusted import file_format
from tests.dataset_conf import table_conf
from tests.faults import fuzz_data
from tests.faults.fuzz_data import void
from tests.jobs import HANG

REFUSALS = (UserError, ConfigError, DamageError, RetentionError, OSError)


def no_progress(n: int, note: str = "") -> None:
    """A progress bar without output."""


class WaitsError(BaseException):
    """The reader was still running at the alarm; no `except Exception` hides it."""


@pytest.fixture
def alarm() -> Iterator[None]:
    """Ends a reader that waits or reads forever."""

    def ring(number: int, frame: object) -> None:
        raise WaitsError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def linked_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("a pipe"))
    path.symlink_to("a pipe")


def stub(path: Path) -> None:
    """A socket; its name has at most 108 bytes, so it is bound from its own folder."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def refusal(read: Callable[[], object]) -> str | None:
    """The error line of a reader; None if it reports a missing file."""
    try:
        value = read()
    except REFUSALS as error:
        (line,) = str(error).splitlines()
        return line
    assert not value, value
    return None


# name of the file -> reader of it
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "index of CUB": ("images.txt", lambda path: cub_files.read_rows(path, 2)),
    "index of iNaturalist": ("train2017.json", lambda path: list(json_stream.members(path))),
    "MATLAB file": ("train_list.mat", lambda path: matlab.load_all([path])),
    "CSV": ("t.csv", lambda path: table.read(table_conf(path))),
    "JSON lines": ("t.jsonl", lambda path: table.read(table_conf(path))),
    "Parquet": ("t.parquet", lambda path: table.read(table_conf(path))),
    "kind of a file": ("a.jpg", image_formats.file_kind),
    "picture": ("a.jpg", image_input.pixels_of),
    "size of a picture": ("a.jpg", decode.image_size),
    "picture to rescale": ("a.tif", lambda path: rescale.rescale(path, path, 0, 1)),
    "archive": ("a.zip", lambda path: unpack(path, path.parent / "out", no_progress)),
    "cache of digests": ("d", lambda path: digest_cache.load(path, 0, void).state_N4.size),
    "experiment": ("e.yaml", lambda path: expand_experiment([f"experiment={path}"])),
    "config beside weights": ("config.json", lambda file: hf_config.read_beside(file, file.name)),
    "names of tensors": ("w.bin", tensor_names.tensor_names),
    "index of shards": ("model.safetensors.index.json", shards.weight_map),
    "digest of weights": ("w.bin", shards.sha256_of),
    "header of weights": ("w.safetensors", file_format.safetensors_header),
    "weights": ("w.bin", weights.read_content),
    "numpy weights": ("w.npz", npz.read),
    "pickled weights": ("w.pth", pickled.read),
    "TorchScript": ("w.pt", torchscript.read),
    "list of weights": ("w.json", weights.files_of),
    "facts of weights": ("ckpt.bin", checkpoint_metadata.read_facts),
    "facts of a checkpoint": ("ckpt.bin", tensor_file.verify),
    "checkpoint": ("ckpt.bin", checkpoint.read),
    "copied checkpoint": ("ckpt.bin", lambda path: checkpoint.copy(path, path.parent / "b")),
    "resume state": (f"state-00000001.{'a' * 64}.pt", resume_state._read),
    "retention": ("retention.json", retention.read),
    "predictions of a page": ("predictions.parquet", gallery.read_test_images),
    "classes of a page": ("per_class.csv", prediction_tables.read_class_rows),
    "places of a record": (
        "config.yaml",
        lambda path: restore._paths_of_run(path.parent / "ckpt.bin"),
    ),
    "file of an audit": ("metrics.json", lambda path: Record(path.parent).data(path.name)),
    "file of a record": (
        "metrics.json",
        lambda path: verify.read_verified(path.parent, path.name, {}),
    ),
    "status of a record": ("status.json", lambda path: verify.read_status(path.parent)),
    "header of a record": (
        "ckpt.bin",
        lambda path: verify.read_checkpoint_facts(
            path.parent, {"ckpt.bin": {"sha256": "", "bytes": 0}}
        ),
    ),
    "digest": ("f", hashing.sha256_file),
    "content store": ("f", lambda path: ContentStore(path.parent / "store").put(path)),
    "shard of features": ("00000.safetensors", feature_cache._load_shard),
    "lock": ("lock", file_lock.holder),
}


@pytest.mark.fault(52)
@pytest.mark.parametrize("make_file", [pipe, endless, linked_pipe, stub])
@pytest.mark.parametrize("door", READERS)
def test_a_path_that_is_no_file_is_refused_by_its_kind(door, make_file, tmp_path, alarm):
    name, read = READERS[door]
    make_file(tmp_path / name)
    line = refusal(lambda: read(tmp_path / name))
    # the readers of a record name its file; their callers name the folder
    assert line is None or str(tmp_path) in line or line.startswith(f"{name}: "), line


TOKENS = (
    b"1e999", b"9" * 20, b"9" * 5000, b"-1", b"NaN", b"true", b"null", b"{}", b"[[]]", b"[" * 3000,
    b'{"a":' * 500, b"\xff\xfe", b"\x00", b'"\\ud800"', b'"\\u0000"', "²".encode(), "١".encode(),
    b"", b" ", b"\n", b"../", b'"', b"0.5", b"*k", b"&k",
    b"!!python/object:os.system", b"${oc.env:HOME}",
)  # fmt: skip


def mutated(seed: bytes, generator: random.Random) -> bytes:
    """A seed with a few bytes flipped, cut out, doubled, or replaced by a token."""
    data = bytearray(seed)
    for _ in range(generator.choice((1, 1, 2, 4))):
        at, length = generator.randrange(len(data) + 1), generator.choice((0, 1, 1, 4, 12))
        way = generator.randrange(4)
        if way == 0 and at < len(data):
            data[at] ^= 1 << generator.randrange(8)
        elif way == 1:
            del data[at : at + length]
        elif way == 2:
            data[at:at] = data[at : at + length]
        else:
            data[at : at + length] = generator.choice(TOKENS)
    return bytes(data)


def outcome(read: Callable[[Path], None], path: Path) -> str | None:
    """The problem with the end of a reader; None if it ended correctly."""
    try:
        read(path)
    except fuzz_data.REFUSALS as error:
        text = str(error)
        return f"{len(text.splitlines())} lines: {text}" if len(text.splitlines()) != 1 else None
    except BaseException:
        return traceback.format_exc()
    return None


@pytest.mark.fault(42, 52)
@pytest.mark.parametrize("door", fuzz_data.DOORS)
def test_mutated_files_are_read_or_refused_in_one_line(door, tmp_path):
    """In a child: a damaged file must not end the process either."""
    seeds, read, suffix = fuzz_data.DOORS[door]
    generator = random.Random(door)
    tries = int(os.environ.get("FGVC_FUZZ_TRIES", "40"))

    def body() -> None:
        for number in range(tries):
            path = tmp_path / f"{number}" / f"file{suffix}"
            path.parent.mkdir()
            path.write_bytes(mutated(generator.choice(seeds), generator))
            if why := outcome(read, path):
                (tmp_path / "why").write_text(f"{path}\n{why}", errors="replace")
                return

    assert in_child(body) == 0, "the process died"
    assert not (tmp_path / "why").exists(), (tmp_path / "why").read_text()


def in_child(body: Callable[[], None]) -> int:
    """Run in a forked child; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            body()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("door", fuzz_data.DOORS)
def test_the_seeds_themselves_are_read(door, tmp_path):
    seeds, read, suffix = fuzz_data.DOORS[door]
    for number, seed in enumerate(seeds):
        path = tmp_path / f"{number}" / f"file{suffix}"
        path.parent.mkdir()
        path.write_bytes(seed)
        read(path)


def _inat(member: str, row: int, **values: object) -> bytes:
    """The JSON of iNaturalist with other values in one row."""
    rows = {name: [dict(entry) for entry in ones] for name, ones in fuzz_data.INAT.items()}
    rows[member][row].update(values)
    return json.dumps(rows).encode()


def _cub(name: str, text: str) -> bytes:
    return fuzz_data._joined({**fuzz_data.CUB, name: text})


def _metadata(text: bytes) -> bytes:
    rows = pa.table({"path": list(fuzz_data.PICTURES), "label": [0, 1, 0, 1]})
    return fuzz_data._parquet(rows.replace_schema_metadata({"huggingface": text}))


def _not_utf8(column: str) -> bytes:
    cells = {name: list(fuzz_data.PICTURES) for name in ("path", "label")}
    broken = pa.array([b"a", b"b", b"\xff\xfe", b"d"], pa.binary()).cast(pa.string(), safe=False)
    arrays = {name: broken if name == column else pa.array(cells[name]) for name in cells}
    return fuzz_data._parquet(pa.table(arrays))


@pytest.mark.parametrize(
    ("door", "data", "why"),
    [
        ("inat2017", _inat("images", 1, id=10**20), "row 1 (images)"),
        ("inat2017", _inat("images", 1, id=True), "row 1 (images)"),
        ("inat2017", _inat("images", 1, width=1e308), "row 1 (images)"),
        ("inat2017", _inat("images", 1, file_name="a\0.jpg"), "row 1 (images)"),
        ("inat2017", _inat("images", 1, file_name="\ud800.jpg"), "row 1 (images)"),
        ("inat2017", _inat("annotations", 1, category_id=-(10**30)), "row 4 (annotations)"),
        ("inat2017", _inat("categories", 0, id=0.5), "row 6 (categories)"),
        ("inat2017", b'{"images": [' + b"[" * 100_000, "nested too deep"),
        ("inat2017", b'{"images": [{"id": 1, "id": 2}]}', "twice"),
        ("inat2017", b'{"images": [], "images": []}', "twice"),
        ("inat2017", b'{"images": [NaN]}', "NaN"),
        ("inat2017", b'{"images": [1]}', "row 0 (images)"),
        ("cub", _cub("image_class_labels.txt", f"1 {10**20}\n2 1\n3 2\n4 2\n"), "labels.txt:1"),
        ("cub", _cub("image_class_labels.txt", "1 ١\n2 1\n3 2\n4 2\n"), "labels.txt:1"),
        ("cub", _cub("image_class_labels.txt", "1 1_0\n2 1\n3 2\n4 2\n"), "labels.txt:1"),
        ("cub", _cub("classes.txt", f"1 001.A\n{10**15} 002.B\n"), "classes.txt"),
        ("cub", _cub("parts/part_locs.txt", "1 1 1e999 4.0 1\n"), "part_locs.txt:1"),
        ("cub", _cub("bounding_boxes.txt", "1 1e39 2.0 3.0 4.0\n"), "bounding_boxes.txt:1"),
        ("jsonl", b'{"path": "a.jpg", "label": ' + b"[" * 9000 + b"}", "file.jsonl:1"),
        ("jsonl", b'{"path": "a.jpg", "label": "\\ud800"}', "file.jsonl:1"),
        ("jsonl", b'{"path": "a\\u0000.jpg", "label": "a"}', "file.jsonl:1"),
        ("jsonl", b'{"path": "a.jpg", "label": "a", "label": "b"}', "file.jsonl:1"),
        ("jsonl", b'{"path": "a.jpg", "label": 1' + b"0" * 5000 + b"}", "file.jsonl:1"),
        ("parquet", _metadata(b"{"), "Hugging Face"),
        ("parquet", _metadata(b"[" * 100_000), "Hugging Face"),
        ("parquet", _not_utf8("path"), "file.parquet:3: column path"),
        ("parquet", _not_utf8("label"), "file.parquet:3: column label"),
    ],
)
def test_an_odd_value_in_a_dataset_is_named_with_its_place(door, data, why, tmp_path, alarm):
    _, read, suffix = fuzz_data.DOORS[door]
    file = tmp_path / f"file{suffix}"
    file.write_bytes(data)
    with pytest.raises(UserError) as error:
        read(file)
    (line,) = str(error.value).splitlines()
    assert line.removeprefix("dataset.table=").startswith(str(tmp_path))
    assert why in line


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in itertools.pairwise("abcdefghij")
)
LONG = "a" * 3000
WRONG = (
    ["head=interval(0,1)"], ["-m", "head=interval(0,1)"], ["head=knn", "head.k=interval(1,5)"],
    ["-m", "seed=range(0,10,0)"], ["-m", "seed=range(0,1e9)"], ["seed=range(0,3)"],
    ["-m", "seed=range(0,9000)", "head.k=range(0,9000)"], ["-m", "seed=glob(*)"],
    [f"dataset.root={LONG}"], [f"backbone.weights={LONG}"], [f"runtime.output_root={LONG}"],
    ["task=eval", f"checkpoint={LONG}"], ["task=predict", f"image={LONG}"], [f"{LONG}=1"],
    [f"head={LONG}"], [f"experiment={LONG}.yaml"], [f"seed={'9' * 5000}"],
    ["dataset.root=a\0b"], ["dataset.root=a\ud800b"], ["\udcff=1"], ["seed=1\n2"],
    ["--cfg", "job", "-m", "seed=1,2"], ["--info", "nope"], ["--hydra-help", "head=nope"],
    ["experiment=null"], ["=x"], ["a==b"], ["seed="], ["seed='"], [""],
    ["task=train", "task.learning_rate=1e999"], [f"seed=1{'0' * 30}"],
    [f"runtime.num_workers=1{'0' * 30}"], [f"seed={'[' * 2000}"], [f"seed={'(' * 2000}"],
    ["seed=${nope:1}"], ["seed=${seed}"], ["seed=${oc.env:HOME}"],
    [f"backbone.checkpoints.x={{model: y, patch: {'9' * 30}, native: 3, width: 4}}"],
)  # fmt: skip


@pytest.fixture
def wrong(tmp_path, capsys) -> Callable[..., str]:
    """The line of a command that ends with 2 and writes nothing."""

    def line(*arguments: str) -> str:
        before = sorted(tmp_path.iterdir())
        roots = ("output", "cache", "multirun", "data", "weights")
        places = [f"runtime.{root}_root={tmp_path / root}" for root in roots]
        keys = {argument.partition("=")[0] for argument in arguments}
        places = [place for place in places if place.partition("=")[0] not in keys]
        assert main([*arguments, *places, "runtime.dry_run=true"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("fgvc: ")
        assert sorted(tmp_path.iterdir()) == before
        return line

    return line


@pytest.mark.fault(42)
@pytest.mark.parametrize("arguments", WRONG, ids=lambda words: " ".join(words)[:40])
def test_a_wrong_command_ends_with_2_and_one_line(arguments, wrong):
    assert len(wrong(*arguments)) < 1000


@pytest.mark.fault(42)
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("seed: !!python/object/apply:os.system [ls]\n", "tag"),
        ("seed: &a [*a]\n", "its own anchor"),
        (BOMB, "values"),
        (f"seed: {'[' * 5000}\n", "levels"),
        (f"seed: {'9' * 5000}\n", "digits"),
        ("seed: 2001-99-99\n", "seed"),
        ("dataset: {root: '${oc.env:HOME}'}\n", "dataset.root"),
        ("seed: 1\nseed: 2\n", "duplicate"),
        ("\0", "special characters"),
        ("seed: !!timestamp x\n", "tag"),
        ("seed: !!int x\n", "tag"),
        ("head: !!set {knn}\n", "tag"),
        (f"seed: 0x{'7' * 5000}\n", "digits"),
        (f"head: {{k: [-{'7' * 5000}]}}\n", "digits"),
        ("? [a, b]\n: 1\n", "key"),
        ("defaults: [{override /backbone: [a, b]}]\n", "backbone"),
    ],
)
def test_an_odd_experiment_file_ends_with_2_and_one_line(text, why, tmp_path, wrong):
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    assert why in wrong(f"experiment={file}")


@pytest.mark.fault(42)
@pytest.mark.parametrize("name", ["headeadad", "head..name", "head.name.x", "'", "a\u202eb"])
def test_a_key_that_cannot_be_shown_is_named_in_one_line(name, capsys):
    assert main(["--cfg", "job", "-p", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fgvc: --package ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["seed=3", "--cfg", "job", "head=knn", "-p", "seed"],
        ["-p", "seed", "--cfg=job", "seed=3"],
        ["seed=3", "-c", "job", "--package=seed"],
    ],
)
def test_flags_stand_anywhere(arguments, capsys):
    assert main(arguments) == 0
    assert capsys.readouterr().out == "3\n"


def test_showing_a_key_does_not_drop_it_from_a_file(tmp_path, capsys):
    (tmp_path / "own.yaml").write_text("seed: 7\n")
    assert main(["--cfg", "job", "-p", "seed", f"experiment={tmp_path / 'own.yaml'}"]) == 0
    assert capsys.readouterr().out == "7\n"


def test_hydra_shows_its_help_beside_overrides(capsys):
    assert main(["--hydra-help", "seed=1"]) == 0
    assert "Hydra" in capsys.readouterr().out


# --- row 57 ---


@pytest.fixture
def as_nobody(tmp_path) -> Callable[[Callable[[], None]], str]:
    """Run in a child that is not root, because root may write anywhere; returns its error."""

    def run(body: Callable[[], None]) -> str:
        for place in (tmp_path, *tmp_path.parents):
            if place == Path(tempfile.gettempdir()):
                break
            place.chmod(0o755)
        (tmp_path / "said").touch()
        (tmp_path / "said").chmod(0o666)

        def child() -> None:
            os.setegid(65534)
            os.seteuid(65534)
            try:
                body()
            except (UserError, ConfigError, OSError) as error:
                (tmp_path / "said").write_text(str(error))

        assert in_child(child) == 0
        (line,) = (tmp_path / "said").read_text().splitlines()
        return line

    return run


def locked(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "a.jpg").touch()
    folder.chmod(0o000)
    return folder


@pytest.mark.fault(57)
@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")
@pytest.mark.parametrize(
    "read",
    [
        lambda root: find_root.find(root, "images.txt"),
        lambda root: untrusted.folders_below(root, 2),
        lambda root: list(definition.images_below(root)),
        lambda root: table.read(table_conf(root)),
        lambda root: paths._find_scattered(root, ["b.jpg"]),
        lambda root: folder.read(root, 0.5, 0),
        lambda root: input_images.list_images(str(root)),
        lambda root: input_images.list_images(str(root / "**" / "*.jpg")),
    ],
    ids=["official", "records", "doctor", "parquet", "scattered", "folder", "predict", "pattern"],
)
def test_a_folder_that_cannot_be_listed_is_named(read, tmp_path, as_nobody):
    root = tmp_path / "birds"
    shut = locked(root / "gull")
    for name in ("robin/b.jpg", "wren/c.jpg"):
        (root / name).parent.mkdir()
        (root / name).touch()
    try:
        line = as_nobody(lambda: read(root))
    finally:
        shut.chmod(0o755)
    assert str(shut) in line


@pytest.mark.fault(57)
@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")
def test_an_image_that_cannot_be_read_is_named(tmp_path, as_nobody):
    file = tmp_path / "birds" / "a.jpg"
    file.parent.mkdir()
    file.write_bytes(b"\xff\xd8")
    file.chmod(0o000)
    with pytest.raises(AssertionError):  # AbsentError is no refusal of its own: its reader words it
        as_nobody(lambda: void(file_state.read(str(file))))
    line = as_nobody(lambda: void(image_input.pixels_of(file)))
    assert str(file) in line


@pytest.mark.fault(52)
def test_standard_input_without_end_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(untrusted, "IMAGE", 3 * untrusted.MIB)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Path("/dev/zero").open() as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        with (
            pytest.raises(UserError, match=r"^image=-: standard input holds more than the 3145728"),
            given.find_images("-"),
        ):
            pass
    small = tmp_path / "small"
    small.write_bytes(b"a picture")
    with small.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        with given.find_images("-") as (images, _):
            assert (images.root / images.path[0]).read_bytes() == b"a picture"
