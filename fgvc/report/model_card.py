"""A checkpoint's facts and the record it came with -> README.md of an export: a model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc.record import verify
from fgvc.record.comparability import Comparability
from fgvc.record.console import TEST_MARKS, interval, number, percent
from fgvc.record.page.run import earlier_runs
from fgvc.record.verify import DamageError
from fgvc.types import UserError
from fgvc.untrusted.escape import code, markdown, one_line

if TYPE_CHECKING:
    import jinja2

FILE = "README.md"
METRICS, STAMP = "metrics.json", "env_stamp.json"
Plain = Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """The numbers of a run and what a reader of them must know.

    splits: numbers of val and test. task: of the run, "eval" if it evaluated a finished checkpoint.
    partial, subset: of the data that the numbers were computed on. overlap: number of test images
    that fitted or chose the head; None: not recorded. test_mark: what serves as the test, if it is
    no test split of the dataset.
    """

    splits: Mapping[str, Plain]
    task: str
    partial: bool
    subset: str | None
    test_mark: str | None
    comparability: Comparability
    overlap: int | None
    notes: tuple[str, ...]

    @property
    def evaluation(self) -> bool:
        """Whether another run made the checkpoint."""
        return self.task == "eval"

    @property
    def has_images_of_fit(self) -> bool:
        """Whether the checkpoint was made with the images that the numbers were computed on."""
        parts = self.comparability
        return not self.evaluation or parts.fitted_manifest == parts.manifest

    @property
    def data_of_fit(self) -> str:
        """Digest of the images of the fit or, if these are the same, of its split."""
        parts = self.comparability
        same = parts.fitted_manifest == parts.manifest
        return str(parts.fitted_split if same else parts.fitted_manifest)


def render_model_card(
    run: Path,
    facts: Plain,
    *,
    ids: Mapping[str, str],
    weights: Mapping[str, str],
    agreement: Mapping[str, Plain],
    digests: Mapping[str, str],
) -> str:
    """The card, in Markdown.

    Args:
        run: the folder that the checkpoint was read from; if it is a run, the card has its numbers.
        facts: what the exported checkpoint says of itself.
        ids: of the exported checkpoint and of the one it was made from.
        weights: licence and contamination of the backbone's pretrained weights.
        agreement: by file, how it answered against the original checkpoint.
        digests: SHA256 of the files beside the card.

    Raises:
        UserError: the run's numbers or its stamp changed since the run, or another version of
            fgvc wrote them.
    """
    import jinja2

    environment = _environment()
    text = (resources.files("fgvc.report") / "model_card.md.j2").read_text(encoding="utf-8")
    record = _numbers(run, ids["exported_from"])
    try:
        return environment.from_string(text).render(
            conf=facts["config"],
            facts=facts,
            record=record,
            ids=ids,
            weights=weights,
            earlier=list(earlier_runs(facts["backbone"]["weights"])),
            agreement=agreement,
            digests=digests,
        )
    except (jinja2.TemplateError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run}: metrics.json, env_stamp.json or ckpt.bin is not one that this version reads "
            f"({one_line(error, 120)}); repeat the run"
        ) from error


def _environment() -> jinja2.Environment:
    """Templates whose values are escaped unless a filter made them."""
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_inert,
    )
    filters = (percent, number, interval, _code, _literal, _exponent)
    environment.filters |= {
        function.__name__.strip("_"): _inert_from(function) for function in filters
    }
    return environment


class _Inert(str):
    """Markdown that is not escaped again."""


def _inert(value: object) -> object:
    """A value of the card; plain text is escaped."""
    return markdown(value) if isinstance(value, str) and not isinstance(value, _Inert) else value


def _inert_from(function: Callable[..., str]) -> Callable[..., _Inert]:
    return lambda *values: _Inert(function(*values))


def _code(value: object) -> str:
    return code(value, in_table=True)


def _literal(value: object) -> str:
    """A value as a Python literal, for the code of the card."""
    return ascii(value)


def _exponent(value: float) -> str:
    return f"{value:.1e}"


def _numbers(run: Path, checkpoint_id: str) -> Record | None:
    """The record of the run in whose folder the checkpoint lies; None for a file without a run.

    A file of another checkpoint in the folder of a run has no record either.
    """
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


def _record(numbers: Plain, stamp: Plain) -> Record:
    """What the card prints of metrics.json and env_stamp.json.

    Raises:
        DamageError: another version of fgvc wrote them.
    """
    try:
        splits = {name: numbers[name] for name in ("val", "test") if name in numbers}
        intervals = {name: split.get("intervals_note") for name, split in splits.items()}
        return Record(
            splits=splits,
            task=stamp["task"],
            partial=stamp["partial"],
            subset=None if stamp["subset"] is None else stamp["subset"]["name"],
            test_mark=TEST_MARKS.get(stamp["test_source"]),
            comparability=Comparability(**numbers["comparability"]),
            overlap=(numbers.get("overlap") or {}).get("images"),
            notes=(
                *numbers.get("notes", []),
                *(f"{name}: {note}" for name, note in intervals.items() if note is not None),
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DamageError(f"{METRICS}, {STAMP}: of another version of fgvc ({what})") from error
