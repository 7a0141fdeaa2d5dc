"""A checkpoint and the record of its run -> README.md of an export: a model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.record import not_ranked, verify
from fgvc.record.comparability import Comparability
from fgvc.record.console import TEST_MARKS
from fgvc.record.fitted_images import earlier_runs
from fgvc.record.not_ranked import Reason
from fgvc.record.verify import DamageError
from fgvc.report import markdown_template
from fgvc.types import UserError
from fgvc.untrusted.escape import one_line

FILE = "README.md"
METRICS, STAMP = "metrics.json", "env_stamp.json"
Plain = Mapping[str, Any]


@dataclass(frozen=True)
class RunNumbers:
    """The numbers of a run and their limits.

    splits: numbers of val and test. task: of the run, "eval" if it evaluated a finished checkpoint.
    partial, subset: of the data that the numbers were computed on. overlap: number of test images
    that fitted or chose the head; None: not recorded. reasons: why the run is not ranked.
    test_mark: what serves as the test if the dataset has no test split.
    """

    splits: Mapping[str, Plain]
    task: str
    partial: bool
    subset: str | None
    test_mark: str | None
    comparability: Comparability
    overlap: int | None
    reasons: tuple[Reason, ...]
    notes: tuple[str, ...]

    @property
    def evaluation(self) -> bool:
        """Whether another run made the checkpoint."""
        return self.task == "eval"

    @property
    def has_images_of_fit(self) -> bool:
        """Whether the head was fitted on the dataset that the numbers were computed on."""
        parts = self.comparability
        return not self.evaluation or parts.fitted_manifest == parts.manifest


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

    record = _read_record(run, ids["exported_from"])
    try:
        values = {
            "conf": facts["config"],
            "facts": facts,
            "record": record,
            "ids": ids,
            "weights": weights,
            "earlier": list(earlier_runs(facts["backbone"]["weights"])),
            "agreement": agreement,
            "digests": digests,
        }
        return markdown_template.render("model_card.md.j2", values)
    except (jinja2.TemplateError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run}: metrics.json, env_stamp.json or ckpt.bin cannot be read by this version "
            f"({one_line(error, 120)}). Repeat the run"
        ) from error


def _read_record(run: Path, checkpoint_id: str) -> RunNumbers | None:
    """The record of the run that wrote the checkpoint; None if `run` is not its folder."""
    if not (run / "status.json").is_file():
        return None
    try:
        artifacts = verify.read_index(run)
        if artifacts.get(verify.CKPT, {}).get("sha256") != checkpoint_id:
            return None
        numbers, stamp = (
            verify.parse_object(file, verify.read_verified(run, file, artifacts))
            for file in (METRICS, STAMP)
        )
        return _record(numbers, stamp)
    except DamageError as error:
        raise UserError(f"{run}/{error}; restore the run, or export a copy of ckpt.bin") from error


def _record(numbers: Plain, stamp: Plain) -> RunNumbers:
    """The values of metrics.json and env_stamp.json that the card prints.

    Raises:
        DamageError: another version of fgvc wrote the files.
    """
    try:
        splits = {name: numbers[name] for name in ("val", "test") if name in numbers}
        parts = Comparability(**numbers["comparability"])
        intervals = {name: split.get("intervals_note") for name, split in splits.items()}
        return RunNumbers(
            splits=splits,
            task=stamp["task"],
            partial=stamp["partial"],
            subset=None if stamp["subset"] is None else stamp["subset"]["name"],
            test_mark=TEST_MARKS.get(stamp["test_source"]),
            comparability=parts,
            overlap=(numbers.get("overlap") or {}).get("images"),
            reasons=tuple(not_ranked.reasons(numbers, parts)),
            notes=(
                *numbers.get("notes", []),
                *(f"{name}: {note}" for name, note in intervals.items() if note is not None),
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DamageError(f"{METRICS}, {STAMP}: of another version of fgvc ({problem})") from error
