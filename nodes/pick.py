"""Some channels of a stream."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, kernel, nearest


class Where(NamedTuple):
    """which (c_out,): which channel of the input becomes which of the output."""

    which: NDArray[np.int64]


class Pick(Kernel):
    """y_i = x of the i-th channel named, in the order named.

    Errors: a channel that the input does not have, or that is named twice; no channel at all.
    """

    channels: list[str]
    """Names of the channels to keep."""
    unit: str = ""
    """Their unit, where the input mixes several; "": that of the input."""

    def start(self, x: Spec) -> Spec:
        if not self.channels:
            raise StreamError("channels: name at least one")
        for name in self.channels:
            if name not in x.channels:
                raise StreamError(f"channels: the input has no channel {name!r}{nearest(name, x.channels)}")
        if len(set(self.channels)) < len(self.channels):
            raise StreamError(f"channels: {max(self.channels, key=self.channels.count)!r} stands there twice")
        self.params = Where(np.array([x.channels.index(name) for name in self.channels], np.int64))
        return x.replace(channels=tuple(self.channels), unit=self.unit or x.unit)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for i in range(y.shape[0]):
            y[i] = x[params.which[i]]
        return True
