"""Damaged and hostile weights files, from the config to the model: always one line."""

import json
import struct
import zipfile

import pytest
import timm
import torch

from fgvc.config import finetuned_weights
from fgvc.config.errors import ConfigError
from fgvc.config.weight_digests import check_sidecars, fill_weights
from fgvc.model.backbone import build, weights
from fgvc.types import UserError

ENTRY = b"PK\x01\x02"  # of the directory at the end of a zip archive


def _changed(*changes):
    """A file of torch.save with changed bytes: (marker, offset after the marker, new byte)."""

    def write(path, state):
        torch.save(state, path)
        raw = bytearray(path.read_bytes())
        for mark, offset, byte in changes:
            position = raw.find(mark)
            while position >= 0:
                raw[position + offset] = byte
                position = raw.find(mark, position + len(mark))
        path.write_bytes(raw)

    return write


def _without_middle(path, state):
    torch.save(state, path)
    raw = path.read_bytes()
    path.write_bytes(raw[:5000] + raw[90000:])


def _headed(header):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return lambda path, _: path.write_bytes(struct.pack("<Q", len(raw)) + raw)


def _array(shape, flags=0, method=0):
    """A .npz of one array without bytes."""

    def write(path, _):
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
        with zipfile.ZipFile(path, "w") as archive:
            begin = b"\x93NUMPY\x01\0" + struct.pack("<H", len(head))
            archive.writestr("a.npy", begin + head.encode())
        raw = bytearray(path.read_bytes())
        entry = raw.find(ENTRY)
        raw[entry + 8] |= flags
        raw[entry + 10] = method
        path.write_bytes(raw)

    return write


def _bomb(path, _):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data.pkl", b"\0" * 2**24)


DEEP = b"[" * 200_000
BAD = {
    "checksum.pth": _changed((b"cls_token", 0, 0)),
    "directory.pth": _changed((ENTRY, 0, 0)),
    "password.pth": _changed((ENTRY, 8, 1)),
    "compression.pth": _changed((ENTRY, 10, 93)),
    "middle.pth": _without_middle,
    "bomb.pth": _bomb,
    "null.safetensors": _headed({"__metadata__": None}),
    "list.safetensors": _headed({"__metadata__": [1]}),
    "deep.safetensors": _headed(b'{"a":' + DEEP),
    "facts.safetensors": _headed({"__metadata__": {"fgvc": DEEP.decode()}}),
    "number.safetensors": _headed({"__metadata__": {"fgvc": 3}}),
    "deep.safetensors.index.json": lambda path, _: path.write_bytes(b'{"weight_map":' + DEEP),
    "self.safetensors.index.json": lambda path, _: path.write_text(
        json.dumps({"weight_map": {"a": path.name}})
    ),
    "memory.npz": _array("(1000000000000000,)"),
    "password.npz": _array("(1,)", flags=1),
    "compression.npz": _array("(1,)", method=93),
}


@pytest.fixture(scope="module")
def state(mini):
    row = mini("vit").checkpoints["mini"]
    return timm.create_model(row.model, num_classes=0, **row.architecture).state_dict()


def _read(conf, path):
    fill_weights(conf, str(path.parent))
    finetuned_weights.check_backbone(conf, path, reads_text=False)
    check_sidecars(conf, "shared")
    build(conf, 64, weights.find(conf), seed=0)


@pytest.mark.fault(11)
@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_ends_in_one_line_that_names_it(mini, state, tmp_path, name):
    path = tmp_path / name
    BAD[name](path, state)
    with pytest.raises((UserError, ConfigError)) as error:
        _read(mini("vit", path), path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert name != "bomb.pth" or "unpacks to" in str(error.value)
