"""Where weights are found, and what is said of files that are not weights."""

import hashlib
import http.server
import os
import pickle
import subprocess
import sys
import threading
import time
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from fgvc.model.backbone import weights
from fgvc.types import UserError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def _same(read):
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
def test_wrappers_are_taken_off(tmp_path, wrapped, legacy):
    torch.save(wrapped, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert _same(weights.read(tmp_path / "w.pth"))


def test_a_file_is_told_by_its_bytes_not_its_name(tmp_path):
    save_file(STATE, tmp_path / "w.bin")
    torch.save(STATE, tmp_path / "w.safetensors")
    assert _same(weights.read(tmp_path / "w.bin"))
    assert _same(weights.read(tmp_path / "w.safetensors"))


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


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b""), r"empty \(0 bytes\)"),
        (lambda path: path.write_text("\n<!DOCTYPE html><html>404</html>"), "a web page"),
        (lambda path: path.write_text("<html>sign in</html>"), "a web page"),
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
def test_a_file_that_is_no_weights_is_diagnosed_in_one_line(tmp_path, make, says):
    path = tmp_path / "w.pth"
    make(path)
    with pytest.raises(UserError, match=says) as caught:
        weights.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


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


def test_another_digest_is_refused_naming_both(tmp_path, conf):
    save_file(STATE, tmp_path / "w.safetensors")
    sha256 = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f"{sha256}.*{'0' * 64}"):
        weights.find(conf(weights=str(tmp_path / "w.safetensors"), weights_sha256="0" * 64))


def test_a_missing_file_is_named(tmp_path, conf):
    with pytest.raises(UserError, match=f"backbone.weights={tmp_path}/none.pth: no such file"):
        weights.find(conf(weights=f"{tmp_path}/none.pth"))


def test_without_pretraining_nothing_is_looked_for(conf):
    source = weights.find(conf(pretrained=False))
    assert (source.kind, source.path, source.sha256) == ("random", None, None)


FIND = """
import sys, time
from fgvc.config import schema
from fgvc.model.backbone import weights
from fgvc.types import UserError
row = schema.Checkpoint(size="s", model="a_model", repo="timm/a_model", revision="v1", patch=16,
                        registers=False, prefix=1, width=8, native=224, license="")
conf = schema.Backbone(name="vit", size="s", patch=None, registers=False, revision=None,
                       pretrained=True, weights=None, weights_sha256=None, checkpoints={"s": row})
began = time.monotonic()
try:
    source = weights.find(conf)
    print(source.kind, source.revision, source.sha256, source.path)
except UserError as error:
    print(error)
assert time.monotonic() - began < 5, time.monotonic() - began
assert "timm" not in sys.modules
"""


@pytest.fixture
def find(tmp_path):
    """Look for weights in a process with its own hub cache; returns the line it prints."""

    def run(**environment):
        environment = {
            "HF_HOME": str(tmp_path / "hub"),
            "PYTHONPATH": ":".join(sys.path),
            "NO_PROXY": "*",
            **environment,
        }
        out = subprocess.run(
            [sys.executable, "-c", FIND],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return out.stdout.rstrip("\n")

    return run


@pytest.fixture
def hub():
    """A server that answers as the hub does for one file, or takes a call and says nothing."""
    commit, data, silent = "c" * 40, b"weights", threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            if silent.is_set():
                time.sleep(20)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", commit, data, silent
    server.shutdown()


def test_offline_names_both_ways_out_within_five_seconds(find):
    for said in (find(HF_HUB_OFFLINE="1"), find(HF_ENDPOINT="http://127.0.0.1:9")):
        assert "\n" not in said
        for part in (
            "a_model",
            "timm/a_model@v1",
            "hf download timm/a_model model.safetensors --revision v1",
            "backbone.weights=PATH",
        ):
            assert part in said


def test_a_hub_that_never_answers_is_given_up_on(find, hub):
    hub[3].set()
    assert "the hub cannot be reached" in find(HF_ENDPOINT=hub[0])


def test_a_download_is_recorded_and_then_served_from_the_cache(find, hub):
    endpoint, commit, data, _ = hub
    first = find(HF_ENDPOINT=endpoint)
    assert first.startswith(f"hub {commit} {hashlib.sha256(data).hexdigest()} /")
    assert find(HF_HUB_OFFLINE="1") == first
