"""Features are computed once: by runs that are killed, run at once, or meet damaged shards."""

import json
import os
import random
import signal
import sys
from collections import Counter
from functools import partial

import numpy as np
import pytest

from fgvc.store import atomic, feature_cache, json_cache
from fgvc.store.feature_cache import FeatureCache
from fgvc.types import BadImage, Features, UserError
from tests.jobs import shard_by_shard, until

KEY = {"backbone": "b", "side": 224, "manifest": "m"}
ROWS = np.arange(3, 103, 2)  # 50 rows, 5 shards of 10
WIDTH = 7


def _expected(rows):
    return (rows[:, None] * 0.1 + np.arange(WIDTH)).astype(np.float32)


class Counted:
    """A compute function that logs the requested rows in a file shared by all processes."""

    def __init__(self, log, bad=()):
        self.log, self.bad = log, bad

    def __call__(self, row_n):
        with self.log.open("a") as file:
            file.write(json.dumps(row_n.tolist()) + "\n")
        good = np.setdiff1d(row_n, self.bad)
        bad = tuple(BadImage(int(row), f"é {row}: bad") for row in row_n if row in self.bad)
        return Features(_expected(good), good, bad)

    def calls(self):
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()]


@pytest.fixture
def counted(tmp_path):
    return Counted(tmp_path / "calls")


def _get(tmp_path, compute, rows=ROWS, key=KEY, compute_many=None, **options):
    notes = []
    cache = FeatureCache(tmp_path / "cache", notes.append)
    many = compute_many or shard_by_shard(compute)
    return cache.get(key, rows, many, shard_rows=10, **options), notes


def _folder(tmp_path):
    (folder,) = (tmp_path / "cache").iterdir()
    return folder


def _is_right(features):
    np.testing.assert_array_equal(features.row_N, ROWS)
    np.testing.assert_array_equal(features.x_ND, _expected(ROWS))
    return features.x_ND.dtype == np.float32 and features.row_N.dtype == np.int64


def test_the_second_call_reads_what_the_first_computed(tmp_path, counted):
    first, _ = _get(tmp_path, counted)
    again, notes = _get(tmp_path, counted)
    assert _is_right(first)
    assert _is_right(again)
    assert counted.calls() == [tuple(ROWS[start : start + 10]) for start in range(0, 50, 10)]
    assert notes == []
    assert (_folder(tmp_path) / "done.json").is_file()


def test_a_shard_without_a_lost_image_is_not_kept(tmp_path, counted):
    """The file existed at the start of the run, so the loss is not part of the key."""

    def losing(row_n):
        features = counted(row_n)
        if 5 not in row_n:
            return features
        good = features.row_N != 5
        return Features(
            features.x_ND[good], features.row_N[good], (BadImage(5, "gone", lost=True),)
        )

    first, _ = _get(tmp_path, losing)
    assert [bad.row for bad in first.bad] == [5]
    assert len(first.row_N) == len(ROWS) - 1
    assert not (_folder(tmp_path) / "done.json").exists()
    again, notes = _get(tmp_path, counted)
    assert _is_right(again)
    assert notes == []
    assert counted.calls()[5:] == [tuple(ROWS[:10])]  # the other shards were kept


def test_unreadable_rows_come_back_with_their_messages(tmp_path):
    bad = (3, 5, *ROWS[10:20].tolist(), int(ROWS[-1]))  # the second shard holds nothing else
    counted = Counted(tmp_path / "calls", bad=bad)
    for _ in range(2):
        features, _ = _get(tmp_path, counted)
        good = np.setdiff1d(ROWS, bad)
        np.testing.assert_array_equal(features.row_N, good)
        np.testing.assert_array_equal(features.x_ND, _expected(good))
        assert features.bad == tuple(BadImage(row, f"é {row}: bad") for row in bad)
    assert len(counted.calls()) == 5


def test_other_keys_have_other_folders(tmp_path, counted):
    _get(tmp_path, counted)
    _get(tmp_path, counted, key={**KEY, "side": 336})
    assert len(counted.calls()) == 10
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("difference", ["rows", "key"])
def test_a_folder_of_something_else_is_refused(tmp_path, counted, difference):
    _get(tmp_path, counted)
    if difference == "key":
        json_cache.write(_folder(tmp_path) / "key.json", {})
    with pytest.raises(UserError, match=f"delete {_folder(tmp_path)}"):
        _get(tmp_path, counted, rows=ROWS[:-1] if difference == "rows" else ROWS)


class LinesThatWrite:
    """Counts how often the block executes each line that writes a file of the cache.

    last: (line, n): kills this process before it executes that line for the n-th time.
    """

    def __init__(self, last=None):
        self.last, self.count = last, Counter()

    def __enter__(self):
        sys.settrace(self._trace)

    def __exit__(self, *_):
        sys.settrace(None)

    def _trace(self, frame, event, argument):
        code = frame.f_code
        if code.co_filename != atomic.__file__ and code is not feature_cache._write.__code__:
            return None
        if event == "line":
            line = (code.co_filename, frame.f_lineno)
            self.count[line] += 1
            if (line, self.count[line]) == self.last:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._trace


def get_and_die(cache, compute, last):
    with LinesThatWrite(last):
        _get(cache, compute)


