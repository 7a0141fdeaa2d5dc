"""reader=folder: every file is an image, is counted by kind, or raises an error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from fgvc.data.datasets import folder
from fgvc.types import UserError


def read(root):
    return folder.read(root, 0.25, 0)


def skipped_note(index):
    (note,) = [note for note in index.notes if note.startswith("skipped: ")]
    return note


@pytest.fixture
def birds(classes):
    return classes({"gull": 3, "wren": 3})


@pytest.mark.parametrize(
    "name", ["a.jfif", "a.JPE", "a", "a.image", "a.jpg_large", "a.HEIC", "a.php", "a.dat", "a.MPO"]
)
def test_an_image_counts_with_any_suffix(birds, jpeg, name):
    (birds / "gull" / name).write_bytes(jpeg(7))
    index = read(birds)
    assert f"gull/{name}" in index.path
    assert index.notes == ()


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF", "PPM", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats_without_a_suffix_count(birds, kind):
    Image.new("RGB", (16, 16)).save(birds / "gull" / "IMG_0001", kind)
    assert "gull/IMG_0001" in read(birds).path


def test_what_is_skipped_is_counted_by_kind(birds):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    for number in range(12):
        (birds / "gull" / f"{number}.heic").write_bytes(heic)
    for name in ("a.txt", "b.TXT", "c.txt"):
        (birds / "wren" / name).write_text("P1 is a note about gulls")
    (birds / "gull" / ".hidden.jpg").touch()
    (birds / "gull" / "README").write_text("gulls")
    (birds / "gull" / "clip.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.jpg"):
        (birds / "gull" / name).write_bytes(b"\0\5\x16\7")
    index = read(birds)
    assert len(index) == 6
    note = skipped_note(index)
    assert "12 .heic (HEIC, not read; convert them to JPEG)" in note
    assert "3 .txt" in note
    assert "1 hidden file" in note
    assert "1 without suffix (gull/README)" in note
    assert "1 .mov (QuickTime video)" in note
    assert "DS_Store" not in note


@pytest.mark.parametrize("suffix", [".NEF", ".cr2", ".dng", ".arw"])
def test_raw_images_begin_like_tiff_but_are_not_tiff(birds, suffix):
    Image.new("RGB", (8, 8)).save(birds / "gull" / "x.tif")
    (birds / "gull" / "x.tif").rename(birds / "gull" / f"x{suffix}")
    index = read(birds)
    assert len(index) == 6
    assert f"1 {suffix.lower()} (camera raw file, not read; convert it to JPEG)" in skipped_note(
        index
    )


@pytest.mark.parametrize(
    "name", ["0.jpg~", "0.jpg.bak", "0.jpg_original", "0.jpg.part", "0.jpg.tmp"]
)
def test_backups_and_unfinished_downloads_are_no_images(birds, jpeg, name):
    (birds / "gull" / name).write_bytes(jpeg(0))
    index = read(birds)
    assert len(index) == 6
    assert "1 backup or unfinished file" in skipped_note(index)


@pytest.mark.parametrize(
    "name",
    ["__MACOSX", "lost+found", ".git", "@eaDir", "System Volume Information", "$RECYCLE.BIN"],
)
@pytest.mark.parametrize("place", ["", "train", "train/gull"])
def test_folders_that_are_no_classes(classes, jpeg, name, place):
    root = classes({f"{split}/{c}": 2 for split in ("train", "test") for c in ("gull", "wren")})
    (root / place / name).mkdir()
    (root / place / name / "0.jpg").write_bytes(jpeg(1))
    index = read(root)
    assert len(index) == 8
    assert f"{place}/{name}".lstrip("/") in skipped_note(index)


def test_linked_folders_are_followed(birds, tmp_path, jpeg):
    far = tmp_path / "far" / "2020"
    far.mkdir(parents=True)
    for number in (8, 9):
        (far / f"{number}.jpg").write_bytes(jpeg(number))
    (birds / "gull" / "more").symlink_to(far.parent)
    (birds / "owl").symlink_to(far.parent)
    (birds / "wren" / "linked.jpg").symlink_to(far / "9.jpg")
    index = read(birds)
    assert {birds / path for path in index.path} == {
        type(birds)(path) for path, _ in ImageFolder(str(birds)).samples
    }
    assert {"gull/more/2020/9.jpg", "owl/2020/9.jpg", "wren/linked.jpg"} <= set(index.path)


@pytest.mark.fault(52)
@pytest.mark.parametrize("target", ["..", ".", "../gull"])
def test_links_that_lead_back_end(birds, target):
    (birds / "gull" / "again").symlink_to(target)
    (birds / "gull" / "wrens").symlink_to("../wren")
    (birds / "wren" / "gulls").symlink_to("../gull")
    index = read(birds)
    assert "gull/wrens/0.jpg" in index.path
    assert "links back" in skipped_note(index)


def test_broken_links_to_images_are_left_to_on_bad_image(birds):
    (birds / "gull" / "lost.jpg").symlink_to("nowhere.jpg")
    (birds / "gull" / "self.png").symlink_to("self.png")
    (birds / "gull" / "lost").symlink_to("nowhere")
    index = read(birds)
    assert {"gull/lost.jpg", "gull/self.png"} <= set(index.path)
    assert "1 broken link" in skipped_note(index)


@pytest.mark.fault(52)
def test_fifos_and_devices_are_never_opened(birds):
    os.mkfifo(birds / "gull" / "pipe")
    os.mkfifo(birds / "gull" / "pipe.jpg")
    (birds / "gull" / "zero.jpg").symlink_to("/dev/zero")
    index = read(birds)
    assert len(index) == 6
    assert "3 FIFOs, sockets or devices" in skipped_note(index)


AS_NOBODY = """
import os, sys
from pathlib import Path
from fgvc.data.datasets import folder
os.seteuid(65534)
try:
    folder.read(Path(sys.argv[1]), 0.25, 0)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.fault(57)
