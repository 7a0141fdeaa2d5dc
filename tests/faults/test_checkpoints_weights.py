"""Weights files that are damaged, hostile or of another format: rows 8-11 and 30."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import zipfile

import pytest
import torch

from fgvc.config.compose import composed, typed
from fgvc.config.errors import ConfigError
from fgvc.config.weight_files.layouts import LAYOUTS
from fgvc.config.weight_files.tensor_names import tensor_names
from fgvc.model.backbone import build, weights
from fgvc.model.backbone.hf_config import check_layout
from fgvc.types import UserError, WeightsSource
from tests.faults.fuzz_checkpoints import DOORS, EXPECTED
from tests.faults.mutate import mutated
from tests.faults.steps import call_with_limited_memory

MUTANTS = 12  # per door


@pytest.mark.fault(8, 9, 10, 11)
@pytest.mark.parametrize("door", DOORS)
def test_a_mutated_file_is_read_or_refused_in_one_line(door, tmp_path):
    """A few mutants per door; the corpus is for longer runs."""
    seeds, read, suffix = DOORS[door]
    changed = [mutated(seeds, number) for number in range(MUTANTS)]
    lines = []
    for data in (*seeds, *changed):
        path = tmp_path / f"given{suffix}"
        path.write_bytes(data)
        try:
            read(path)
        except EXPECTED as error:
            lines.append(str(error))
    assert all(str(tmp_path) in line for line in lines)
    assert not any("\n" in line or "weights_only" in line for line in lines)
    assert len(lines) > MUTANTS // 4


# --- rows 10, 11: archives in the place of weights ---


def archived(version: int, *names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=version) as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 3
            archive.addfile(entry, io.BytesIO(b"abc"))
    return buffer.getvalue()


def before_posix(data: bytes) -> bytes:
    """The same header without the magic that later formats added, and with its own checksum."""
    head = bytearray(data[:512])
    head[257:265] = bytes(8)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data[512:]


TARS = {
    "ustar": archived(tarfile.USTAR_FORMAT, "a/w.pth"),
    "gnu": archived(tarfile.GNU_FORMAT, "a/w.pth"),
    "pax": archived(tarfile.PAX_FORMAT, "ü/w.pth"),
    "before posix": before_posix(archived(tarfile.GNU_FORMAT, "a/w.pth")),
    "cut": before_posix(archived(tarfile.GNU_FORMAT, "a/w.pth"))[:700],
}


@pytest.mark.fault(11)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("kind", TARS)
def test_a_tar_in_place_of_weights_is_named(tmp_path, kind, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(TARS[kind])
    with pytest.raises(UserError, match="are a tar archive: unpack it") as caught:
        weights.read(path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.fault(11)
def test_the_way_out_of_a_tar_works(tmp_path):
    """The command of the message, in a shell, on an archive of real weights."""
    torch.save({"a": torch.ones(2)}, tmp_path / "w.pth")
    path = tmp_path / "all of it.pth"
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "w.pth", "w.pth")
    path.write_bytes(before_posix(path.read_bytes()))
    with pytest.raises(UserError) as caught:
        weights.read(path)
    command = str(caught.value).split("`")[1].replace("FOLDER", str(tmp_path / "out"))
    subprocess.run(command, shell=True, check=True)
    assert torch.equal(weights.read(tmp_path / "out" / "w.pth")["a"], torch.ones(2))


@pytest.mark.fault(11)
def test_a_tar_of_an_old_torch_and_a_file_of_zeros_are_named(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(before_posix(archived(tarfile.GNU_FORMAT, "sys_info", "pickle", "storages")))
    with pytest.raises(UserError, match=r"a tar archive of torch before 0\.2"):
        weights.read(path)
    path.write_bytes(bytes(20_000))
    with pytest.raises(UserError, match=r"20000 bytes\) begin with 512 zeros"):
        weights.read(path)


@pytest.mark.fault(10)
@pytest.mark.parametrize(
    "data", [b"\x80\x02}q\x00.", b"abc" * 400, b"\x80\x05K\x01.", b"\x80\x04N."]
)
def test_no_message_advises_to_run_the_code_of_a_file(tmp_path, data):
    path = tmp_path / "w.pth"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        weights.read(path)
    for word in ("weights_only", "torch.load", "safe_globals", "arbitrary"):
        assert word not in str(caught.value)


# --- row 47's kind: a small file that takes much memory or time ---


@pytest.mark.fault(10)
def test_a_memo_index_takes_no_memory(tmp_path):
    """The reader in C allocates a table of 2**31 entries for it: 34 GB."""
    inside = b"\x80\x02}r\xff\xff\xff\x7f."
    path = tmp_path / "w.pt"
    for names in (("x/data.pkl", "x/constants.pkl"), ("x/data.pkl", "x/version")):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, inside)
        with pytest.raises(UserError):
            call_with_limited_memory(weights.read, path)


@pytest.mark.fault(10)
@pytest.mark.parametrize("kind", ["zip", "script", pytest.param("legacy", marks=pytest.mark.slow)])
def test_a_pickle_of_many_small_objects_is_refused_before_it_is_run(tmp_path, kind):
    """Each byte makes an empty list of 64 bytes; a zip compresses them a thousandfold."""
    inside, path = b"\x80\x02" + b"]" * 5_000_000 + b".", tmp_path / "w.pth"
    path.write_bytes(inside)
    if kind != "legacy":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x/data.pkl", inside)
            archive.writestr("x/constants.pkl" if kind == "script" else "x/version", b"3")
            archive.writestr(zipfile.ZipInfo("x/data/0"), bytes(200_000))  # as long as weights
    with pytest.raises(UserError, match="more than 4000000 steps") as caught:
        weights.read(path)
    assert "\n" not in str(caught.value)
    assert tensor_names(path) == frozenset()


@pytest.mark.fault(10)
def test_no_names_are_read_from_a_zip_after_other_bytes(tmp_path):
    """torch does not read it as a zip, so the steps of its pickle were not counted."""
    path = tmp_path / "w.pth"
    torch.save({"x": torch.ones(1)}, path)
    assert tensor_names(path) == {"x"}
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    assert tensor_names(path) == frozenset()


@pytest.mark.fault(10)
def test_a_name_in_a_torchscript_is_shown_in_one_line(tmp_path):
    path = tmp_path / "w.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02\x8c\x08os\nfgvc:\x8c\x05\x1b[2Jx\x93.")
        archive.writestr("x/constants.pkl", b"N.")
    with pytest.raises(UserError, match="that names os") as caught:
        weights.read(path)
    assert str(caught.value).isprintable()


@pytest.mark.fault(10)
def test_mappings_inside_mappings_end(tmp_path):
    """Each of four levels holds the next a thousand times: 10^12 values."""
    nested: dict[str, object] = {f"k{number}": 1 for number in range(1000)}
    for _ in range(4):
        nested = {f"k{number}": nested for number in range(1000)}
    path = tmp_path / "w.pth"
    torch.save({"model": nested, "x": torch.ones(1)}, path)
    with pytest.raises(UserError, match="more than 500000 values"):
        weights.read(path)
    assert tensor_names(path) <= {"x"}


@pytest.mark.fault(9)
def test_a_list_of_shards_names_digests_only(tmp_path):
    store = tmp_path / "aa" / "x"
    store.parent.mkdir()
    for shards in ([], {}, {"a": "../../../../etc/passwd"}, {"a": 3}, {"a": "/dev/zero"}):
        store.write_text(json.dumps({"index": "0" * 64, "shards": shards}, separators=(",", ":")))
        with pytest.raises(UserError, match="is not a list of shards"):
            weights.read(store)


@pytest.mark.fault(30)
def test_other_weights_than_the_pinned_ones_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(DOORS["safetensors"][0][0])
    overrides = ["backbone=vit", "backbone.size=mini", f"backbone.weights='{path}'"]
    with pytest.raises(ConfigError, match="backbone.weights_sha256=" + "0" * 64):
        typed(composed([*overrides, f"backbone.weights_sha256={'0' * 64!r}"]))


@pytest.mark.fault(11)
@pytest.mark.parametrize("content", [3, [], "x", None])
def test_configs_beside_weights_of_other_libraries_hold_mappings(tmp_path, content):
    file = tmp_path / "open_clip_model.safetensors"
    file.write_bytes(DOORS["safetensors"][0][0])
    conf = typed(composed(["backbone=clip", "backbone.size=mini", "backbone.pretrained=false"]))
    source = WeightsSource("file", file.name, file)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": content}))
    with pytest.raises(UserError, match=r"open_clip_config\.json has model_cfg="):
        build(conf.backbone, 32, source, 0)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "clip", "vision_config": content})
    )
    state = {layout.marker: torch.zeros(1) for layout in LAYOUTS if layout.title == "CLIPModel"}
    conf.backbone.norm_eps = 1e-5
    with pytest.raises(UserError, match=r"config\.json has vision_config="):
        check_layout(conf.backbone, state, file, "vision_config", hidden_act="gelu")
