"""image= takes files, folders, patterns, lists of these or standard input, and nothing more."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from fgvc.config.compose import composed, parse_config
from fgvc.config.errors import ConfigError
from fgvc.config.image_argument import find_sources, reads_stdin
from fgvc.config.overrides import jobs_of
from fgvc.data.decode import decode
from fgvc.pipeline.input_images import list_images
from fgvc.types import UserError


@pytest.fixture
def pics(tmp_path: Path, jpeg, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images at two depths in the current folder, among other files."""
    monkeypatch.chdir(tmp_path)
    for place, name in enumerate(("a.jpg", "b.JPG", "c.png", "deep/d.jpg", "deep/down/e.jpg")):
        file = tmp_path / "pics" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(place))
    (tmp_path / "pics" / "notes.txt").write_text("no picture")
    (tmp_path / "pics" / ".DS_Store").write_bytes(b"rubbish")
    return Path("pics")


def paths(image: object) -> tuple[str, tuple[str, ...]]:
    manifest, _ = list_images(image)
    assert all((manifest.root / path).exists() for path in manifest.path)
    return str(manifest.root), manifest.path


ALL = ("a.jpg", "b.JPG", "c.png", "deep/d.jpg", "deep/down/e.jpg")


@pytest.mark.parametrize(
    ("image", "root", "expected"),
    [
        ("pics", "pics", ALL),
        ("pics/a.jpg", "pics", ALL[:1]),
        ("pics/*.jpg", "pics", ALL[:1]),
        ("pics/*", "pics", ALL),
        ("pics/?.*", "pics", ALL[:3]),
        ("pics/**", "pics", ALL),
        ("pics/**/*.jpg", "pics", (ALL[0], *ALL[3:])),
        ("pics/[ab].*", "pics", ALL[:2]),
        ("*/*.png", ".", ("pics/c.png",)),
        (["pics/c.png", "pics/a.jpg"], "pics", ("c.png", "a.jpg")),
        (["pics/deep/down", "pics/deep/d.jpg"], "pics/deep", ("down/e.jpg", "d.jpg")),
        (["pics/a.jpg", "pics/./a.jpg", "pics/*.jpg"], "pics", ALL[:1]),
        (["pics"], "pics", ALL),
    ],
    ids=str,
)
def test_names_mean_what_a_shell_means(pics, image, root, expected):
    found_root, path = paths(image)
    assert (Path(found_root).resolve(), path) == (Path(root).resolve(), expected)


def test_home_is_the_users(pics, monkeypatch):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert paths("~/pics/*.png")[1] == ("c.png",)
    assert paths(["~/pics/a.jpg", "~/pics/c.png"])[1] == ("a.jpg", "c.png")


def test_a_name_that_exists_is_no_pattern(pics, jpeg):
    for name in ("[ab].jpg", "what*.jpg", "a,b.jpg", "2026"):
        (pics / name).write_bytes(jpeg(9))
        assert paths(f"pics/{name}")[1] == (name,)
    (Path.cwd() / "2026").write_bytes(jpeg(9))
    assert paths(2026)[1] == ("2026",)  # Hydra reads a number


def test_what_is_skipped_is_counted_by_kind(pics):
    (pics / "a.nef").write_bytes(b"II*\0" + bytes(60))
    (pics / "b.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ")
    (pics / "more.txt").write_text("no picture either")
    os.mkfifo(pics / "pipe.jpg")
    _, note = list_images("pics")
    assert "skipped: 2 text (more.txt, …)" in note
    for words in ("1 camera raw file (a.nef", "1 QuickTime video (b.mov", "1 pipe, socket or"):
        assert words in note
    assert ".DS_Store" not in note


def test_linked_folders_are_searched_once(pics, tmp_path, jpeg):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "f.jpg").write_bytes(jpeg(7))
    (pics / "linked").symlink_to(outside)
    (outside / "ring").symlink_to(tmp_path / "pics")
    assert paths("pics")[1] == (*ALL, "linked/f.jpg")


