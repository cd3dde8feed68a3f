"""Features and labels while one of the two is not there: see test_recalibrate.py for the pairing itself."""

import numpy as np

from rheobase.devices._labelled import PENDING, Labelled
from rheobase.stream.block import Block


def test_what_waits_for_an_input_that_never_comes_is_bounded() -> None:
    """Before the task has begun, and after it has died."""

    def features(a: int, b: int) -> None:
        for k in range(a, b, 10):
            given.take(0, Block(np.full((10, 3), float(k)), np.arange(k, k + 10.0), k))

    def waiting() -> int:
        return sum(len(v[0]) for v in given._waiting[0])

    given, begin = Labelled([0, 1]), 3 * PENDING
    features(0, begin)
    assert waiting() == PENDING
    given.take(1, Block(np.ones((10, 2)), np.arange(begin - 10.0, begin), 0))
    given.pair()
    assert (given.rows, given.unpaired, waiting()) == (10, begin - 10, 0)
    features(begin, 2 * begin)
    assert waiting() == PENDING
    assert given.unpaired == 2 * begin - 10 - PENDING
