"""One clock for all, waiting, and the histogram of ages."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheobase.stream import clock


def test_now_is_the_clock_of_lab_streaming_layer() -> None:
    pylsl = pytest.importorskip("pylsl")
    before, lsl, after = clock.now(), pylsl.local_clock(), clock.now()
    assert before <= lsl <= after


def test_a_wait_never_ends_early() -> None:
    clock.fine_timer()
    for wait in (0.0, 5e-5, 0.003):
        t = clock.now() + wait
        late = clock.wait_until(t)
        assert clock.now() >= t
        assert late >= 0


@given(st.lists(st.floats(2e-6, 900), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantiles_err_upwards_by_two_percent_at_most(ages: list[float], q: float) -> None:
    table = clock.Ages()
    for age in ages:
        table.add(age)
    true = float(np.sort(ages)[math.ceil(q * len(ages)) - 1])
    assert true * 0.999999 <= table.quantile(q) <= true * 1.020001
    assert table.max == max(ages)
    assert table.n == len(ages)


def test_ages_beyond_the_ends_are_kept() -> None:
    table = clock.Ages()
    for age in (-1.0, 0.0, 1e-9, 5000.0):
        table.add(age)
    assert (table.n, table.max) == (4, 5000.0)
    assert table.quantile(0.5) <= clock.Ages.LOW
    assert math.isnan(clock.Ages().quantile(0.5))
