"""(seed, stream, place) -> a seed of its own: nothing random is kept between two steps."""

from __future__ import annotations

import numpy as np

# streams: (step, place) for drop path and dropout of an image; (step, pair) for mixing
LAYERS, MIXING = 0, 1


def derive_seed(seed: int, stream: int, *at: int) -> int:
    """63 bits that differ wherever any argument does."""
    state = np.random.SeedSequence((seed, stream, *at)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def image_keys(seed: int, step: int, place_B: np.ndarray) -> np.ndarray:
    """int64 key_B, from which the random layers of a model draw for each image of a step.

    An image is identified by its place in the global batch. A place belongs to exactly one image of
    a step, for any cut into ranks and micro-batches, even if class-balanced sampling draws an image
    twice.
    """
    keys = [derive_seed(seed, LAYERS, step, place) for place in place_B.tolist()]
    return np.array(keys, dtype=np.int64)
