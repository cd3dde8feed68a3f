"""Common average reference."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rheobase.nodes.car import Car
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.fuse import apply

SPEC = Spec(rate=100, channels=("C3", "C4", "Cz", "EOG"), unit="V")
VALUE = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([np.nan, np.inf, -np.inf]))


@given(arrays(np.float64, (5, 4), elements=VALUE))
def test_equals_its_naive_twin(x: np.ndarray) -> None:
    np.testing.assert_allclose(apply(Car(), x, SPEC).data, naive.average_reference(x, [0, 1, 2, 3]), atol=1e-12)


@given(arrays(np.float64, (5, 4), elements=VALUE))
def test_an_excluded_channel_takes_no_part(x: np.ndarray) -> None:
    y = apply(Car(exclude=("EOG",)), x, SPEC).data
    np.testing.assert_allclose(y, naive.average_reference(x, [0, 1, 2]), atol=1e-12)


def test_what_all_channels_share_goes() -> None:
    x = np.random.default_rng(6).standard_normal((50, 4))
    y = apply(Car(), x + np.arange(50)[:, None], SPEC).data
    np.testing.assert_allclose(y, apply(Car(), x, SPEC).data, atol=1e-12)
    np.testing.assert_allclose(y.sum(axis=1), 0, atol=1e-12)


def test_keeps_the_spec() -> None:
    assert Car().start(SPEC) == SPEC


def test_says_what_is_wrong() -> None:
    with pytest.raises(StreamError, match="exclude: no channel 'EOG1' in its input; did you mean 'EOG'"):
        Car(exclude=("EOG1",)).start(SPEC)
    with pytest.raises(StreamError, match="needs at least 2 channels to take the average of, 1 left of 4"):
        Car(exclude=SPEC.channels[1:]).start(SPEC)
    with pytest.raises(StreamError, match="exclude: expected"):
        Car.make(exclude=3)
