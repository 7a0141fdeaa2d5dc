"""Number of classes, seed -> invented species: a name and the attributes of its parts.

Genera differ only in GENUS_ATTRIBUTES. Within a genus, each species differs from the first one in
one attribute. Thus siblings differ in at most two attributes, and any two species in at most five.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from fgvc.config.schema import Generator
from fgvc.types import Hierarchy

GENUS_ATTRIBUTES = ("crest", "crown", "bar_colour")  # that distinguish genera
GENUS_SIZE = 3

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "beak": ("cone", "dagger", "hook", "sickle", "spoon"),
    "crest": ("smooth", "peak", "swept", "fan"),
    "crown": ("black", "red", "yellow", "white", "blue"),
    "eye_ring": ("none", "white", "orange"),
    "wing_bars": ("one", "two", "three"),
    "bar_colour": ("white", "yellow", "red", "blue"),
    "breast": ("plain", "spotted", "banded"),
    "tail": ("square", "forked", "fan", "streamer"),
    "tail_mark": ("plain", "tipped", "barred"),
}

SIZES = ("Lesser", "Greater", "Northern", "Southern", "Eastern", "Western", "Upland", "Lowland")
PATTERNS = ("Barred", "Ringed", "Masked", "Plain", "Painted", "Sooty", "Mottled", "Pale")
PLACES = ("Reed", "Thorn", "Moss", "Dusk", "Brook", "Fern", "Gorse", "Ember", "Slate", "Willow")
KINDS = ("wren", "finch", "lark", "pipit", "chat", "shrike", "thrush", "tit", "bunting", "quill")


@dataclass(frozen=True)
class Code:
    """The appearance of a species: one value of ATTRIBUTES per attribute."""

    beak: str
    crest: str
    crown: str
    eye_ring: str
    wing_bars: str
    bar_colour: str
    breast: str
    tail: str
    tail_mark: str


@dataclass(frozen=True)
class Species:
    """A class: its name and its appearance."""

    name: str
    code: Code


def species(classes: int, seed: int) -> tuple[Species, ...]:
    """The first `classes` species of a seed; more classes do not change the earlier ones."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1])))
    names = [f"{s} {m} {p}{k}" for s, m, p, k in product(SIZES, PATTERNS, PLACES, KINDS)]
    shuffled = [names[row] for row in rng.permutation(len(names))[:classes]]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0])))
    first = Code(**{name: _choose(rng, values) for name, values in ATTRIBUTES.items()})
    genera = list(product(*(ATTRIBUTES[name] for name in GENUS_ATTRIBUTES)))
    own = [name for name in ATTRIBUTES if name not in GENUS_ATTRIBUTES]
    codes: list[Code] = []
    for genus in rng.permutation(len(genera))[: -(-classes // GENUS_SIZE)]:
        founder = replace(first, **dict(zip(GENUS_ATTRIBUTES, genera[genus], strict=True)))
        codes.append(founder)
        for row in rng.permutation(len(own))[: GENUS_SIZE - 1]:  # each in another attribute
            others = tuple(v for v in ATTRIBUTES[own[row]] if v != getattr(founder, own[row]))
            codes.append(replace(founder, **{own[row]: _choose(rng, others)}))
    return tuple(map(Species, shuffled, codes))


def hierarchy(generator: Generator) -> Hierarchy:
    """The genus of each class; a genus is named after the attributes that its species share."""
    chain, names = [], {}
    for label, kind in enumerate(species(generator.classes, generator.seed)):
        genus = f"genus {label // GENUS_SIZE + 1}"
        chain.append((genus,))
        names[genus] = ", ".join(getattr(kind.code, part) for part in GENUS_ATTRIBUTES)
    return Hierarchy(tuple(chain), names)


def _choose(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[rng.integers(len(values))]
