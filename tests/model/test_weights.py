"""Where weights are found, and the errors for files that are not weights."""

import hashlib
import http.server
import json
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fgvc.config.weight_files.shards import sha256_of
from fgvc.model.backbone import weights
from fgvc.model.backbone.weights import sources
from fgvc.types import UserError
from tests.jobs import HANG

DEAD = "http://127.0.0.1:9"
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def _is_state(read):
    assert read.keys() == STATE.keys()
    return all(torch.equal(read[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize(
    "wrapped",
    [
        STATE,
        {"model": STATE, "epoch": 3},
        {"state_dict": STATE, "optimizer": {"lr": 0.1}},
        {"model": {f"module.{key}": value for key, value in STATE.items()}},
    ],
    ids=["bare", "model", "state_dict", "module"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_wrappers_are_removed(tmp_path, wrapped, legacy):
    torch.save(wrapped, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert _is_state(weights.read(tmp_path / "w.pth"))


def test_a_file_is_recognized_by_its_bytes_not_its_name(tmp_path):
    save_file(STATE, tmp_path / "w.bin")
    torch.save(STATE, tmp_path / "w.safetensors")
    assert _is_state(weights.read(tmp_path / "w.bin"))
    assert _is_state(weights.read(tmp_path / "w.safetensors"))


def _lfs(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 22883132\n")


def _cut(save):
    def damaged(path):
        save(STATE, path)
        path.write_bytes(path.read_bytes()[:-40])

    return damaged


def _save_legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def _zip_of_text(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights here")


@pytest.mark.fault(11)
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.write_bytes(b""), r"empty \(0 bytes\)"),
        (
            lambda path: path.write_text("\n<!DOCTYPE html><html>404</html>"),
            "HTML page, not weights",
        ),
        (lambda path: path.write_text("<html>sign in</html>"), "an HTML page"),
        (_lfs, "Git LFS pointer"),
        (_cut(torch.save), "cannot be read"),
        (_cut(save_file), "cannot be read"),
        (_cut(_save_legacy), "cannot be read"),
        (_zip_of_text, "cannot be read"),
        (lambda path: path.write_bytes(os.urandom(8) + b"noise" * 100), "refused|cannot be read"),
        (lambda path: torch.save({"a": torch.ones(1), "n": 3}, path), "a int at 'n'"),
        (lambda path: torch.save([torch.ones(1)], path), "a list, not named tensors"),
        (lambda path: torch.save({}, path), "not named tensors"),
    ],
    ids=[
        "empty",
        "doctype",
        "html",
        "lfs",
        "cut zip",
        "cut safetensors",
        "cut legacy",
        "zip of text",
        "noise",
        "not only tensors",
        "list",
        "no tensors",
    ],
)
def test_a_file_that_is_no_weights_is_diagnosed_in_one_line(tmp_path, make, expected):
    path = tmp_path / "w.pth"
    make(path)
    with pytest.raises(UserError, match=expected) as error:
        weights.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.fault(10)
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "beside tensors"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, form):
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    bomb = Malicious(trace)
    if form == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    elif form == "beside tensors":
        torch.save({**STATE, "x": bomb}, path)
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(UserError, match="refused, and nothing in the file was run"):
        weights.read(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if form != "pickle" else pickle.loads(path.read_bytes())
    assert trace.exists()  # it would have been


def test_a_given_file_is_found_with_its_digest(tmp_path, conf, monkeypatch):
    save_file(STATE, tmp_path / "w.safetensors")
    sha256 = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    monkeypatch.setenv("HOME", str(tmp_path))
    source = weights.find(conf(weights="~/w.safetensors", weights_sha256=sha256))
    assert (source.kind, source.sha256) == ("file", sha256)
    assert source.path == tmp_path / "w.safetensors"


@pytest.mark.fault(30)
def test_another_digest_is_refused_naming_both(tmp_path, conf):
    save_file(STATE, tmp_path / "w.safetensors")
    sha256 = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f"^backbone.weights_sha256={'0' * 64}: .*{sha256}"):
        weights.find(conf(weights=str(tmp_path / "w.safetensors"), weights_sha256="0" * 64))


def test_a_missing_file_is_named(tmp_path, conf):
    with pytest.raises(UserError, match=f"backbone.weights={tmp_path}/none.pth: no such file"):
        weights.find(conf(weights=f"{tmp_path}/none.pth"))


def test_without_pretraining_nothing_is_looked_for(conf):
    source = weights.find(conf(pretrained=False))
    assert (source.kind, source.path, source.sha256) == ("random", None, None)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("vit", "model.safetensors"),
        ("clip", "open_clip_model.safetensors"),
        ("clip", "open_clip_pytorch_model.bin"),
        ("siglip2", "model.safetensors"),
    ],
)
def test_a_folder_means_the_weights_in_it(tmp_path, mini, family, name):
    save_file(STATE, tmp_path / name)
    assert weights.find(mini(family, tmp_path)).path == tmp_path / name


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("vit", "no model.safetensors or pytorch_model.bin, as timm saves them"),
        ("clip", "no open_clip_model.safetensors or open_clip_pytorch_model.bin, as open_clip"),
        ("siglip2", "no model.safetensors or pytorch_model.bin, as transformers saves"),
    ],
)
def test_a_folder_without_weights_names_what_was_looked_for(tmp_path, mini, family, expected):
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(UserError, match=expected) as error:
        weights.find(mini(family, tmp_path))
    assert f"backbone.weights={tmp_path}" in str(error.value)
    assert "\n" not in str(error.value)


