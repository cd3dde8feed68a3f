"""Sources that do not say when their samples were taken are found by their stamps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.devices._stamps import Stamps

K = np.arange(600)
RNG = np.random.default_rng(2)


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (K / 250, ""),
        (K / 250 + RNG.normal(0, 2e-4, 600), ""),
        (K / 249.2, ""),
        (np.where(K > 300, K + 25, K) / 250, ""),
        (np.repeat(K[::10] / 250, 10), "90% of its samples carry the stamp of the one before"),
        (K / 250 + RNG.exponential(8e-3, 600), "its stamps lie off their line"),
        (1.7e9 + K / 250, "seconds since 1970"),
        (3e6 + K / 250, "of a clock that is not this host's"),
    ],
)
@pytest.mark.parametrize("size", [1, 50])
def test_what_is_wrong_with_stamps_is_said_once(times: NDArray[np.float64], says: str, size: int) -> None:
    stamps, said = Stamps(250.0), []
    for a in range(0, 600, size):
        said += [s for s in [stamps.look(times[a : a + size], 10.0)] if s]
    assert len(said) == bool(says)
    assert says in "".join(said)


def test_nothing_is_expected_of_events() -> None:
    assert not any(Stamps(0.0).look(np.array([t]), t) for t in np.cumsum(RNG.exponential(1, 900)))
