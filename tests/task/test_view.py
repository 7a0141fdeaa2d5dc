"""task=view: refusals in one line, and the view in the real App."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from fgvc.config.compose import composed, typed
from fgvc.data.preprocess import evaluation_transform
from fgvc.data.view_transform import view as seen_by
from fgvc.parallel import signals
from fgvc.pipeline.run_images import heat_map
from fgvc.record.fiftyone import two_runs
from fgvc.run import main
from fgvc.task import view
from fgvc.types import Preempted
from tests.jobs import HANG, MINI, import_path, until
from tests.narrow import not_none

SMALL = (
    *MINI,
    "runtime.num_workers=0",
    "runtime.device=cpu",
    "dataset.generator.classes=4",
    "dataset.generator.train_per_class=6",
    "dataset.generator.test_per_class=4",
    "dataset.generator.side=96",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("größe = 3")


@pytest.fixture(scope="module")
def places(root):
    names = ("data", "cache", "output", "multirun", "weights")
    return [f'runtime.{name}_root="{root / name}"' for name in names]


@pytest.fixture(scope="module")
def runs(root, places):
    """A linear and a kNN probe on the same birds, made where FiftyOne is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "fiftyone", None)
        for head in ("linear", "knn"):
            assert main([*SMALL, *places, f"head={head}", f"runtime.run_id={head}"]) == 0
    folders = {}
    for head in ("linear", "knn"):
        (status,) = (root / "output" / head).glob("*/*/status.json")
        folders[head] = status.parent
    return folders


@pytest.fixture
def viewed(places, capfd):
    """viewed(*overrides) -> exit code and the error line."""

    def start(*overrides):
        capfd.readouterr()
        code = main(["task=view", *places, *overrides])
        return code, capfd.readouterr().err.strip().splitlines()[-1]

    return start


def run_of(folder):
    return f'run="{folder}"'


@pytest.mark.fault(34)
def test_every_run_writes_its_dataset_without_fiftyone(runs, root):
    for folder in runs.values():
        numbers = json.loads((folder / "metrics.json").read_text())
        metadata = json.loads((folder / "fiftyone" / "metadata.json").read_text())
        assert metadata["info"]["checkpoint_id"][:16] == folder.name
        assert metadata["info"]["config_hash"][:16] == folder.parent.name
        assert metadata["info"]["run_id"] == folder.parent.parent.name
        samples = list(two_runs.samples(folder / "fiftyone"))
        tested = [sample for sample in samples if "test" in sample["tags"]]
        assert len(tested) == numbers["test"]["n"] == 16
        assert len(samples) - len(tested) == numbers["val"]["n"]
        right = sum(sample["eval"] for sample in tested)
        assert right / len(tested) == pytest.approx(numbers["test"]["top1"])
        (birds,) = (root / "data").glob("synthetic*")
        assert all((birds / sample["filepath"]).is_file() for sample in samples)
        assert "embedding" in tested[0]
        index = json.loads((folder / "artifacts.json").read_text())
        assert {"fiftyone/metadata.json", "fiftyone/samples.json"} <= set(index)


