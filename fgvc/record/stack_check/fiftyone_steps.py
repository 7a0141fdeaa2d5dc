"""FiftyOne at work: its database, a small dataset, an evaluation, an export, its App.

Runs in a process with folders of its own (see `examine`); the steps meet in the database, by name.
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

import numpy as np

from fgvc.metrics import classification
from fgvc.record.fiftyone.app import launch, prepare
from fgvc.record.stack_check.step import MismatchError, Step, check_equal

NAME, EVALUATION = "fgvc-check", "eval"
CLASSES = ("Möwe", "Ram C/V", "avocet")  # letters that file names and queries trip over
ADDRESS = "127.0.0.1"
LABEL_N = np.arange(12) % len(CLASSES)
# right but for two samples, which are taken for the first class
LOGITS_NC = 4.0 * np.eye(len(CLASSES))[np.where(np.isin(np.arange(12), (1, 5)), 0, LABEL_N)]
TIMEOUT = 30.0  # seconds for a single answer of a server


def database(folder: Path) -> str:
    """Start the real database and see that it is this check's own, not one that a user has running.

    Raises:
        UserError: FiftyOne or its mongod is missing or does not start; names what to install.
    """
    wanted = Path(os.environ["FIFTYONE_DATABASE_DIR"])
    prepare(wanted)
    import fiftyone.core.odm as odm

    client = odm.get_db_conn().client
    options = client.admin.command("getCmdLineOpts")["parsed"]
    check_equal("database folder", Path(options["storage"]["dbPath"]).resolve(), wanted.resolve())
    return f"mongod {client.server_info()['version']}, in a folder of its own"


def dataset(folder: Path) -> str:
    """Pictures made on the spot, with ground truth and predictions."""
    import fiftyone as fo
    from PIL import Image

    confidence_N = np.exp(classification.log_probabilities(LOGITS_NC)).max(axis=1)
    pred_N = LOGITS_NC.argmax(axis=1)
    samples = []
    for row, label in enumerate(LABEL_N):
        file = folder / "pictures" / f"{row}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (48, 36), (20 * row, 90, 160)).save(file)
        truth = fo.Classification(label=CLASSES[label])
        guess = fo.Classification(
            label=CLASSES[pred_N[row]],
            confidence=float(confidence_N[row]),
            logits=LOGITS_NC[row],
        )
        samples.append(fo.Sample(filepath=str(file), ground_truth=truth, predictions=guess))
    made = fo.Dataset(NAME)
    made.default_classes = list(CLASSES)
    made.add_samples(samples, progress=False)
    check_equal("samples", made.count(), len(LABEL_N))
    return f"{made.count()} pictures with ground truth, predictions and logits"


def evaluation(folder: Path) -> str:
    """FiftyOne's evaluation against fgvc's own numbers on the same logits.

    Raises:
        Differs: a cell of the confusion matrix or a number of a class is another.
    """
    import fiftyone as fo

    found = fo.load_dataset(NAME).evaluate_classifications(
        "predictions", gt_field="ground_truth", eval_key=EVALUATION, classes=list(CLASSES)
    )
    matrix = classification.confusion(LOGITS_NC, LABEL_N, len(CLASSES))[:, : len(CLASSES)]
    check_equal("confusion matrix", found.confusion_matrix().tolist(), matrix.tolist())
    numbers = classification.evaluate(LOGITS_NC, LABEL_N, len(CLASSES))
    check_equal("accuracy", _rounded(found.metrics()["accuracy"]), _rounded(numbers["top1"]))
    report = found.report()
    for row in classification.per_class(LOGITS_NC, LABEL_N, CLASSES):
        theirs = report[row["name"]]
        for name in ("precision", "recall", "f1", "support"):
            value = theirs["f1-score" if name == "f1" else name]
            check_equal(f"{name} of {row['name']}", _rounded(value), _rounded(row[name]))
    return f"accuracy {numbers['top1']:.3f}, confusion and numbers by class equal fgvc's own"


def export(folder: Path) -> str:
    """A FiftyOneDataset on disk, and the dataset that is read back from it."""
    import fiftyone as fo
    from fiftyone.types import FiftyOneDataset

    made, out = fo.load_dataset(NAME), folder / "export"
    made.export(
        export_dir=str(out), dataset_type=FiftyOneDataset, export_media=True, progress=False
    )
    read = fo.Dataset.from_dir(dataset_dir=str(out), dataset_type=FiftyOneDataset, progress=False)
    for field in ("ground_truth.label", "predictions.label"):
        check_equal(field, read.count_values(field), made.count_values(field))
    check_equal("evaluations", read.list_evaluations(), made.list_evaluations())
    files = [Path(sample.filepath).resolve() for sample in read.iter_samples()]
    there = [file for file in files if file.is_relative_to(out.resolve()) and file.is_file()]
    check_equal("pictures in the export", len(there), len(LABEL_N))
    return f"{read.count()} pictures exported and read back, counts equal"


def app(folder: Path) -> str:
    """The App's page, its program and a picture of the dataset, over HTTP; then the App is closed.

    Raises:
        Differs: what answers is not the App, or it goes on answering once it is closed.
    """
    import fiftyone as fo

    made = fo.load_dataset(NAME)
    port = _free_port()
    session = launch(made, ADDRESS, port)
    try:
        page = _get(port, "/").decode()
        check_equal("title of the page", re.findall(r"<title>(.*?)</title>", page), ["FiftyOne"])
        programs = re.findall(r'<script type="module"[^>]* src="\.?/([^"]+\.js)"', page)
        check_equal("programs the page names", len(programs), 1)
        _get(port, f"/{programs[0]}")
        version = json.loads(_get(port, "/fiftyone"))["version"]
        check_equal("version", version, fo.__version__)
        file = made.first().filepath
        picture = _get(port, f"/media?filepath={urllib.parse.quote(file)}")
        check_equal("bytes of a picture", len(picture), Path(file).stat().st_size)
    finally:
        session.close()
    _see_closed(port)
    return f"FiftyOne {version}: its page, its program and a picture served"


def _rounded(number: float) -> float:
    return round(float(number), 12)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((ADDRESS, 0))
        return found.getsockname()[1]


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{ADDRESS}:{port}{path}", timeout=TIMEOUT) as answer:
        return answer.read()


def _see_closed(port: int) -> None:
    with socket.socket() as probe:
        probe.settimeout(TIMEOUT)
        if probe.connect_ex((ADDRESS, port)) == 0:
            raise MismatchError(f"the App still answers on port {port} after it was closed")


STEPS = (
    Step("database", database),
    Step("dataset", dataset, needs="database"),
    Step("evaluation", evaluation, needs="dataset"),
    Step("export", export, needs="dataset"),
    Step("app", app, needs="dataset"),
)
