"""Bytes that could not be decoded and the decoder's error -> the kind of file, and what to do."""

from __future__ import annotations

import codecs
import io
import os
import re

from PIL import Image, TiffImagePlugin

from fgvc.data import bit_depth, image_formats, strip_metadata
from fgvc.data.size_limits import MAX_PIXELS_LIMIT, TooManyPixelsError
from fgvc.untrusted.file_format import kind_of, with_article

AGAIN = "copy or download it again"
# the user replaces LOW, HIGH, IN and OUT
CONVERT = (
    "choose LOW and HIGH for all images and save 8 bits: python -m fgvc.data.rescale IN OUT.png "
    "LOW HIGH"
)
_UNPACK = "unpack it; images are read from folders"
_FRAMES = "save frames of it as images: ffmpeg -i FILE frame_%05d.jpg"
# what to do, by kind; files of other kinds should be converted
_ADVICE = {
    "HEIC": "convert it: heif-convert IN.heic OUT.jpg, or on macOS sips -s format jpeg IN.heic "
    "--out OUT.jpg",
    "PDF": "render its pages as images: pdftoppm -jpeg FILE.pdf page",
    "SVG": "render it as an image: rsvg-convert FILE.svg -o OUT.png",
    "Photoshop": "save it as PNG or JPEG in an image editor",
    "GIMP project": "export it as PNG or JPEG",
    "PostScript": "no interpreter is started for it; convert it to PNG yourself",
    "JPEG XL": "convert it: djxl IN.jxl OUT.png",
    "camera raw file": "develop it to JPEG or TIFF with the camera's software or darktable-cli",
    "microscope file": "export an image of it as TIFF or PNG",
    "Git LFS pointer": "run git lfs pull",
    "HTML page": "download it again, from the address of the image itself",
    "XML document": "download it again; this is a server's response, not the image",
    "JSON document": "download it again; this is a server's response, not the image",
    "NumPy array": "save it as an image: Image.fromarray(array).save('NAME.png')",
    "Parquet table": "name it as dataset.table, or unpack its images",
    "script": "remove it",
    "program": "remove it",
}
_CUT_SHORT = re.compile(r"truncat|unexpected end|end of file|EOF|not enough (image )?data", re.I)


class NoPixelError(ValueError):
    """An image of width 0 or height 0."""


class DecodingCostError(ValueError):
    """An image that takes far longer to decode than its number of pixels suggests."""


def diagnose(data: bytes, path: str, error: Exception) -> str:
    """Explain in one line, without the path, why `decode` failed with this error."""
    if not data:
        return f"an empty file (0 bytes); {AGAIN}"
    kind = kind_of(data)
    container = image_formats.CONTAINER_OF.get(os.path.splitext(path)[1].lower())  # noqa: PTH122
    tags = _tags(data) if kind == "TIFF" else None
    if (kind == "TIFF" and container) or (tags is not None and bit_depth.is_camera_raw(tags)):
        kind = container or "camera raw file"  # Pillow only reads its preview
    if kind is None or kind not in image_formats.READABLE:
        return _unsupported(data, kind)
    spoken = with_article(kind)
    if isinstance(error, TooManyPixelsError):
        return f"{spoken} {error}"
    if isinstance(error, DecodingCostError):
        return f"{spoken} of {error}"
    if isinstance(error, Image.DecompressionBombError):
        size = re.search(r"\d+ pixels", str(error))
        return (
            f"{spoken} of {size[0] if size else 'too many pixels'}, more than the "
            f"{MAX_PIXELS_LIMIT} that dataset.max_pixels can allow; scale it down"
        )
    if isinstance(error, bit_depth.SampleRangeError):
        return f"{spoken}: {error}; {CONVERT}"
    return _damaged(data, kind, error)


