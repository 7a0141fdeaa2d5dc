"""Arrays are computed once, and a damaged file is computed again."""

import numpy as np
import pytest

from fgvc.store.array_cache import cached_arrays


@pytest.fixture
def counted():
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.arange(6.0).reshape(2, 3)[:, ::-1], "scale": np.array([2.5])}

    return calls, compute


def test_the_second_asking_computes_nothing_and_gives_the_same(tmp_path, counted):
    calls, compute = counted
    first, second = (
        cached_arrays(tmp_path, {"a": 1}, compute),
        cached_arrays(tmp_path, {"a": 1}, compute),
    )
    assert len(calls) == 1
    assert first["x"].tolist() == second["x"].tolist() == [[2, 1, 0], [5, 4, 3]]
    assert second["x"].dtype == np.float64


def test_another_key_is_another_result(tmp_path, counted):
    calls, compute = counted
    for key in ({"a": 1}, {"a": 2}, {"a": "1"}):
        cached_arrays(tmp_path, key, compute)
    assert len(calls) == 3


@pytest.mark.fault(50)
@pytest.mark.parametrize("place", [-1, 10, 200])
def test_a_flipped_byte_or_a_cut_is_computed_again(tmp_path, counted, place):
    calls, compute = counted
    cached_arrays(tmp_path, {}, compute)
    (file,) = tmp_path.glob("*.safetensors")
    data = bytearray(file.read_bytes())
    if place == 10:
        data = data[:40]
    else:
        data[place] ^= 1
    file.write_bytes(bytes(data))
    notes: list[str] = []
    assert cached_arrays(tmp_path, {}, compute, notes.append)["x"].tolist() == [
        [2, 1, 0],
        [5, 4, 3],
    ]
    assert len(calls) == 2
    assert [note.startswith(f"{file}: damaged in the cache") for note in notes] == [True]
