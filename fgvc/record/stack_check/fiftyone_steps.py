"""FiftyOne's database, a small dataset, an evaluation, an export, the App -> one line per step.

Runs in a process with its own folders (see `examine`). The steps share a dataset in the database.
N samples, C classes.
"""

from __future__ import annotations

import json
import os
import re
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from fgvc.metrics import classification, evaluate, from_logits
from fgvc.record.fiftyone.app import launch, prepare
from fgvc.record.stack_check import MismatchError, check_equal

NAME, EVALUATION = "fgvc-check", "eval"
CLASSES = ("Möwe", "Ram C/V", "avocet")  # characters that break file names and queries
ADDRESS = "127.0.0.1"
LABEL_N = np.arange(12) % len(CLASSES)
# all correct except two samples, which are predicted as the first class
LOGITS_NC = 4.0 * np.eye(len(CLASSES))[np.where(np.isin(np.arange(12), (1, 5)), 0, LABEL_N)]
TIMEOUT = 30.0  # seconds for one response of a server


def database(folder: Path) -> str:
    """Start the real database and check that FiftyOne uses it and no database of the user.

    Raises:
        UserError: FiftyOne or its mongod is missing or does not start; names what to install.
    """
    database_folder = Path(os.environ["FIFTYONE_DATABASE_DIR"])
    prepare(database_folder)
    import fiftyone.core.odm as odm

    client = odm.get_db_conn().client
    options = client.admin.command("getCmdLineOpts")["parsed"]
    used = Path(options["storage"]["dbPath"]).resolve()
    check_equal("database folder", used, database_folder.resolve())
    return f"mongod {client.server_info()['version']}, in its own folder"


def dataset(folder: Path) -> str:
    """A dataset of generated images with ground truth and predictions."""
    import fiftyone as fo
    from PIL import Image

    confidence_N = np.exp(classification.log_probabilities(LOGITS_NC)).max(axis=1)
    pred_N = LOGITS_NC.argmax(axis=1)
    samples = []
    for row, label in enumerate(LABEL_N):
        file = folder / "images" / f"{row}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (48, 36), (20 * row, 90, 160)).save(file)
        truth = fo.Classification(label=CLASSES[label])
        prediction = fo.Classification(
            label=CLASSES[pred_N[row]], confidence=float(confidence_N[row]), logits=LOGITS_NC[row]
        )
        samples.append(fo.Sample(filepath=str(file), ground_truth=truth, predictions=prediction))
    fo_dataset = fo.Dataset(NAME)
    fo_dataset.default_classes = list(CLASSES)
    fo_dataset.add_samples(samples, progress=False)
    check_equal("samples", fo_dataset.count(), len(LABEL_N))
    return f"{fo_dataset.count()} images with ground truth, predictions and logits"


def evaluation(folder: Path) -> str:
    """Compare FiftyOne's evaluation with fgvc's own numbers on the same logits.

    Raises:
        MismatchError: a cell of the confusion matrix or a number of a class differs.
    """
    import fiftyone as fo

    results = fo.load_dataset(NAME).evaluate_classifications(
        "predictions", gt_field="ground_truth", eval_key=EVALUATION, classes=list(CLASSES)
    )
    matrix = classification.confusion(LOGITS_NC, LABEL_N, len(CLASSES)).dense()[:, :-1]
    check_equal("confusion matrix", results.confusion_matrix().tolist(), matrix.tolist())
    predictions = from_logits(np.arange(len(LABEL_N)), LABEL_N, LOGITS_NC)
    numbers = evaluate(predictions, len(CLASSES))
    check_equal("accuracy", _round(results.metrics()["accuracy"]), _round(numbers["top1"]))
    report = results.report()
    for row in classification.per_class(LOGITS_NC, LABEL_N, CLASSES):
        reported = report[row["name"]]
        for name in ("precision", "recall", "f1", "support"):
            value = reported["f1-score" if name == "f1" else name]
            check_equal(f"{name} of {row['name']}", _round(value), _round(row[name]))
    return f"accuracy {numbers['top1']:.3f}, confusion and numbers by class equal fgvc's own"


def export(folder: Path) -> str:
    """Export a FiftyOneDataset and read it back."""
    import fiftyone as fo
    from fiftyone.types import FiftyOneDataset

    fo_dataset, target = fo.load_dataset(NAME), folder / "export"
    kind: dict[str, Any] = {"dataset_type": FiftyOneDataset, "progress": False}
    fo_dataset.export(export_dir=str(target), export_media=True, **kind)
    imported = fo.Dataset.from_dir(dataset_dir=str(target), **kind)
    for field in ("ground_truth.label", "predictions.label"):
        check_equal(field, imported.count_values(field), fo_dataset.count_values(field))
    check_equal("evaluations", imported.list_evaluations(), fo_dataset.list_evaluations())
    files = [Path(sample.filepath).resolve() for sample in imported.iter_samples()]
    exported = [file for file in files if file.is_relative_to(target.resolve()) and file.is_file()]
    check_equal("images in the export", len(exported), len(LABEL_N))
    return f"{imported.count()} images exported and read back, counts equal"


def app(folder: Path) -> str:
    """Load the App's page, its script and an image over HTTP; then close the App.

    Raises:
        MismatchError: the server is not the App, or it still answers after it was closed.
    """
    import fiftyone as fo

    fo_dataset = fo.load_dataset(NAME)
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port = probe.getsockname()[1]
    session = launch(fo_dataset, ADDRESS, port)
    try:
        page = _get(port, "/").decode()
        check_equal("title of the page", re.findall(r"<title>(.*?)</title>", page), ["FiftyOne"])
        scripts = re.findall(r'<script type="module"[^>]* src="\.?/([^"]+\.js)"', page)
        check_equal("programs the page names", len(scripts), 1)
        _get(port, f"/{scripts[0]}")
        version = json.loads(_get(port, "/fiftyone"))["version"]
        check_equal("version", version, fo.__version__)
        file = fo_dataset.first().filepath
        data = _get(port, f"/media?filepath={urllib.parse.quote(file)}")
        check_equal("bytes of an image", len(data), Path(file).stat().st_size)
    finally:
        session.close()
    with socket.socket() as probe:
        probe.settimeout(TIMEOUT)
        if probe.connect_ex((ADDRESS, port)) == 0:
            raise MismatchError(f"the App still answers on port {port} after it was closed")
    return f"FiftyOne {version}: its page, its program and an image served"


def _round(number: float) -> float:
    return round(float(number), 12)


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{ADDRESS}:{port}{path}", timeout=TIMEOUT) as response:
        return response.read()