def _unsupported(data: bytes, kind: str | None) -> str:
    """Diagnose a file of a kind that fgvc does not read."""
    if kind is None and (text := _text(data)) is not None:
        return f"a text file, not an image ({text!r}); {AGAIN}"
    if kind is None:
        content = f"{len(data)} bytes; read: {', '.join(image_formats.READABLE)}"
        return f"no image in a format that can be read ({content}); {AGAIN}, or convert it to PNG"
    if kind == "XML document" and b"<svg" in data[:4096]:
        kind = "SVG"
    excerpt = f" ({_text(data)!r})" if kind in ("XML document", "JSON document") else ""
    others = {"Git LFS pointer": "the image itself", "HTML page": "an image"}
    reason = f"{with_article(kind)}{excerpt}, not {others.get(kind, 'an image that is read')}"
    return f"{reason}; {advice(kind) or 'convert it to PNG or JPEG'}"


def advice(kind: str) -> str | None:
    """What to do with a file of a kind that fgvc does not read; None: nothing specific."""
    if kind.endswith("archive"):
        return _UNPACK
    return _FRAMES if kind.endswith("video") else _ADVICE.get(kind)


def _damaged(data: bytes, kind: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    damaged = f"damaged image ({len(data)} bytes):"
    if isinstance(error, strip_metadata.ChecksumError):
        return f"{damaged} {with_article(kind)}, and {reason}; {AGAIN}"
    if kind == "PNG" and data[12:16] == b"CgBI":
        return "a PNG in Apple's own variant (CgBI); convert it on macOS: sips -s format png FILE"
    if _is_cut_short(data, kind) or _CUT_SHORT.search(reason):
        return f"{damaged} {with_article(kind)} that is cut short (truncated); {AGAIN}"
    empty = kind == "PNG" and b"\0\0\0\0" in (data[16:20], data[20:24])
    if empty or isinstance(error, NoPixelError):
        return f"{damaged} {with_article(kind)} without a pixel in it; {AGAIN}"
    if isinstance(error, Image.UnidentifiedImageError) and (samples := _samples(data, kind)):
        remedy = "save 8 bits, grey or RGB"
        if kind != "JPEG":
            has_more_bands = re.match(r"([5-9]|\d\d+) x", samples)
            remedy = "keep three of its bands" if has_more_bands else CONVERT
            if samples.startswith("complex"):
                remedy = "save their magnitude as 8 bits"
        return f"{with_article(kind)} whose samples ({samples}) are not read; {remedy}"
    if kind not in Image.OPEN:
        return f"{kind}: this Pillow reads none; install a newer one: pip install -U pillow"
    if "conversion from" in reason:
        return f"{with_article(kind)} whose colours are not read ({reason}); save it as RGB"
    if isinstance(error, Image.UnidentifiedImageError):
        reason = f"{with_article(kind)} whose header cannot be read"
    return f"{damaged} {reason}; {AGAIN}"


def _text(data: bytes) -> str | None:
    """The beginning of a text in one line; None if the data is not text."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data[:400])  # may end in a character
    except UnicodeDecodeError:
        return None
    text = " ".join(text.split())
    return text[:60] if text and text.isprintable() else None


def _tags(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
    except Exception:  # damaged
        return None
    return tags


def _samples(data: bytes, kind: str) -> str | None:
    """Samples of an image in words, if fgvc may not support them; None if unknown."""
    if kind == "PPM" and data.startswith(b"PF"):
        return "3 x float 32-bit"
    if kind == "JPEG" and (bits := strip_metadata.jpeg_bits(data)) not in (None, 8):
        return f"{bits}-bit"
    tags = _tags(data) if kind == "TIFF" else None
    return None if tags is None else bit_depth.describe_samples(tags)


def _is_cut_short(data: bytes, kind: str) -> bool:
    """Whether the file is shorter than its format's structure states."""
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-4096:]
    if kind == "PNG":
        return not strip_metadata.is_png_complete(data)
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "TIFF":
        order = "little" if data[:2] == b"II" else "big"
        return data[2:4] in (b"*\0", b"\0*") and int.from_bytes(data[4:8], order) >= len(data)
    if kind == "AVIF" or data[4:8] == b"jP  ":
        start = 0  # of a box; each box states its length
        while start + 8 <= len(data):
            length = int.from_bytes(data[start : start + 4], "big")
            if length == 1:
                length = int.from_bytes(data[start + 8 : start + 16], "big")
            if length < 8:  # 0: to the end of the file
                break
            start += length
        return start > len(data)
    return kind == "JPEG2000" and not data.rstrip(b"\0").endswith(b"\xff\xd9")
