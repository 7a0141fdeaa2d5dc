"""First bytes of a text file -> its kind: what often lies where another file was expected.

A failed download leaves a web page or a server's answer, a clone without Git LFS a pointer.
"""

from __future__ import annotations


def text_kind(head: bytes) -> str | None:
    """Kind of a text file by its first 64 bytes, such as "HTML page"; None if unknown."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "HTML page"
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!--")) and b"<svg" in start):
        return "SVG"
    if start.startswith(b"<?xml"):
        return "XML document"
    if start.startswith((b'{"', b'["', b"[{", b"{\n", b"{\r")):
        return "JSON document"
    return "Git LFS pointer" if start.startswith(b"version https://git-lfs") else None
