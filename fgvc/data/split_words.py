"""Names of folders and cells of tables that people use for splits -> TRAIN, VAL or TEST."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fgvc.types import TEST, TRAIN, VAL

WORDS = {
    TRAIN: ("train", "training", "trn", "fit", "trainval", "learn"),
    VAL: ("val", "valid", "validation", "validate", "validating", "dev", "eval", "evaluation"),
    TEST: ("test", "testing", "tst", "tests", "holdout"),
}
# what may follow: train_set, test-images, val2017, Training Data
_TAIL = r"(?:sets?|splits?|data|dataset|images?|imgs?|pictures?|pics?|photos?|folder|dir|\d+)*"
_KNOWN = {
    split: re.compile(rf"(?:the|my)?(?:{'|'.join(words)}){_TAIL}") for split, words in WORDS.items()
}


def split_of(name: str) -> int | None:
    """TRAIN, VAL or TEST if a name is a usual word for a split, in any case; otherwise None."""
    plain = re.sub(r"[\W_]+", "", name.casefold())
    return next((split for split, known in _KNOWN.items() if known.fullmatch(plain)), None)


def splits_among(names: Sequence[str]) -> dict[str, int]:
    """The names that mean a split -> TRAIN, VAL or TEST.

    Names count that split_of knows, and names that agree but for a word for a split, before or
    after what they share: cars_train with cars_test, 01_train with 02_test.
    """
    known = {name: split for name in names if (split := split_of(name)) is not None}
    shared: dict[str, dict[str, int]] = {}
    for name in names:
        words = re.findall(r"[^\W_]+", name.casefold())
        words = [word for word in words if not word.isdigit()]
        for word, rest in ((words[-1:], words[:-1]), (words[:1], words[1:])):
            if word and (split := split_of(word[0])) is not None:
                shared.setdefault(" ".join(rest), {}).setdefault(name, split)
    for members in shared.values():
        if TRAIN in members.values() and len(set(members.values())) > 1:
            known = {**members, **known}
    return known