FIND = """
import os, sys, threading, time
from fgvc.config import schema
from fgvc.config.weight_files.shards import sha256_of
from fgvc.model.backbone import hub, weights
from fgvc.types import UserError
hub.TIMEOUT = float(os.environ.get("HUB_TIMEOUT", hub.TIMEOUT))
waits, join, sleep = [], threading.Thread.join, time.sleep

def join_recorded(thread, timeout=None):
    waits.append(timeout or 0.0)
    join(thread, timeout)

def sleep_recorded(seconds):
    waits.append(seconds)
    sleep(seconds)

threading.Thread.join, time.sleep = join_recorded, sleep_recorded
row = schema.Checkpoint(size="s", model="a_model", repo="timm/a_model", revision="v1", patch=16,
                        registers=False, prefix=1, width=8, native=224, license="")
conf = schema.Backbone(name="vit", library=sys.argv[1], size="s", patch=None, registers=False,
                       revision=None, pretrained=True, weights=None, weights_sha256=None,
                       checkpoints={"s": row})
began = time.process_time()
try:
    source = weights.find(conf)
    print(source.kind, source.revision, source.sha256, source.path)
    if sys.argv[2:]:
        print(weights.tokenizer(conf, source))
except UserError as error:
    print(error)
if "HUB_TIMEOUT" not in os.environ:  # what it computes and waits for, not what the machine adds
    seconds = time.process_time() - began
    assert seconds + sum(waits) < 5, (seconds, waits)
assert not {"torch", "timm", "open_clip", "transformers"} & set(sys.modules)
"""


