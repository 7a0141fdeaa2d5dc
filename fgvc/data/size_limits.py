"""The largest and the thinnest picture that is read."""

from __future__ import annotations

MAX_PIXELS = 64_000_000  # dataset.max_pixels by default: decoding takes about 1 GB at most
MOST_PIXELS = 178_956_970  # the largest dataset.max_pixels: Pillow's limit against bombs
THINNEST = 500  # times the short side that the long side may have


def strip_line(width: int, height: int) -> str | None:
    """What is wrong with a picture that is so thin that its square shows next to nothing of it."""
    if max(width, height) <= THINNEST * min(width, height):
        return None
    return (
        f"a picture of {width} x {height} pixels is too thin: the long side is more than "
        f"{THINNEST} times the short side; crop it or remove it"
    )


class TooManyPixelsError(ValueError):
    """A picture, or a tile of it, has more pixels than the limit; the text states how many."""

    def __init__(self, width: int, height: int, max_pixels: int, what: str = "") -> None:
        pixels = width * height
        way_out = "scale it down"
        if pixels <= MOST_PIXELS:
            way_out = f"scale it down, or set dataset.max_pixels={pixels} (or more)"
        super().__init__(
            f"of {what}{width} x {height} = {pixels} pixels, more than the {max_pixels} that "
            f"dataset.max_pixels allows; {way_out}"
        )
