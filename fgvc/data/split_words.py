"""Names of folders and cells of tables that people use for splits -> TRAIN, VAL or TEST."""

from __future__ import annotations

import re

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
