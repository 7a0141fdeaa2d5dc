"""TensorBoard's curves of a run, resumed or not, and its progress on the terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich
import torch
from PIL import Image
from sklearn.decomposition import PCA
from tensorboard import default
from tensorboard.backend import application
from tensorboard.backend.event_processing import data_ingester
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.program import TensorBoard
from tensorboard.summary.writer.record_writer import RecordWriter
from werkzeug.test import Client

from fgvc import metrics
from fgvc.metrics.precision_recall import count_by_threshold, macro
from fgvc.record import console
from fgvc.record.resume_state import States
from fgvc.record.tensorboard import (
    ALL,
    EMBEDDING,
    EVALUATION,
    IMAGES,
    KEYS,
    TRAINING,
    TRAINING_IMAGES,
    Board,
    hparams,
    image_sheet,
    projector,
)
from fgvc.record.tensorboard.hparams import AXES, CHOICES, RESULTS
from fgvc.types import Features, LabelMap, Manifest
from tests.narrow import not_none

STEPS, EPOCHS = 5, 4


def load_events(folder):
    accumulator = EventAccumulator(
        str(folder / "tb"), size_guidance={"scalars": 0, "images": 0, "tensors": 0}
    )
    accumulator.Reload()
    return accumulator


def test_an_event_file_has_the_bytes_of_tensorboards_own_writer(tmp_path):
    board = Board(tmp_path)
    board.hparams({"head": "linear", "seed": 0, "resolution": 224})
    board.embedding(*make_points(20, 3)[0])
    board.close()
    (file,) = (tmp_path / "tb").glob("events*")
    data, expected, at = file.read_bytes(), io.BytesIO(), 0
    writer = RecordWriter(expected)
    while at < len(data):  # length, checksum of the length, event, checksum of the event
        (length,) = struct.unpack_from("<Q", data, at)
        writer.write(data[at + 12 : at + 12 + length])
        at += 16 + length
    assert data == expected.getvalue()


def read_curves(folder):
    """{key: [(step, value)]} as read by TensorBoard."""
    accumulator = load_events(folder)
    return {
        tag: [(point.step, point.value) for point in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def numbers(step):
    return {name: (place + 1) / (step + 2) for place, name in enumerate(EVALUATION)}


def train(board, start=0, until=STEPS * EPOCHS, save=lambda step: None):
    """Write the points of a training; save a state at the end of each epoch."""
    for step in range(start + 1, until + 1):
        for key in ("train/loss", "train/top1", "train/images_per_s", "train/memory_mib"):
            board.scalar(key, len(key) / step, step)
        board.scalar("optim/lr", 1e-3 / step, step)
        board.scalar("optim/grad_norm", 3.0 * step, step)
        if step % STEPS == 0:
            board.evaluation("val", numbers(step), step)
            board.scalar("select/best_epoch", min(step // STEPS, 2), step)
            board.scalar("select/best_score", 0.5, step)
            save(step)


def finish(board):
    """Write the final evaluation of the selected weights of epoch 2."""
    for split in ("val", "test"):
        board.evaluation(split, numbers(2 * STEPS), 2 * STEPS)
    board.close()


@pytest.fixture
def uninterrupted(tmp_path):
    board = Board(tmp_path / "whole")
    train(board)
    finish(board)
    return read_curves(tmp_path / "whole")


def test_a_training_writes_exactly_the_listed_keys(uninterrupted):
    assert set(uninterrupted) == set(TRAINING)
    assert len(TRAINING) == len(set(TRAINING)) == 20
    assert len(KEYS) == len(set(KEYS)) == 15


def test_pictures_come_after_the_curves():
    """TensorBoard sorts its cards by tag."""
    assert min(*IMAGES, TRAINING_IMAGES) > max(ALL)


def test_an_unlisted_key_is_refused(tmp_path):
    board = Board(tmp_path)
    with pytest.raises(AssertionError, match="train/lss"):
        board.scalar("train/lss", 1.0)
    board.close()


def test_the_final_evaluation_is_on_its_own_curve(uninterrupted):
    at = [step for step, _ in uninterrupted["val/top1"]]
    assert at == [STEPS * epoch for epoch in range(1, EPOCHS + 1)]
    (final,) = uninterrupted["test/top1"]
    assert final == uninterrupted["val/top1"][1]


def test_a_probe_s_evaluation_is_at_step_0(tmp_path):
    board = Board(tmp_path)
    board.evaluation("test", {**numbers(3), "ece": None})
    board.close()
    points_of = read_curves(tmp_path)
    assert points_of["test/top1"] == [(0, pytest.approx(0.2))]
    assert "test/ece" not in points_of


@pytest.mark.fault(35)
@pytest.mark.parametrize("lost", [0, 3])
def test_a_resumed_run_has_the_curves_of_an_uninterrupted_one(tmp_path, uninterrupted, lost):
    """Killed `lost` steps after a state; its last event file is torn."""
    states = States(tmp_path / "resume", keep=2)
    folder, first = tmp_path / "run", 2 * STEPS
    board = Board(folder)
    train(board, 0, first + lost, lambda step: states.save(step, {"history": board.history}))
    board.close()
    (file,) = (folder / "tb").iterdir()
    os.truncate(file, file.stat().st_size - 7)
    step, state = not_none(States(states.folder, 2).newest(print))
    assert step == first
    board = Board(folder)
    board.replay(state["history"])
    train(board, step)
    assert board.history[: len(state["history"])] == state["history"]
    finish(board)
    assert len(list((folder / "tb").iterdir())) == 1
    assert read_curves(folder) == uninterrupted


def test_the_history_holds_plain_values(tmp_path):
    board = Board(tmp_path / "run")
    board.scalar("train/loss", torch.tensor(0.5), 1)  # pyright: ignore[reportArgumentType] no float
    board.scalar("optim/lr", np.float64(0.25), 1)
    board.scalar("optim/grad_norm", float("inf"), 1)
    states = States(tmp_path / "resume", keep=1)
    states.save(1, {"history": board.history})
    _, state = not_none(states.newest(print))
    expected = [("train/loss", 1, 0.5), ("optim/lr", 1, 0.25), ("optim/grad_norm", 1, float("inf"))]
    assert state["history"] == expected
    board.close()


def read_image(folder, tag):
    (image,) = load_events(folder).Images(tag)
    return image.encoded_image_string


@pytest.mark.parametrize(
    ("count", "shape", "columns", "rows"), [(1, (32, 48), 1, 1), (5, (32, 48), 3, 2)]
)
def test_images_are_arranged_in_a_grid_with_captions(tmp_path, count, shape, columns, rows):
    height, width = shape
    colour_BC11 = torch.arange(1, count * 3 + 1, dtype=torch.uint8).view(count, 3, 1, 1) * 9
    pixels_BCHW = colour_BC11.expand(count, 3, height, width)
    captions = ["Möwe, 鳥\t(juvenile) and a name far too long for its cell"] * count
    for name in ("one", "other"):
        board = Board(tmp_path / name)
        board.images("train/first batch", pixels_BCHW, captions)
        board.close()
    jpeg = read_image(tmp_path / "one", "train/first batch")
    assert jpeg == read_image(tmp_path / "other", "train/first batch")
    sheet_HWC = np.asarray(Image.open(io.BytesIO(jpeg)))
    cell = sheet_HWC.shape[0] // rows
    assert sheet_HWC.shape == (rows * cell, columns * width, 3)
    assert cell > height
    for place in range(count):
        y, x = place // columns * cell, place % columns * width
        shown_HWC = sheet_HWC[y : y + height, x : x + width]
        error_HWC = shown_HWC.astype(float) - colour_BC11[place].flatten().numpy()
        assert np.abs(error_HWC).mean() < 1.5  # a JPEG
        assert (sheet_HWC[y + height : y + cell, x : x + width] < 128).any()  # the caption


def test_a_grid_holds_sixteen_images_of_bounded_size(tmp_path):
    board = Board(tmp_path)
    board.images("big", torch.zeros(20, 3, 448, 448, dtype=torch.uint8), ["x"] * 20)
    board.close()
    width, height = Image.open(io.BytesIO(read_image(tmp_path, "big"))).size
    assert width == 4 * 224
    assert width < height < 1.2 * width


def test_a_caption_may_have_several_lines(tmp_path):
    pixels_BCHW = torch.zeros(2, 3, 40, 60, dtype=torch.uint8)
    board = Board(tmp_path)
    board.images("one", pixels_BCHW, ["a", "b"])
    board.images("two", pixels_BCHW, ["a", "b\nc"])
    board.close()
    one_line, two_lines = (
        Image.open(io.BytesIO(read_image(tmp_path, tag))) for tag in ("one", "two")
    )
    assert one_line.width == two_lines.width == 120
    assert two_lines.height - one_line.height == image_sheet.LINE
    below_HW = np.asarray(two_lines.convert("L"))[-image_sheet.LINE :]
    assert (below_HW[:, :60] > 200).all()
    assert (below_HW[:, 60:] < 128).any()


# --- curves, points and hyperparameters, as served by TensorBoard's own plugins ---


class TensorBoardServer:
    """The real TensorBoard on a folder of runs; its routes are requested like by its page."""

    def __init__(self, folder):
        program = TensorBoard(plugins=default.get_plugins())
        program.configure(logdir=str(folder), load_fast="false")
        flags = program.flags
        provider = data_ingester.LocalDataIngester(flags)
        provider._multiplexer.AddRunsFromDirectory(str(folder))
        provider._multiplexer.Reload()
        app = application.TensorBoardWSGIApp(
            flags, program.plugin_loaders, provider.data_provider, program.assets_zip_provider
        )
        self.client = Client(app)

    def get(self, route, **query):
        answer = self.client.get(f"/data/plugin/{route}", query_string=query)
        assert answer.status_code == 200, answer.text
        return answer

    def json(self, route, **query) -> Any:
        return self.get(route, **query).json

    def post(self, route, body) -> Any:
        answer = self.client.post(f"/data/plugin/{route}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json


def make_labels(images, classes):
    return np.random.default_rng(0).integers(classes, size=images)


def make_points(images, classes, width=64, noise=1.0):
    rng, label_N = np.random.default_rng(1), make_labels(images, classes)
    logits_NC = rng.normal(size=(images, classes)).astype(np.float32)
    logits_NC[np.arange(images), label_N] += 2
    row_N = np.arange(images) + 5
    path = tuple(f"images/{'鳥' * 80}/{row}.jpg" for row in range(images + 5))
    names = tuple(f"{'鳥 ' * 40}\t{label}" for label in range(classes))
    manifest = Manifest(Path(), path, np.zeros(0), np.zeros(0), ())
    features = Features(rng.normal(3, noise, (images, width)).astype(np.float32), row_N)
    predictions = metrics.from_logits(row_N, label_N, logits_NC)
    return projector.pca_points(features, predictions, manifest, LabelMap(names, names)), features


def test_points_are_bounded_and_every_class_has_its_share(tmp_path):
    points, _ = make_points(9000, 300)
    board = Board(tmp_path)
    board.embedding(*points)
    board.close()
    size = sum(file.stat().st_size for file in (tmp_path / "tb" / "00000").rglob("*.tsv"))
    assert 2**18 < size < 2 * 2**20
    assert points[0].shape == (2000, 32)
    kept_C, all_C = (
        np.unique([row[0] for row in points[1]], return_counts=True)[1],
        np.unique(make_labels(9000, 300), return_counts=True)[1],
    )
    assert len(kept_C) == 300
    assert np.abs(np.sort(kept_C) - np.sort(all_C) * 2000 / 9000).max() < 1.5


def test_points_have_the_names_that_people_read():
    names = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    manifest = Manifest(Path(), ("a.jpg", "b.jpg"), np.zeros(0), np.zeros(0), ())
    logits_NC = np.eye(2, dtype=np.float32)[::-1]
    predictions = metrics.from_logits(np.arange(2), np.array([0, 1]), logits_NC)
    features = Features(np.eye(2, dtype=np.float32), np.arange(2))
    _, facts = projector.pca_points(features, predictions, manifest, LabelMap(names, names))
    assert [row[:3] for row in facts] == [
        ("Black footed Albatross", "Laysan Albatross", "wrong"),
        ("Laysan Albatross", "Black footed Albatross", "wrong"),
    ]


def test_points_are_the_principal_components(tmp_path):
    points, features = make_points(50, 3)
    expected = PCA(32, svd_solver="full").fit_transform(features.x_ND)
    expected /= expected[:, 0].std()
    np.testing.assert_allclose(np.abs(points[0]), np.abs(expected), atol=2e-3)


def test_equal_features_and_narrow_ones_have_points_too():
    assert not make_points(4, 2, noise=0.0)[0][0].any()
    assert make_points(9, 3, width=2)[0][0].shape == (9, 2)


def make_curve(seed):
    rng = np.random.default_rng(seed)
    label_N = rng.integers(4, size=200)
    logits_NC = rng.normal(size=(200, 4)) * 2
    logits_NC[np.arange(200), label_N] += 2
    return macro(count_by_threshold(logits_NC, label_N, 127))


def test_tensorboard_shows_curves_points_and_choices_of_all_runs(tmp_path):
    runs = {}
    for seed, name in enumerate(("one", "other")):
        board = Board(tmp_path / name)
        board.evaluation("test", numbers(seed))
        board.curve("all/macro", make_curve(seed))
        board.embedding(*make_points(20, 3)[0])
        more = {"learning_rate": 1e-3, "epochs": 7} if seed else {}
        board.hparams({"head": "linear", "seed": seed, "resolution": 224, **more})
        board.close()
        runs[f"{name}/tb"] = seed, more
        assert len(list((tmp_path / name / "tb").glob("events*"))) == 1
    server = TensorBoardServer(tmp_path)

    experiment = server.post("hparams/experiment", {"experimentName": ""})
    declared = [info["name"] for info in experiment["hparamInfos"]]
    assert set(declared[:5]) == set(AXES)
    assert set(declared) == set(CHOICES)
    results = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert results == list(RESULTS)
    assert set(RESULTS) <= set(KEYS) & set(TRAINING)
    for folder in runs:  # as task=view does for the runs that it shows
        hparams.write_declaration(tmp_path / folder, ["seed", "epochs"])
    shown = TensorBoardServer(tmp_path).post("hparams/experiment", {"experimentName": ""})
    infos = shown["hparamInfos"]
    assert [info["name"] for info in infos if info["differs"]] == ["epochs", "seed"]
    assert [info["name"] for info in infos[:2]] == ["epochs", "seed"]
    assert [info["name"]["tag"] for info in shown["metricInfos"]] == list(RESULTS)
    request = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": [{"metric": {"tag": "test/top1"}, "includeInResult": True}]
        + [{"hparam": name, "includeInResult": True} for name in declared],
        "sliceSize": 10,
    }
    groups = server.post("hparams/session_groups", request)["sessionGroups"]
    assert {group["sessions"][0]["name"] for group in groups} == set(runs)
    for group in groups:
        seed, more = runs[group["sessions"][0]["name"]]
        (top1,) = [
            metric["value"] for metric in group["metricValues"] if "top1" in metric["name"]["tag"]
        ]
        assert top1 == pytest.approx(numbers(seed)["top1"])
        assert group["hparams"]["seed"] == seed
        assert {name: group["hparams"].get(name) for name in more} == more

    curves_of = server.json("pr_curves/pr_curves", run="one/tb", tag="all/macro")
    served_curve = curves_of["one/tb"][0]
    expected = make_curve(0)
    assert served_curve["recall"] == pytest.approx(
        expected.recall_T[: len(served_curve["recall"])].tolist()
    )
    assert served_curve["precision"] == pytest.approx(
        expected.precision_T[: len(served_curve["recall"])].tolist()
    )

    assert set(server.json("projector/runs")) == set(runs)
    (info,) = server.json("projector/info", run="one/tb")["embeddings"]
    assert info["tensorName"] == f"{EMBEDDING}:00000"
    request = {"run": "one/tb", "name": info["tensorName"]}
    header, *rows = server.get("projector/metadata", **request).text.splitlines()
    assert header.split("\t") == ["class", "predicted", "outcome", "confidence", "path"]
    assert {len(row.split("\t")) for row in rows} == {5}
    x_PK = np.frombuffer(server.get("projector/tensor", **request).data, np.float32)
    assert x_PK.reshape(20, 32) == pytest.approx(make_points(20, 3)[0][0], abs=1e-6)


# --- the terminal ---

PULSE = console.Pulse(loss=1.23456, learning_rate=5e-4, images_per_s=812.34, memory_mib=7885)
WIDEST = console.Pulse(loss=-1.2345e6, learning_rate=5e-14, images_per_s=99999.9, memory_mib=2e5)


def test_without_a_terminal_a_line_reports_the_last_step(capsys):
    with console.training(epochs=2, steps=3, done=2) as step:
        for _ in range(4):
            step(PULSE)
    (line,) = capsys.readouterr().out.splitlines()  # ten seconds have not passed
    expected = "epoch 2/2 step 3/3: loss 1.235, lr 5.00e-04, 812.3 images/s, 7.7 GiB, 0 s"
    assert line == expected


@pytest.mark.parametrize("done", [0, 10**10])
def test_lines_report_the_time_left_at_the_pace_of_this_process(capsys, monkeypatch, done):
    monkeypatch.setattr(console, "PLAIN_EVERY", 0.0)
    with console.training(epochs=30, steps=10**9, done=done) as step:
        step(console.Pulse(float("nan"), 1e-3, 0.5))
    (line,) = capsys.readouterr().out.splitlines()
    match = re.fullmatch(
        r"epoch \d+/30 step 1/1000000000: loss nan, lr 1.00e-03, 0.5 images/s, "
        r"\d+ s, ([\d.]+) h left",  # so many steps take hours on any machine
        line,
    )
    assert match, line
    assert float(match[1]) > 2


def run_on_terminal(work, columns=80):
    """Run a function on a pseudo-terminal; returns the final screen and every line drawn."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            os.environ["TERM"] = "xterm-256color"
            for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
                os.environ.pop(name, None)
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            rich.reconfigure()  # earlier tests cached a console without a terminal
            work()
            sys.stdout.flush()
        finally:
            os._exit(0)
    drawn = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux raises when the other end is closed
            break
        if not piece:
            break
        drawn += piece
    os.waitpid(pid, 0)
    os.close(terminal)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())
    return render_screen(drawn.decode()), [line for line in re.split(r"[\r\n]+", plain) if line]


def render_screen(drawn):
    """The screen of a terminal; supports cursor up and erase line, ignores colours."""
    rows, y = [""], 0
    for number, control, line_feed, text in re.findall(
        r"\x1b\[([0-9;?]*)([A-Za-z])|(\n)|([^\x1b\r\n]+)", drawn
    ):
        if control == "A":
            y -= int(number or 1)
        elif control == "K":
            rows[y] = ""
        elif line_feed:
            y += 1
            rows += [""] * (y == len(rows))
        rows[y] += text
    return [row for row in rows if row]


@pytest.mark.parametrize("pulse", [PULSE, WIDEST], ids=["usual", "widest"])
def test_on_a_terminal_of_80_columns_nothing_wraps_or_is_cut(pulse):
    def work():
        with console.training(epochs=100, steps=105_460, done=99 * 105_460 + 9_000) as step:
            for _ in range(3):
                step(pulse)

    (bar, last_step), lines = run_on_terminal(work)
    assert max(map(len, lines)) <= 80
    assert last_step == str(pulse)
    assert re.fullmatch(
        r"epoch 100/100 step 9003/105460 ━+[╸╺]?━* +\d+ s, [\d.]+ (s|min|h) left *", bar
    )
    assert "…" not in "".join(lines)
