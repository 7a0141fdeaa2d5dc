"""(seed, stream, place) -> a seed of its own: nothing random is kept between two steps."""

from __future__ import annotations

import numpy as np

LAYERS, MIXING = 0, 1  # streams: (step, rank) for drop path and dropout; (step, pair) for mixing


def derived(seed: int, stream: int, *at: int) -> int:
    """63 bits that differ wherever any argument does."""
    state = np.random.SeedSequence((seed, stream, *at)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
