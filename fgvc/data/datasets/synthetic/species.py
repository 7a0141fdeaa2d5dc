"""Number of classes, seed -> invented species: a code word over part attributes, and a name.

Genera differ in the GENUS attributes only; within a genus a species differs from its founder in one
attribute. So siblings differ in at most two attributes, and any two species in at most five.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import product

import numpy as np

from fgvc.config.schema import Generator
from fgvc.types import Hierarchy

GENUS_ATTRIBUTES = ("crest", "crown", "bar_colour")  # what tells genera apart
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
    """What a species looks like: one value of ATTRIBUTES for each attribute."""

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
    """A class: its name and its looks."""

    name: str
    code: Code


def distance(a: Code, b: Code) -> int:
    """Number of attributes in which two codes differ."""
    return sum(getattr(a, each.name) != getattr(b, each.name) for each in fields(Code))


def species(classes: int, seed: int) -> tuple[Species, ...]:
    """The first `classes` species of a seed; more classes leave the earlier ones as they are."""
    names = _names(seed)[:classes]
    return tuple(map(Species, names, _codes(classes, seed)))


def hierarchy(generator: Generator) -> Hierarchy:
    """The genus of each class; a genus is named after the looks that its species share."""
    kinds = species(generator.classes, generator.seed)
    looks = [", ".join(getattr(one.code, part) for part in GENUS_ATTRIBUTES) for one in kinds]
    chain = tuple((f"genus {label // GENUS_SIZE + 1}",) for label in range(len(kinds)))
    return Hierarchy(chain, {genus: look for (genus,), look in zip(chain, looks, strict=True)})


def _codes(classes: int, seed: int) -> list[Code]:
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0])))
    first = Code(**{name: _choose(rng, values) for name, values in ATTRIBUTES.items()})
    genera = list(product(*(ATTRIBUTES[name] for name in GENUS_ATTRIBUTES)))
    codes: list[Code] = []
    for row in rng.permutation(len(genera))[: -(-classes // GENUS_SIZE)]:
        codes += _genus(
            rng, replace(first, **dict(zip(GENUS_ATTRIBUTES, genera[row], strict=True)))
        )
    return codes[:classes]


def _genus(rng: np.random.Generator, founder: Code) -> list[Code]:
    """The founder and species that each differ from it in an attribute of their own."""
    names = [name for name in ATTRIBUTES if name not in GENUS_ATTRIBUTES]
    genus = [founder]
    for row in rng.permutation(len(names))[: GENUS_SIZE - 1]:
        name = names[row]
        others = tuple(v for v in ATTRIBUTES[name] if v != getattr(founder, name))
        genus.append(replace(founder, **{name: _choose(rng, others)}))
    return genus


def _names(seed: int) -> list[str]:
    """All names, shuffled by the seed."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1])))
    names = [f"{s} {m} {p}{k}" for s, m, p, k in product(SIZES, PATTERNS, PLACES, KINDS)]
    return [names[row] for row in rng.permutation(len(names))]


def _choose(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[rng.integers(len(values))]