@pytest.mark.parametrize("locked", ["gull/deep", "gull", "", "gull/photo"])
def test_what_may_not_be_read_is_an_error(birds, locked, tmp_path):
    (birds / "gull" / "deep").mkdir()
    (birds / "gull" / "photo").write_bytes(b"?")
    for above in (birds, *birds.parents):
        if above.stat().st_uid == os.geteuid() and not above.stat().st_mode & 0o005:
            above.chmod(0o755)
    (birds / locked).chmod(0)
    if os.geteuid() == 0:
        command = [sys.executable, "-c", AS_NOBODY, str(birds)]
        message = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        with pytest.raises(UserError) as caught:
            read(birds)
        message = f"UserError {caught.value}"
    (birds / locked).chmod(0o755)
    assert message.startswith(f"UserError {birds / locked}: ")
    assert "Permission denied" in message


def test_an_empty_class_folder_names_what_it_holds(birds):
    (birds / "owl").mkdir()
    with pytest.raises(UserError, match="owl: a class folder without images; fill or remove it"):
        read(birds)
    with pytest.raises(FileNotFoundError, match="owl"):
        ImageFolder(str(birds))
    for number in range(12):
        (birds / "owl" / f"{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (birds / "owl" / ".DS_Store").touch()
    with pytest.raises(
        UserError, match=r"owl: .*12 \.heic \(HEIC, not read; convert them to JPEG\)"
    ):
        read(birds)


def test_a_dataset_of_unread_formats_names_them(tmp_path):
    for name in ("gull", "wren"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(UserError, match=r"2 \.heic \(HEIC, not read; convert them to JPEG\)"):
        read(tmp_path)


def test_names_with_control_characters_are_inert_in_notes(birds):
    (birds / "gull" / "x.\x1b[31m").touch()
    (birds / "gull" / "x.\udcff").touch()
    (birds / "gull" / ".\udcff").mkdir()
    note = skipped_note(read(birds))
    assert "\x1b" not in note
    note.encode()
    assert "2 other files" in note
