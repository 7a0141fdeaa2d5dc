"""Limits on the number of pixels and the aspect ratio of an image."""

from __future__ import annotations

MAX_PIXELS = 64_000_000  # default of dataset.max_pixels: decoding takes at most about 1 GB
MAX_PIXELS_LIMIT = 178_956_970  # largest dataset.max_pixels: Pillow's decompression bomb limit
MAX_ASPECT_RATIO = 500  # long side / short side


def thin_image_message(width: int, height: int) -> str | None:
    """The message on an image too thin for a square crop to show anything; None for others."""
    if max(width, height) <= MAX_ASPECT_RATIO * min(width, height):
        return None
    return (
        f"an image of {width} x {height} pixels is too thin: the long side is more than "
        f"{MAX_ASPECT_RATIO} times the short side; crop it or remove it"
    )


class TooManyPixelsError(ValueError):
    """An image or one of its tiles has more pixels than the limit; the message states the number.

    what: inserted before the size, such as "a tile of ".
    """

    def __init__(self, width: int, height: int, max_pixels: int, what: str = "") -> None:
        pixels = width * height
        more = f", or set dataset.max_pixels={pixels} (or more)"
        way_out = f"scale it down{more if pixels <= MAX_PIXELS_LIMIT else ''}"
        super().__init__(
            f"of {what}{width} x {height} = {pixels} pixels, more than the {max_pixels} that "
            f"dataset.max_pixels allows; {way_out}"
        )
