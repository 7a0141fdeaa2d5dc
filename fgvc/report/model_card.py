"""A checkpoint and the record of its run -> README.md of an export: a model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgvc.record import verify
from fgvc.record.comparability import Comparability, reasons
from fgvc.record.console import TEST_MARKS
from fgvc.record.fitted_images import earlier_runs
from fgvc.record.verify import DamageError
from fgvc.report import markdown_template
from fgvc.types import UserError
from fgvc.untrusted.escape import one_line

FILE = "README.md"
Plain = Mapping[str, Any]


def render_model_card(
    run: Path,
    facts: Plain,
    *,
    ids: Mapping[str, str],
    weights: Mapping[str, str],
    agreement: Mapping[str, Plain],
    digests: Mapping[str, str],
) -> str:
    """Render the card as Markdown.

    Args:
        run: the folder of the original checkpoint; if it is a run, the card has its numbers.
        facts: metadata of the exported checkpoint.
        ids: of the exported and of the original checkpoint.
        weights: licence and contamination of the backbone's pretrained weights.
        agreement: by file, its agreement with the original checkpoint.
        digests: SHA256 of the files beside the card.

    Raises:
        UserError: the run's numbers or its stamp have changed, or another version of fgvc wrote
            them.
    """
    import jinja2

    try:
        values = {
            "conf": facts["config"],
            "facts": facts,
            "record": _read_record(run, ids["exported_from"]),
            "ids": ids,
            "weights": weights,
            "earlier": list(earlier_runs(facts["backbone"]["weights"])),
            "agreement": agreement,
            "digests": digests,
        }
        return markdown_template.render("model_card.md.j2", values)
    except DamageError as error:
        raise UserError(f"{run}/{error}; restore the run, or export a copy of ckpt.bin") from error
    except (jinja2.TemplateError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run}: metrics.json, env_stamp.json or ckpt.bin cannot be read by this version "
            f"({one_line(error, 120)}). Repeat the run"
        ) from error


def _read_record(run: Path, checkpoint_id: str) -> dict[str, Any] | None:
    """The numbers of the run that wrote the checkpoint; None if `run` is not its folder.

    splits: numbers of val and test. evaluation: whether another run made the checkpoint.
    has_images_of_fit: whether the head was fitted on the dataset that the numbers were computed on.
    overlap: number of test images that fitted or chose the head; None: not recorded. reasons: why
    the run is not ranked. test_mark: what serves as the test if the dataset has no test split.
    """
    if not (run / "status.json").is_file():
        return None
    artifacts = verify.read_index(run)
    if artifacts.get(verify.CKPT, {}).get("sha256") != checkpoint_id:
        return None
    numbers, stamp = (
        verify.parse_object(file, verify.read_verified(run, file, artifacts))
        for file in ("metrics.json", verify.STAMP)
    )
    parts = Comparability(**numbers["comparability"])
    evaluation = stamp["task"] == "eval"
    splits = {name: numbers[name] for name in ("val", "test") if name in numbers}
    notes = {name: split.get("intervals_note") for name, split in splits.items()}
    return {
        "splits": splits,
        "task": stamp["task"],
        "evaluation": evaluation,
        "partial": stamp["partial"],
        "subset": stamp["subset"] and stamp["subset"]["name"],
        "test_mark": TEST_MARKS.get(stamp["test_source"]),
        "has_images_of_fit": not evaluation or parts.fitted_manifest == parts.manifest,
        "overlap": (numbers.get("overlap") or {}).get("images"),
        "reasons": list(reasons(numbers, parts)),
        "notes": [
            *numbers.get("notes", []),
            *(f"{name}: {note}" for name, note in notes.items() if note is not None),
        ],
    }
