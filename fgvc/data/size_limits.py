"""The largest and the thinnest image that is read."""

from __future__ import annotations

MAX_PIXELS = 64_000_000  # dataset.max_pixels by default: decoding takes about 1 GB at most
MAX_PIXELS_LIMIT = 178_956_970  # the largest dataset.max_pixels: Pillow's limit against bombs
MAX_ASPECT_RATIO = 500  # times the short side that the long side may have


def thin_image_message(width: int, height: int) -> str | None:
    """What is wrong with an image that is so thin that its square shows next to nothing of it."""
    if max(width, height) <= MAX_ASPECT_RATIO * min(width, height):
        return None
    return (
        f"an image of {width} x {height} pixels is too thin: the long side is more than "
        f"{MAX_ASPECT_RATIO} times the short side; crop it or remove it"
    )


class TooManyPixelsError(ValueError):
    """An image, or a tile of it, has more pixels than the limit; the text states how many."""

    def __init__(self, width: int, height: int, max_pixels: int, what: str = "") -> None:
        pixels = width * height
        way_out = "scale it down"
        if pixels <= MAX_PIXELS_LIMIT:
            way_out = f"scale it down, or set dataset.max_pixels={pixels} (or more)"
        super().__init__(
            f"of {what}{width} x {height} = {pixels} pixels, more than the {max_pixels} that "
            f"dataset.max_pixels allows; {way_out}"
        )
