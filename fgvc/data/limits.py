"""The largest and the thinnest picture that is read."""

from __future__ import annotations

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs
THINNEST = 500  # times the short side that the long side may have


def strip_line(width: int, height: int) -> str | None:
    """What is wrong with a picture that is so thin that its square shows next to nothing of it."""
    if max(width, height) <= THINNEST * min(width, height):
        return None
    return (
        f"a picture of {width} x {height} pixels is too thin: the long side is more than "
        f"{THINNEST} times the short side; crop it or remove it"
    )
