"""Where pickles are kept, and what becomes of one that fails in the middle."""

from __future__ import annotations

import os
import pickle
import stat

import numpy as np
import pytest

from paraschut.errors import TrustError
from paraschut.store import pickles


@pytest.fixture
def place(home):
    return str(home / "jobs" / "1" / "data" / "value.pkl")


@pytest.fixture
def load(home, index):
    return lambda data, path: pickles.load(data, path, index, ())


@pytest.mark.parametrize("dump", [pickles.dump, pickles.dump_plain])
def test_a_small_pickle_makes_no_file(place, load, dump):
    data = dump({"a": 1}, place, 1000)
    assert load(data, place) == {"a": 1}
    assert not os.path.exists(os.path.dirname(place))


@pytest.mark.parametrize("dump", [pickles.dump, pickles.dump_plain])
@pytest.mark.parametrize("value", [b"x" * 2000, np.arange(1000.0), ["y" * 90] * 3 + list(range(900))])
def test_a_large_one_is_a_file_for_its_user_alone(place, load, dump, value):
    assert dump(value, place, 1000) is None
    assert os.listdir(os.path.dirname(place)) == ["value.pkl"]
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o600
    back = load(None, place)
    assert np.array_equal(back, value) if isinstance(value, np.ndarray) else back == value


def test_the_limit_is_the_size_of_the_whole(place):
    size = len(pickle.dumps(b"x" * 500, protocol=5))
    assert pickles.dump_plain(b"x" * 500, place, size) is not None
    assert pickles.dump_plain(b"x" * 500, place, size - 1) is None


def test_what_fails_in_the_middle_leaves_nothing(place):
    for dump in (pickles.dump, pickles.dump_plain):
        with pytest.raises(TypeError):
            dump([b"x" * 200_000, (number for number in ())], place, 1000)
    assert os.listdir(os.path.dirname(place)) == []


def test_what_only_cloudpickle_knows_is_kept_as_well(place, load):
    assert load(pickles.dump_plain(lambda: 7, place, 10_000), place)() == 7


def test_a_pickle_that_is_there_is_kept_by_its_size(place, load):
    for size in (10, 5000):
        data = pickle.dumps(b"x" * size)
        kept = pickles.keep(data, place, 1000)
        assert (kept is None) == (size == 5000)
        assert load(kept, place) == b"x" * size


def test_an_index_that_becomes_writable_for_others_is_noticed_at_once(place, load, index):
    data = pickles.dump_plain(1, place, 1000)
    assert load(data, place) == 1
    os.chmod(index, 0o602)
    with pytest.raises(TrustError):
        load(data, place)
    os.chmod(index, 0o600)
    os.chmod(os.path.dirname(index), 0o770)
    with pytest.raises(TrustError):
        load(data, place)
    os.chmod(os.path.dirname(index), 0o700)
    assert load(data, place) == 1
