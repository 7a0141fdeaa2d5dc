"""Files of other people: regular and bounded; JSON and YAML within bounds."""

from __future__ import annotations

import json
import os
import socket
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fgvc import untrusted
from fgvc.untrusted import file_format

TraceFunction = Callable[[FrameType, str, Any], Any]


@pytest.mark.fault(52)
def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "metrics.json")
    with pytest.raises(untrusted.NotRegularError, match="named pipe") as error:
        untrusted.read_bytes(tmp_path / "metrics.json", 10)
    assert error.value.filename == str(tmp_path / "metrics.json")


@pytest.mark.fault(52)
def test_an_endless_device_a_socket_and_a_folder_are_refused_by_kind(tmp_path):
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(untrusted.NotRegularError, match="device"):
        untrusted.open_regular(tmp_path / "zero")
    with pytest.raises(untrusted.NotRegularError, match="folder"):
        untrusted.open_regular(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(OSError):
            untrusted.open_regular(tmp_path / "s")


def test_a_refused_file_is_closed(tmp_path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(untrusted.NotRegularError):
            untrusted.open_regular(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_interrupt_at_any_moment_of_opening_stays_an_interrupt(tmp_path):
    """Closing a descriptor twice would turn the interrupt into "Bad file descriptor"."""
    (tmp_path / "a.txt").write_bytes(b"text")

    def interrupt_at(moment: int) -> bool:
        """Raise at this call, instruction or return; returns whether it was reached."""
        count = 0

        def trace(frame: FrameType, event: str, argument: object) -> TraceFunction:
            nonlocal count
            frame.f_trace_opcodes = True
            count += 1
            if count == moment:
                raise KeyboardInterrupt
            return trace

        previous = sys.gettrace()
        try:
            sys.settrace(trace)
            untrusted.open_regular(tmp_path / "a.txt")
            sys.settrace(previous)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(previous)
        return False

    def count_moments() -> int:
        moment = 1
        while interrupt_at(moment):
            moment += 1
        return moment

    with warnings.catch_warnings(), ThreadPoolExecutor(1) as own_thread:
        warnings.simplefilter("ignore", ResourceWarning)  # an interrupted caller closes nothing
        # after an interrupt within a handler, Python takes the handled error of this thread for the
        # context of every later error, thus also in later tests
        assert own_thread.submit(count_moments).result() > 50


def test_a_link_to_a_file_is_read_up_to_the_bound(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert untrusted.read_bytes(tmp_path / "link", 5) == b"12345"
    with pytest.raises(untrusted.TooLargeError, match="5 bytes, more than the 4 bytes"):
        untrusted.read_bytes(tmp_path / "link", 4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested"),
        ("[" * 101 + "]" * 101, "nested"),
        ('{"a":' * 2000 + "1" + "}" * 2000, "nested"),
        ("9223372036854775808", "larger than"),
        ("9" * 5000, "larger than"),
        ("1e999", "not finite"),
        ("NaN", "NaN"),
        ("-Infinity", "Infinity"),
        (b"\xff\xfe{", "UTF-8"),
        ("{", "Expecting"),
    ],
)
def test_json_out_of_bounds_is_refused_in_one_line(text, reason):
    with pytest.raises(ValueError, match=reason) as error:
        untrusted.parse_json(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 120


def test_json_within_the_bounds_is_read_as_by_the_standard_library(tmp_path):
    value = {
        "a": [1, -(2**63) + 1, 2**63 - 1, 1e-3, True, None, "é"],
        "b": json.loads("[" * 99 + "]" * 99),
    }
    assert untrusted.parse_json(json.dumps(value)) == value
    (tmp_path / "x.json").write_text("[1e999]")
    with pytest.raises(ValueError, match=r"x\.json: the number 1e999 is not finite"):
        untrusted.read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: !!python/name:os.system", "the tag"),
        ("[" * 101 + "]" * 101, "nested more than 100"),
        ("a: [", "while parsing"),
        (f"a: {'9' * 500}", "a number of 500 digits"),
        ("a: &x 1\nb: *x", "the anchor x"),
    ],
)
def test_yaml_out_of_bounds_is_refused_in_one_line(text, reason):
    with pytest.raises(ValueError, match=reason) as error:
        untrusted.parse_yaml(text)
    assert "\n" not in str(error.value)


def test_aliases_count_as_the_values_they_stand_for(tmp_path):
    def read(text: str) -> str:
        (tmp_path / "a.yaml").write_text(text)
        return untrusted.read_yaml(tmp_path / "a.yaml")

    assert read("a: &x 1\nb: *x") == "a: &x 1\nb: *x"
    levels = ["a0: &a0 [1, 1]"]
    levels += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 30)]
    with pytest.raises(ValueError, match="more than 100000 values"):
        read("\n".join(levels))
    with pytest.raises(ValueError, match="inside its own anchor"):
        read("a: &a [*a]")
    assert untrusted.parse_yaml("a: [1, 0.5]") == {"a": [1, 0.5]}


# --- formats ---


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"PK\x03\x04\x14", "a ZIP archive"),
        (b"\xfd7zXZ\0\0", "an xz archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\xef\xbb\xbf \n<!DOCTYPE HTML>", "an HTML page"),
        (b"<?xml version", "an XML document"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x80\x02}q\x00.", None),
        (b"\x80\x04\x95\x04\0\0\0\0\0\0\0", None),  # a checkpoint of torch may be a pickle
        (b"\0\0\0\x14ftypisom\0\0\2\0mp41\0\0\0\x08avif", "an MP4 video"),  # after its brands
        (b"", None),
    ],
)
def test_a_format_is_known_by_the_first_bytes(head, kind):
    format_name = file_format.kind_of(head)
    assert (format_name and file_format.with_article(format_name)) == kind


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x08\0\0\0\0\0\0\0" + b'{"a": 1}' + b"rest", ({"a": 1}, 16)),
        (b"\x08\0\0\0\0\0\0\0" + b'{"a": NaN}', None),
        (b"\xff\xff\0\0\0\0\0\0" + b'{"a": 1}', None),
        (b"\x80\x02}q\x00.", None),
    ],
)
def test_a_safetensors_header_is_read_within_its_file(tmp_path, data, expected):
    (tmp_path / "w").write_bytes(data)
    assert file_format.safetensors_header(tmp_path / "w") == expected
