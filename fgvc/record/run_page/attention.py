"""The overlays and part numbers of a run folder -> the section of its page on part attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fgvc.config.schema import Config
from fgvc.record.run_dir import OVERLAY_FACTS, OVERLAYS_FOLDER, read_json
from fgvc.record.run_page.gallery import Album, PageImage, Row

OVERLAYS = 8  # on a page
CONTROLS = {"random": "random patches", "centre": "central patches"}  # both without attention
MEASURES = (
    ("in_box", "in the object's box, %", "percent"),
    ("part_coverage", "parts with a patch on them, %", "percent"),
    ("part_distance", "to the nearest part, box diagonals", "decimals"),
)


def attention(
    folder: Path,
    conf: Config,
    numbers: Mapping[str, Any],
    images: Sequence[Row],
    surest: Sequence[tuple[Row, PageImage]],
    album: Album,
) -> dict[str, Any]:
    """What the section shows; without overlays and part numbers there is no section.

    Args:
        images: the test images. surest: the errors that the page lists.

    Returns:
        maps: for each overlay its number, image, link to its file, prediction (None if the folder
        does not state the path), and its number among the listed errors (None if not listed).
        tables: for each measure its title, format and number of images, and a row per selection:
        name, whether it is the selection of this run, value. tokens: patches per image. heat:
        whether the overlays show the attention.
    """
    parts = numbers.get("parts", {})
    return {
        "maps": _maps(folder / OVERLAYS_FOLDER, images, surest, album),
        "tables": _tables(conf.part_attention.name, parts) if parts else None,
        "tokens": parts.get("tokens"),
        "heat": conf.part_attention.name not in CONTROLS,
    }


def _maps(
    folder: Path, images: Sequence[Row], surest: Sequence[tuple[Row, PageImage]], album: Album
) -> list[dict[str, Any]]:
    facts_of = read_json(folder, OVERLAY_FACTS) if (folder / OVERLAY_FACTS).is_file() else {}
    row_of = {image["path"]: image for image in images}
    error_of = {image["path"]: number for number, (image, _) in enumerate(surest)}
    maps = []
    for file in sorted(folder.glob("*.png"))[:OVERLAYS]:
        facts = facts_of.get(file.name, {"path": None, "title_px": 0})
        path = facts["path"]
        row = row_of.get(path)
        # the caption is the title, in the colours of the page
        shown = album.overlay(file, facts["title_px"] if row else 0)
        if shown is not None:
            maps.append(
                {
                    "number": len(maps),
                    "shown": shown,
                    "link": quote(f"{folder.name}/{file.name}"),
                    "row": row,
                    "error": error_of.get(path),
                }
            )
    return maps


def _tables(own: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The measures that are defined for some image, for the run's selection and the controls."""
    selections = [own, *(name for name in CONTROLS if name != own and name in parts)]
    measures = [
        (key, title, kind) for key, title, kind in MEASURES if parts[own][key]["value"] is not None
    ]
    return {
        "titles": [title for _, title, _ in measures],
        "images": max((parts[own][key]["images"] for key, *_ in measures), default=0),
        "rows": [
            (
                CONTROLS.get(name, name),
                name == own,
                [(parts[name][key]["value"], kind) for key, _, kind in measures],
            )
            for name in selections
        ],
    }
