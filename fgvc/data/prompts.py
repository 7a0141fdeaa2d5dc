"""Class names of a label map -> prompts for a text tower: cleaned names in templates.

C classes, T templates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fgvc.types import LabelMap

VERSION = 1  # raise it when cleaning changes: text features are cached by it
_NUMBER = re.compile(r"^\d+\.")  # CUB: 001.Black_footed_Albatross
_SYNSET = re.compile(r"^n\d{8}-")  # Stanford Dogs: n02085620-Chihuahua


def clean(name: str) -> str:
    """A readable class name: no number, no synset, spaces instead of underscores.

    >>> clean("001.Black_footed_Albatross"), clean("n02113799-standard_poodle")
    ('Black footed Albatross', 'standard poodle')
    """
    bare = _SYNSET.sub("", _NUMBER.sub("", name))
    return " ".join(bare.replace("_", " ").split())


def prompts(labelmap: LabelMap, templates: Sequence[str]) -> list[list[str]]:
    """C lists of T prompts, in the order of the classes.

    A name that cleaning would make empty is kept.
    """
    names = [clean(name) or name for name in labelmap.names]
    return [[template.replace("{}", name) for template in templates] for name in names]