@pytest.fixture
def find(tmp_path):
    """Look for weights in a process with its own hub cache; returns the line it prints.

    bounded=True: it must look for at most five seconds. Otherwise a hub on a loaded machine may
    take longer to answer.
    """

    def run(library="timm", *more, bounded=False, **environment):
        environment = {
            "HF_HOME": str(tmp_path / "hub"),
            "PYTHONPATH": ":".join(sys.path),
            "NO_PROXY": "*",
            **({} if bounded else {"HUB_TIMEOUT": str(HANG)}),
            **environment,
        }
        out = subprocess.run(
            [sys.executable, "-c", FIND, library, *more],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        return out.stdout.rstrip("\n")

    return run


class Hub:
    """A server that responds like the hub; `held`: the files of its only repository.

    answering: cleared to let requests wait for an answer. requests: how many there were.
    """

    def __init__(self):
        self.commit, self.held, self.answering = "c" * 40, {}, threading.Event()
        self.answering.set()
        self.requests = 0
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                hub.requests += 1
                hub.answering.wait()
                data = hub.held.get(self.path.rpartition("/")[2])
                missing = data is None and "/resolve/" in self.path
                self.send_response(404 if missing else 200)
                self.send_header("X-Repo-Commit", hub.commit)
                if missing:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", str(len(data or b"")))
                self.send_header("ETag", f'"{hashlib.sha256(data or b"").hexdigest()}"')
                self.end_headers()
                return data

            def do_GET(self):
                self.wfile.write(self.do_HEAD() or b"")

            def log_message(self, format, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def hub():
    served = Hub()
    yield served
    served.answering.set()
    served.server.shutdown()


FILES = {
    "timm": "model.safetensors config.json preprocessor_config.json",
    "open_clip": "open_clip_model.safetensors open_clip_config.json config.json "
    "preprocessor_config.json",
    "transformers": "model.safetensors config.json preprocessor_config.json",
}


@pytest.mark.fault(29)
@pytest.mark.parametrize("library", FILES)
def test_offline_names_both_ways_out_within_five_seconds(find, library):
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": DEAD}):
        message = find(library, bounded=True, **environment)
        assert "\n" not in message
        for fragment in (
            "no weights for a_model: timm/a_model@v1 is not cached",
            f"`hf download timm/a_model {FILES[library]} --revision v1`",
            "backbone.weights=PATH",
        ):
            assert fragment in message


@pytest.mark.fault(29)
@pytest.mark.slow
def test_a_hub_that_never_answers_is_given_up_on(find, hub):
    """After one request; the client of the hub would retry."""
    hub.answering.clear()
    assert "the hub cannot be reached" in find(bounded=True, HF_ENDPOINT=hub.endpoint)
    assert hub.requests == 1


@pytest.mark.parametrize(
    ("library", "names"),
    [
        ("timm", ["model.safetensors"]),
        ("open_clip", ["open_clip_model.safetensors", "open_clip_config.json"]),
        ("open_clip", ["open_clip_pytorch_model.bin"]),
        ("transformers", ["model.safetensors", "config.json"]),
        ("transformers", ["model.safetensors"]),
    ],
)
def test_a_download_is_recorded_and_then_served_from_the_cache(find, hub, library, names):
    hub.held = {name: name.encode() for name in names}
    first = find(library, HF_ENDPOINT=hub.endpoint)
    sha256 = hashlib.sha256(names[0].encode()).hexdigest()
    assert first.startswith(f"hub {hub.commit} {sha256} /")
    path = Path(first.split(" ", 3)[3])
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(names)
    assert find(library, HF_HUB_OFFLINE="1") == first


def test_a_repository_without_the_file_is_named(find, hub):
    message = find("open_clip", HF_ENDPOINT=hub.endpoint)
    assert (
        "no weights for a_model: timm/a_model@v1 is not cached and RemoteEntryNotFound" in message
    )


@pytest.mark.fault(30, 50)
def test_a_damaged_file_in_the_cache_is_refused(find, hub):
    hub.held = {"model.safetensors": b"weights"}
    path = Path(find(HF_ENDPOINT=hub.endpoint).split(" ", 3)[3])
    path.resolve().write_bytes(b"weightz")
    message = find(HF_HUB_OFFLINE="1")
    assert f"the hub has {hashlib.sha256(b'weights').hexdigest()}" in message
    assert f"delete {path.resolve()}" in message


SHARDS = {f"model-0000{number}-of-00003.safetensors": b"%d" % number for number in (1, 2, 3)}
INDEX = {f"tensor {name}": name for name in SHARDS}


@pytest.fixture
def sharded(hub):
    """The hub with a repository that holds only shards and their index."""
    index = json.dumps({"weight_map": INDEX}).encode()
    hub.held = {"model.safetensors.index.json": index, "config.json": b"{}", **SHARDS}
    return hub


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_repository_of_shards_is_fetched_whole(find, sharded, library, tmp_path):
    first = find(library, HF_ENDPOINT=sharded.endpoint)
    for name, data in sharded.held.items():
        (tmp_path / name).write_bytes(data)
    sha256 = sha256_of(tmp_path / "model.safetensors.index.json")  # as of a local folder
    assert first.startswith(f"hub {sharded.commit} {sha256} /")
    path = Path(first.split(" ", 3)[3])
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(sharded.held)
    assert find(library, HF_HUB_OFFLINE="1") == first


def test_shards_that_are_not_cached_are_named_and_fetched_later(find, sharded):
    first = find(HF_ENDPOINT=sharded.endpoint)
    snapshot, missing_names = Path(first.split(" ", 3)[3]).parent, list(SHARDS)[1:]
    for name in missing_names:
        (snapshot / name).resolve().unlink()
        (snapshot / name).unlink()
    message = find(HF_HUB_OFFLINE="1")
    command = f"`hf download timm/a_model {' '.join(missing_names)} --revision {sharded.commit}`"
    assert "\n" not in message
    assert command in message
    assert find(HF_ENDPOINT=sharded.endpoint) == first


def test_a_shard_that_the_repository_lacks_is_named(find, sharded):
    missing_names = list(SHARDS)[2]
    del sharded.held[missing_names]
    message = find(HF_ENDPOINT=sharded.endpoint)
    assert "\n" not in message
    assert f"lists 3 shards, and 1 of them are missing, the first is {missing_names}" in message


@pytest.mark.fault(30, 50)
def test_a_damaged_shard_in_the_cache_is_refused(find, sharded):
    path = Path(find(HF_ENDPOINT=sharded.endpoint).split(" ", 3)[3])
    shard = path.with_name(list(SHARDS)[1]).resolve()
    shard.write_bytes(b"x")
    message = find(HF_HUB_OFFLINE="1")
    assert "the hub has" in message
    assert f"delete {shard}" in message


def test_the_tokenizer_is_fetched_when_text_is_wanted(find, hub):
    hub.held = {"model.safetensors": b"weights"}
    first = find("transformers", HF_ENDPOINT=hub.endpoint)
    path = Path(first.split(" ", 3)[3]).with_name("tokenizer.json")
    message = find("transformers", "text", HF_HUB_OFFLINE="1").splitlines()[1]
    for fragment in (
        f"no tokenizer for a_model: timm/a_model@{hub.commit} is not cached",
        f"`hf download timm/a_model tokenizer.json --revision {hub.commit}`",
        "backbone.weights=PATH",
    ):
        assert fragment in message
    hub.held["tokenizer.json"] = b"{}"
    assert find("transformers", "text", HF_ENDPOINT=hub.endpoint) == f"{first}\n{path}"


def test_a_fault_of_our_own_is_no_fault_of_the_file(monkeypatch, conf, tmp_path):
    def broken(value, library):
        raise ValueError("a bug")

    monkeypatch.setattr(sources, "local_weights", broken)
    with pytest.raises(ValueError, match="a bug") as caught:
        weights.find(conf(weights=str(tmp_path / "w.safetensors")))
    assert type(caught.value) is ValueError  # with a traceback, not the one line of a UserError