def refused(image: object) -> str:
    with pytest.raises((ConfigError, UserError), match="^image=") as caught:
        list_images(image)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", ["pics/a b.jpg,pics/e=x.jpg", "[pics/a b.jpg,pics/e=x.jpg]"])
def test_the_list_that_is_offered_is_one_that_hydra_reads(pics, jpeg, text):
    for name in ("a b.jpg", "e=x.jpg"):
        (pics / name).write_bytes(jpeg(9))
    with pytest.raises(ConfigError) as caught:
        find_sources(text)
    (argument,) = shlex.split(str(caught.value).rpartition("several are a list: ")[2])
    conf = composed(["task=predict", "checkpoint=x", argument])
    assert paths(list(conf.image))[1] == ("a b.jpg", "e=x.jpg")


def test_a_name_that_begins_like_a_home_is_a_name(pics, jpeg, monkeypatch):
    monkeypatch.chdir(pics)
    Path("~nobody.jpg").write_bytes(jpeg(9))
    assert paths("~nobody.jpg")[1] == ("~nobody.jpg",)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("https://example.org/bird.jpg", "an address.*curl -sSL -- https://example.org/bird.jpg"),
        ("s3://bucket/bird.jpg", "an address.*aws s3 cp s3://bucket/bird.jpg"),
        ("gs://bucket/bird.jpg", "an address.*gcloud storage cp gs://bucket/bird.jpg"),
        ("file:///tmp/no.jpg", "an address.*image=/tmp/no.jpg"),
        ("data:image/png;base64,AAAA", "an address.*save the image"),
        ("pics/z.jpg", "no such file or folder"),
        ("pics/*.webp", r"no such file or folder, and as a pattern it matches none"),
        ("pics/a.jpg,pics/c.png", r"several are a list: 'image=\[pics/a.jpg,pics/c.png\]'"),
        ([], "at least one"),
        ("", "an empty name; the current folder is image=."),
        (["pics/a.jpg", " "], "an empty name"),
        ([["pics/a.jpg"]], "expected a file"),
        ({"a": "b"}, "expected a file"),
        (["-", "pics/a.jpg"], "standard input holds one image"),
        ("pics/*.txt", r"skipped: 1 text.*\.jpg"),
    ],
    ids=str,
)
def test_what_is_no_image_on_this_machine_is_named(pics, image, message):
    assert re.search(message, refused(image))


@pytest.mark.fault(52)
def test_a_pipe_is_refused_without_waiting(pics):
    os.mkfifo(pics / "pipe")
    assert "a pipe, not a file" in refused("pics/pipe")


def test_standard_input_by_its_names(pics):
    assert reads_stdin("-")
    assert reads_stdin(["/dev/stdin"])
    assert not reads_stdin("./-")
    with pytest.raises(UserError, match="only task=predict reads standard input"):
        list_images("-")


def test_a_list_on_the_command_line_reaches_the_config(pics):
    conf = parse_config(
        composed(["task=predict", "image=[pics/a.jpg,pics/c.png]", "checkpoint=pics"])
    )
    assert [place.paths[0].name for place in find_sources(conf.image)] == ["a.jpg", "c.png"]
    with pytest.raises(ConfigError, match="^image=.* an address"):
        jobs_of(["task=predict", "image=https://a.org/b.jpg?x=1&y=2"], multirun=False)
    with pytest.raises(ConfigError, match=r"need -m .* a list: '?image=\[pics/a.jpg,pics/c.png\]"):
        jobs_of(["task=predict", "image=pics/a.jpg,pics/c.png", "checkpoint=pics"], multirun=False)


def test_every_path_is_read_from_the_root(pics):
    manifest, _ = list_images(["pics/deep/**", "pics/a.jpg"])
    for path in manifest.path:
        assert decode((manifest.root / path).read_bytes(), path).shape == (3, 36, 48)