@pytest.mark.fault(34)
def test_where_fiftyone_is_missing_one_line_says_how_to_get_it(runs, viewed, monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    code, line = viewed(run_of(runs["linear"]))
    assert code == 1
    assert line == "fgvc: FiftyOne is not installed: pip install 'fiftyone>=1.22,<2'"


def test_a_record_that_cannot_be_shown_is_refused(runs, viewed, root, tmp_path):
    code, line = viewed(run_of(root / "data"))
    assert (code, "artifacts.json" in line or "status.json" in line) == (1, True)
    assert "outputs/RUN/CONFIG/CHECKPOINT" in line
    code, line = viewed(run_of(root / "output"))
    assert (code, "2 complete runs are below it; choose one: knn/" in line) == (2, True)
    copy = tmp_path / runs["linear"].name
    shutil.copytree(runs["linear"], copy)
    with (copy / "fiftyone" / "samples.json").open("a") as file:
        file.write(" ")
    code, line = viewed(run_of(copy))
    assert (code, "fiftyone/samples.json: sha256 mismatch" in line) == (1, True)
    assert line.endswith("; restore the file, or run it again")  # a run folder was given


def test_missing_images_are_reported_with_the_way_out(runs, viewed, tmp_path):
    code, line = viewed(run_of(runs["linear"]), f'dataset.root="{tmp_path}"')
    assert code == 1
    assert f"is not in {tmp_path}: give dataset.root=PATH" in line


def test_a_taken_port_and_one_checkpoint_twice_are_refused(runs, viewed):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, line = viewed(run_of(runs["linear"]), f"task.port={port}")
    assert code == 1
    assert f"task.port={port}: Address already in use; another port is task.port={port + 1}" in line
    linear = runs["linear"]
    code, line = viewed(run_of(linear), f'against="{linear}"', f"task.port={free_port()}")
    assert (code, "run= and against=" in line) == (1, True)


def test_attention_is_within_the_view_of_the_network():
    """A wide image: the outer columns are cropped; the best patch is in its place."""
    conf = typed(composed(["backbone=vit_tiny", "backbone.pretrained=false"]))
    size_2 = np.array([400, 200])
    image_view = seen_by(evaluation_transform(conf), size_2[None])
    score_G = np.zeros(196, np.float32)
    score_G[3 * 14 + 11] = 2.0
    map_HW = heat_map(image_view, size_2, score_G, 16, 16)
    assert map_HW.shape == (16, 32)  # 12.5 pixels a cell
    x, y, width, height = image_view.seen[0]
    row, column = np.argwhere(map_HW == 255)[0]
    assert np.isclose(column * 12.5, x + 11 * 12.5, atol=12.5)
    assert np.isclose(row * 12.5, y + 3 * 12.5, atol=12.5)
    assert (map_HW == 255).sum() == 1
    inside = map_HW > 0
    assert inside.sum() == 14 * 14
    columns = np.flatnonzero(inside.any(axis=0))
    assert np.isclose(columns[0] * 12.5, x, atol=12.5)
    assert np.isclose((columns[-1] + 1) * 12.5, x + width, atol=12.5)
    upright = np.flatnonzero(inside.any(axis=1))
    assert np.isclose((upright[-1] + 1) * 12.5, y + height, atol=12.5)


@pytest.fixture(scope="module")
def app(runs, places, tmp_path_factory):
    """The App in its own process, with both runs; yields its port and output."""
    port, log = free_port(), tmp_path_factory.mktemp("said") / "out.txt"
    linear, knn = runs["linear"], runs["knn"]
    command = [sys.executable, "-m", "fgvc.run", "task=view", *places, run_of(linear)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FIFTYONE_")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, f'against="{knn}"', f"task.port={port}"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**clean, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    try:
        until(lambda: "Ctrl-C ends it" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield port, log
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group
        assert process.wait(HANG) == 0, log.read_text()
        assert "view: closed" in log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_person_sees_the_mistakes(app, runs, tmp_path):
    """Headless Chromium opens the saved view and counts its samples."""
    from playwright.sync_api import expect, sync_playwright

    port, log = app
    names, ids = ("linear", "knn"), [runs[head].name[:8] for head in ("linear", "knn")]
    printed = log.read_text()
    assert f"http://127.0.0.1:{port}" in printed
    assert "MongoDB" not in printed
    assert "Could not connect" not in printed
    name = f"synthetic linear against knn ({', '.join(ids)})"
    assert f" images as {name}; " in printed
    assert "\n  only linear right\n" in printed
    page_url = f"http://127.0.0.1:{port}/datasets/{urllib.parse.quote(name)}"
    with urllib.request.urlopen(page_url, timeout=HANG) as answer:
        assert b"FiftyOne" in answer.read()
    samples = list(two_runs.samples(runs["linear"] / "fiftyone"))
    wrong = sum(sample.get("eval") is False for sample in samples)
    assert 0 < wrong < metrics_count(runs["linear"])
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        with page.expect_response(
            lambda response: "/media?" in response.url and response.ok, timeout=1000 * HANG
        ):
            page.goto(f"{page_url}?view=misclassified-{names[0]}", wait_until="domcontentloaded")
        count = page.get_by_text(f"{wrong} samples", exact=True).first
        expect(count).to_be_visible(timeout=1000 * HANG)
        expect(page.get_by_text(f"predictions_{names[1]}").first).to_be_visible(timeout=1000 * HANG)
        page.wait_for_timeout(5000)  # what was served is drawn on canvases, which tell nothing
        page.screenshot(path=tmp_path / "misclassified.png")
        browser.close()
    assert (tmp_path / "misclassified.png").stat().st_size > 20_000
    assert log.read_text() == printed  # no warnings of FiftyOne, also when a browser connects


def metrics_count(folder):
    return json.loads((folder / "metrics.json").read_text())["test"]["n"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def start_view(runs, places, cwd, *overrides, **env):
    """task=view of a run in its own process group, which is killed at the end of the block."""
    chosen = {item.partition("=")[0]: item for item in (*places, *overrides)}
    command = ["task=view", run_of(runs["linear"]), f"task.port={free_port()}", *chosen.values()]
    with start_process(command, cwd, **env) as process:
        yield process


@contextmanager
def start_process(command, cwd, **env):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FIFTYONE_")}
    with subprocess.Popen(
        [sys.executable, "-um", "fgvc.run", *command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": import_path(), **env},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):  # all of the group have ended
                os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_while_it_loads_ends_well_too(runs, places, tmp_path):
    with start_view(runs, places, tmp_path, f'against="{runs["knn"].parent}"') as process:
        assert "the only complete run there" in not_none(process.stdout).readline()
        os.killpg(process.pid, signal.SIGINT)
        rest = not_none(process.stdout).read()
        assert process.wait(HANG) == 0, rest
    assert "view: closed" in rest
    assert "goes on" not in rest


@pytest.mark.slow
def test_tensorboard_lists_all_runs_by_name(runs, places, root, tmp_path):
    """The real TensorBoard, which ends with Ctrl-C."""
    port = free_port()
    command = ["task=view", "task.viewer=tensorboard", f"task.port={port}", *places]
    with start_process(command, tmp_path) as process:
        out = not_none(process.stdout)
        printed = list(iter(out.readline, f"view: http://127.0.0.1:{port} (Ctrl-C ends it)\n"))
        assert printed == [f"view: 2 runs of {root / 'output'}, and those that start there\n"]
        listed: list[str] = []
        until(lambda: len(listed.extend(fetch_runs(port)) or set(listed)) == 2)
        os.killpg(process.pid, signal.SIGINT)
        rest = out.read()
        assert process.wait(HANG) == 0, rest
    assert rest.endswith("view: closed\n")
    assert set(listed) == {
        f"synthetic · vit mini random · {head} · 224 px" for head in ("linear", "knn")
    }


def fetch_runs(port):
    url = f"http://127.0.0.1:{port}/data/runs"
    with urllib.request.urlopen(url, timeout=HANG) as answer:
        return json.load(answer)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "task=view needs run=PATH"),
        (["task.viewer=tensorboard", "against=."], "against=.: task.viewer=tensorboard shows all"),
    ],
)
def test_each_viewer_has_its_inputs(overrides, message, capfd):
    assert main(["task=view", *overrides]) == 2
    assert capfd.readouterr().err.startswith(f"fgvc: {message}")


def test_tensorboard_without_a_run_is_refused(tmp_path, capfd):
    overrides = [f"run={tmp_path}", f"task.port={free_port()}"]
    assert main(["task=view", "task.viewer=tensorboard", *overrides]) == 1
    assert capfd.readouterr().err == (
        f"fgvc: run={tmp_path}: no run with TensorBoard events. Give run=FOLDER\n"
    )


@pytest.fixture(params=[KeyboardInterrupt, Preempted])
def masked_interrupt(request):
    """OmegaConf's own cleanup raises if Ctrl-C comes while a container is half made."""

    def raise_it(*_):
        try:
            raise request.param
        finally:
            {}["a half made container"]

    return raise_it


def test_an_interrupt_that_becomes_an_error_in_a_library_closes_the_view(
    runs, monkeypatch, capfd, masked_interrupt
):
    monkeypatch.setattr(view, "declared_values", masked_interrupt)
    monkeypatch.setattr(signals, "exit_within", lambda seconds: print(f"within {seconds:.0f} s"))
    assert main(["task=view", run_of(runs["linear"])]) == 0
    assert capfd.readouterr().out.splitlines()[-2:] == ["view: closed", "within 20 s"]


def test_any_job_whose_interrupt_becomes_an_error_is_resumable(
    runs, monkeypatch, capfd, masked_interrupt
):
    monkeypatch.setattr(view, "run", masked_interrupt)
    capfd.readouterr()
    assert main(["task=view", run_of(runs["linear"]), "runtime.run_id=r"]) == 75
    line = "fgvc: stopped; the same command with runtime.run_id=r resumes it"
    assert capfd.readouterr().err.splitlines() == [line]


@pytest.mark.slow
def test_a_named_database_that_does_not_answer_is_named(runs, places, tmp_path):
    """By its variable, without the password, long before FiftyOne's timeout of half a minute."""
    uri = f"mongodb://me:secret@127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=200"
    with start_view(runs, places, tmp_path, FIFTYONE_DATABASE_URI=uri) as process:
        printed = not_none(process.stdout).read()
        assert process.wait(HANG) == 1, printed
    line = printed.strip().splitlines()[-1]
    assert line.startswith("fgvc: FIFTYONE_DATABASE_URI=mongodb://…@127.0.0.1:")
    assert "unset FIFTYONE_DATABASE_URI" in line
    assert "secret" not in printed
    assert "Traceback" not in printed


@pytest.mark.fault(34)
@pytest.mark.slow
def test_a_mongod_that_ends_at_once_gives_the_reason(runs, places, tmp_path):
    """Its folder is damaged; FiftyOne would wait for minutes without a message."""
    database = tmp_path / "cache" / "fiftyone"
    database.mkdir(parents=True)
    (database / "storage.bson").write_text("junk")
    with start_view(runs, places, tmp_path, f"runtime.cache_root={tmp_path / 'cache'}") as process:
        printed = not_none(process.stdout).read()
        assert process.wait(HANG) == 1, printed
    line = printed.strip().splitlines()[-1]
    assert line.startswith("fgvc: FiftyOne's mongod ended while it started (Unable to read")
    for way in (f"remove {database}", "runtime.cache_root=PATH", "FIFTYONE_DATABASE_URI"):
        assert way in line
    assert "Traceback" not in printed


def test_a_home_that_cannot_be_written_names_the_cache(runs, viewed, monkeypatch, tmp_path):
    (tmp_path / "home").touch()  # a file: root may write into any folder
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code, line = viewed(
        run_of(runs["linear"]), "runtime.cache_root=~/.cache/fgvc", f"task.port={free_port()}"
    )
    assert code == 1
    assert f"{tmp_path / 'home'}/.cache/fgvc/fiftyone: " in line
    assert "give another with runtime.cache_root=PATH (or FGVC_CACHE=PATH)" in line


STUCK = """
import threading
from fgvc.task import view

asked = threading.Event()

class Timer(threading.Timer):
    def run(self):
        asked.wait()
        if self.interval == view.GRACE:
            self.function(*self.args)

class Stuck:
    def close(self):
        print("asked")
        asked.set()
        threading.Event().wait()

threading.Timer = Timer
view._close(Stuck())
"""


def test_an_app_that_does_not_close_ends_with_its_process():
    """The timeout of the App has passed after the request to close."""
    done = subprocess.run([sys.executable, "-uc", STUCK], capture_output=True, timeout=HANG)
    assert (done.returncode, done.stdout) == (0, b"asked\n"), done.stderr
