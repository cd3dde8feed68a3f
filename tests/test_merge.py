"""Merge."""

from __future__ import annotations

import numpy as np
import pytest

from rheobase.nodes.merge import Merge
from rheobase.stream.block import Block, Spec, StreamError

A = Spec(rate=100, channels=("x", "y"), unit="V", delay=0.1)
B = Spec(rate=0, channels=("z",), unit="V", delay=0.3, dtype="int16")


def merge(*names: str) -> Merge:
    node = Merge()
    node.inputs = names
    return node


def test_puts_channels_side_by_side_at_the_times_of_the_first() -> None:
    node = merge("a", "b")
    out = node.start(A, B)
    assert (out.rate, out.channels, out.unit, out.delay, out.dtype) == (100, ("x", "y", "z"), "V", 0.3, "float64")
    times = np.array([5.0, 5.01])
    a = Block(np.array([[1.0, 2], [3, np.nan]]), times, seq=40, segment=2)
    b = Block(np.array([[7], [8]], np.int16), times, seq=3)
    y = node.process(a, b)
    np.testing.assert_array_equal(y.data, [[1, 2, 7], [3, np.nan, 8]])
    assert y.data.dtype == np.float64
    assert (y.times is times, y.seq, y.segment) == (True, 40, 2)


def test_channels_of_one_name_get_that_of_their_input() -> None:
    assert merge("a", "b").start(A, A).channels == ("a.x", "a.y", "b.x", "b.y")


def test_units_that_differ_leave_none() -> None:
    assert merge("a", "b").start(A, B.replace(unit="m")).unit == ""


def test_text_is_refused() -> None:
    with pytest.raises(StreamError, match="takes numbers, and 'b' is text"):
        merge("a", "b").start(A, B.replace(dtype="str"))
