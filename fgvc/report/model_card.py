"""A checkpoint's facts and the record it came with -> README.md of an export: a model card."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fgvc.record.console import interval, number, percent
from fgvc.report import sealed
from fgvc.report.sealed import DamageError
from fgvc.types import UserError

FILE = "README.md"
METRICS = "metrics.json"
Plain = Mapping[str, Any]


def written(
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
        run: the folder that the checkpoint was read from; its numbers are told if it is a run.
        facts: what the exported checkpoint says of itself.
        ids: of the exported checkpoint and of the one it was made from.
        weights: licence and contamination of the backbone's pretrained weights.
        agreement: by file, how it answered against the original checkpoint.
        digests: SHA256 of the files beside the card.

    Raises:
        UserError: the run's numbers are not those it was sealed with.
    """
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "number": number, "interval": interval}
    text = (resources.files("fgvc.report") / "model_card.md.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(
        conf=facts["config"],
        facts=facts,
        splits=_numbers(run),
        ids=ids,
        weights=weights,
        agreement=agreement,
        digests=digests,
    )


def _numbers(run: Path) -> dict[str, Plain]:
    """The evaluation of each split as the run recorded it; none of a checkpoint that lies alone."""
    if not (run / "status.json").is_file():
        return {}
    try:
        told = sealed.parsed(METRICS, sealed.verified(run, METRICS, sealed.index(run)))
    except DamageError as error:
        raise UserError(f"{run}/{error}; restore the run, or export a copy of ckpt.bin") from error
    return {name: told[name] for name in ("val", "test") if name in told}
