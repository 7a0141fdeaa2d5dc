"""Files by digest: kept once, verified when used."""

import pytest

from fgvc.store import hashing
from fgvc.store.content_store import ContentStore
from fgvc.types import UserError


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(bytes(range(256)) * 4000)
    return path


def test_put_is_idempotent_and_path_gives_the_bytes(tmp_path, source):
    store = ContentStore(tmp_path / "store")
    sha256 = store.put(source)
    inode = store.path(sha256).stat().st_ino
    assert store.put(source) == sha256 == hashing.sha256_file(source)
    assert store.path(sha256).stat().st_ino == inode
    assert ContentStore(tmp_path / "store").path(sha256).read_bytes() == source.read_bytes()


def test_editing_the_source_leaves_the_kept_file_alone(tmp_path, source):
    store = ContentStore(tmp_path / "store")
    sha256 = store.put(source)
    with source.open("r+b") as file:
        file.write(b"edited")
    assert hashing.sha256_file(ContentStore(tmp_path / "store").path(sha256)) == sha256


@pytest.mark.fault(50)
def test_a_flipped_byte_is_refused_and_put_replaces_it(tmp_path, source):
    sha256 = ContentStore(tmp_path / "store").put(source)
    stored = ContentStore(tmp_path / "store").path(sha256)
    data = bytearray(stored.read_bytes())
    data[1000] ^= 1
    stored.unlink()
    stored.write_bytes(data)
    with pytest.raises(UserError, match=f"damaged.*{sha256}"):
        ContentStore(tmp_path / "store").path(sha256)
    ContentStore(tmp_path / "store").put(source)
    assert ContentStore(tmp_path / "store").path(sha256).read_bytes() == source.read_bytes()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="0" * 64):
        ContentStore(tmp_path).path("0" * 64)


def test_processes_at_once_keep_one_whole_file(tmp_path, source, forked, ended):
    def put():
        ContentStore(tmp_path / "store").put(source)

    assert [ended(pid) for pid in [forked(put) for _ in range(6)]] == [0] * 6
    (folder,) = (tmp_path / "store").iterdir()
    assert [path.name for path in folder.iterdir()] == [hashing.sha256_file(source)]
