"""Pick."""

from __future__ import annotations

import numpy as np
import pytest

from rheobase.nodes.pick import Pick
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.fuse import apply

SPEC = Spec(rate=50, channels=("cursor_x", "cursor_y", "intended_x", "intended_y"), unit="m")


def test_gives_the_channels_named_in_the_order_named() -> None:
    x = np.arange(12.0).reshape(3, 4)
    x[1, 3] = np.nan
    y = apply(Pick.make(channels=["intended_y", "cursor_x"]), x, SPEC, np.arange(3) / 50)
    np.testing.assert_array_equal(y.data, x[:, [3, 0]])
    np.testing.assert_array_equal(y.times, np.arange(3) / 50)


def test_keeps_the_unit_unless_told_another() -> None:
    assert Pick(channels=["cursor_x"]).start(SPEC) == SPEC.replace(channels=("cursor_x",))
    assert Pick(channels=["intended_x"], unit="m/s").start(SPEC).unit == "m/s"


@pytest.mark.parametrize(
    ("channels", "says"),
    [
        (["intended_z"], "no channel 'intended_z'; did you mean 'intended_[xy]'"),
        ([], "name at least one"),
        (["cursor_x", "cursor_y", "cursor_x"], "'cursor_x' stands there twice"),
    ],
)
def test_refuses(channels: list[str], says: str) -> None:
    with pytest.raises(StreamError, match=says):
        Pick(channels=channels).start(SPEC)