@pytest.mark.fault(1, 51)
def test_sigkill_at_any_moment_costs_at_most_the_shard_at_work(tmp_path, forked, ended, counted):
    """The moments are lines of code, so machine load does not move them."""
    lines, draw = LinesThatWrite(), random.Random(0)
    with lines:
        _get(tmp_path / "undisturbed", counted)
    assert len(lines.count) > 20
    for number, (line, times) in enumerate(lines.count.items()):
        cache, last = tmp_path / str(number), (line, 1 + draw.randrange(times))
        calls = len(counted.calls())
        pid = forked(partial(get_and_die, cache, counted, last))
        assert ended(pid) == -signal.SIGKILL, last
        features, notes = _get(cache, counted)
        assert _is_right(features), last
        assert notes == [], last
        assert not list(_folder(cache).glob(".*.tmp")), last
        assert len(counted.calls()) - calls <= 5 + 1, last


def test_runs_at_once_compute_once(tmp_path, forked, ended, counted):
    """The first one computes only after the two others have reported that they wait."""

    def compute(row_n):
        until(lambda: len(list(tmp_path.glob("waiting*"))) == 2)
        return counted(row_n)

    def run():
        def note(line):
            (tmp_path / f"waiting{os.getpid()}").write_text(line)

        assert _is_right(_get(tmp_path, compute, on_wait=note)[0])

    pids = [forked(run) for _ in range(3)]
    assert [ended(pid) for pid in pids] == [0, 0, 0]
    assert len(counted.calls()) == 5
    assert "is held by" in next(tmp_path.glob("waiting*")).read_text()


def _flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


@pytest.mark.fault(50)
@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: _flip(path, 3),
        lambda path: _flip(path, path.stat().st_size // 2),
        lambda path: _flip(path, -1),
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
        lambda path: path.write_bytes(b""),
        lambda path: path.with_suffix(".sha256").write_bytes(b"\xff"),
        lambda path: path.with_suffix(".sha256").unlink(),
    ],
    ids=["header", "middle", "end", "cut", "empty", "digest", "no digest"],
)
def test_a_damaged_shard_is_computed_again_with_a_note(tmp_path, counted, damage, done):
    _get(tmp_path, counted)
    if not done:
        (_folder(tmp_path) / "done.json").unlink()
    damage(_folder(tmp_path) / "00002.safetensors")
    features, notes = _get(tmp_path, counted)
    assert _is_right(features)
    assert counted.calls()[5:] == [tuple(ROWS[20:30])]
    assert len(notes) == 1
    assert "00002.safetensors" in notes[0]
    _, notes = _get(tmp_path, counted)
    assert notes == []


@pytest.mark.fault(50)
def test_a_shard_put_in_the_place_of_another_is_noticed(tmp_path, counted):
    """The digest beside it matches; the rows do not."""
    _get(tmp_path, counted)
    for ending in (".safetensors", ".sha256"):
        other = _folder(tmp_path) / f"00001{ending}"
        (_folder(tmp_path) / f"00003{ending}").write_bytes(other.read_bytes())
    features, notes = _get(tmp_path, counted)
    assert _is_right(features)
    assert len(notes) == 1


def test_damage_is_a_warning_without_a_callback(tmp_path, counted):
    _get(tmp_path, counted)
    _flip(_folder(tmp_path) / "00000.safetensors", -1)
    with pytest.warns(UserWarning, match="computed again"):
        FeatureCache(tmp_path / "cache").get(KEY, ROWS, shard_by_shard(counted), shard_rows=10)


def test_a_failing_compute_keeps_the_shards_before_it(tmp_path, counted):
    def fail_late(row_n):
        if row_n[0] == ROWS[30]:
            raise OSError("no more")
        return counted(row_n)

    with pytest.raises(OSError, match="no more"):
        _get(tmp_path, fail_late)
    assert not (_folder(tmp_path) / "done.json").exists()
    assert _is_right(_get(tmp_path, counted)[0])
    assert len(counted.calls()) == 5


def test_missing_shards_can_be_computed_at_once_in_any_order(tmp_path, counted):
    """The bytes equal those of sequential computation; existing shards are not requested."""
    requested = []

    def many(shards):
        requested.append([tuple(row_n) for row_n in shards])
        for place in reversed(range(len(shards))):
            yield place, counted(shards[place])

    _get(tmp_path / "one", counted)
    _get(tmp_path / "many", counted, compute_many=many)
    first, there = _folder(tmp_path / "one"), _folder(tmp_path / "many")
    same = sorted(path.name for path in first.iterdir() if path.name != "lock")
    assert len(same) == 5 * 2 + 2
    assert all((there / name).read_bytes() == (first / name).read_bytes() for name in same)
    (there / "00001.safetensors").unlink()
    _flip(there / "00003.safetensors", 5)
    features, notes = _get(tmp_path / "many", counted, compute_many=many)
    assert _is_right(features)
    assert requested[1:] == [[tuple(ROWS[10:20]), tuple(ROWS[30:40])]]
    assert len(notes) == 1
    _get(tmp_path / "many", counted, compute_many=many)
    assert len(requested) == 2


def test_a_shard_is_read_once(monkeypatch, tmp_path, counted):
    reads, load = Counter(), feature_cache._load_shard

    def spy(path):
        reads[path.name] += 1
        return load(path)

    monkeypatch.setattr(feature_cache, "_load_shard", spy)
    _get(tmp_path, counted)
    assert reads == {}  # what was just computed is not read back
    (_folder(tmp_path) / "00002.safetensors").unlink()
    assert _is_right(_get(tmp_path, counted)[0])
    assert reads == {f"{shard:05d}.safetensors": 1 for shard in (0, 1, 3, 4)}


def test_no_rows_no_features(tmp_path, counted):
    features, _ = _get(tmp_path, counted, rows=ROWS[:0])
    assert features.x_ND.shape[0] == features.row_N.shape[0] == 0
