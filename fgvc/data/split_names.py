"""Common names of splits, in folder names and table cells -> TRAIN, VAL or TEST."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from fgvc.types import TEST, TRAIN, VAL

WORDS = {
    TRAIN: (
        *("train", "training", "trn", "fit", "trainval", "learn"),
        *("trainings", "entrainement", "entrenamiento", "treino", "treinamento", "addestramento"),
        *("训练", "訓練", "学習", "훈련", "학습", "обучение"),
    ),
    VAL: (
        *("val", "valid", "validation", "validate", "validating", "dev", "eval", "evaluation"),
        *("publictest", "validierung", "validierungs", "validacion", "validacao", "validazione"),
        *("验证", "驗證", "検証", "검증"),
    ),
    TEST: (
        *("test", "testing", "tst", "tests", "holdout"),
        *("privatetest", "prueba", "pruebas", "teste", "测试", "測試", "テスト", "테스트"),
    ),
}
# what may follow: train_set, test-images, val2017, Training Data, Trainingsdaten
_TAIL = (
    r"(?:sets?|splits?|data|dataset|images?|imgs?|pictures?|pics?|photos?|folder|dir|mini|\d+"
    r"|daten|datensatz|bilder|集|数据|データ|データセット|用)*"
)


def plain_name(name: str) -> str:
    """A name in lower case, without spaces, underscores and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _without_accents(text: str) -> str:
    """A text in lower case, without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


_PATTERNS = {
    split: re.compile(_without_accents(rf"(?:the|my)?(?:{'|'.join(words)}){_TAIL}"))
    for split, words in WORDS.items()
}


def split_of(name: str) -> int | None:
    """TRAIN, VAL or TEST if a name is a common word for a split, in any case; otherwise None."""
    plain = plain_name(_without_accents(name))
    return next((split for split, pattern in _PATTERNS.items() if pattern.fullmatch(plain)), None)


def may_be_split(name: str) -> bool:
    """Whether a name is a word for a split, or begins or ends with one."""
    words = _words(name)
    return any(split_of(word) is not None for word in (name, *words[:1], *words[-1:]))


def _words(name: str) -> list[str]:
    """The words of a name, without numbers: trainA -> train, a."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W_]+", apart.casefold())
    return [word for word in words if not word.isdigit()]


def splits_among(names: Sequence[str]) -> dict[str, int]:
    """Map the names that mean a split to TRAIN, VAL or TEST.

    These are the names that `split_of` knows, and names that differ only in a first or last word
    for a split: cars_train with cars_test, 01_train with 02_test, trainA with testA.
    """
    splits = {name: split for name in names if (split := split_of(name)) is not None}
    groups: dict[str, dict[str, int]] = {}
    for name in names:
        words = _words(name)
        for word, remaining in ((words[-1:], words[:-1]), (words[:1], words[1:])):
            if word and (split := split_of(word[0])) is not None:
                groups.setdefault(" ".join(remaining), {}).setdefault(name, split)
    for members in groups.values():
        if TRAIN in members.values() and len(set(members.values())) > 1:
            splits = {**members, **splits}
    return splits
