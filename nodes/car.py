"""Common average reference."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, kernel, nearest


class Average(NamedTuple):
    """Whether each channel takes part, (channels,), 0 or 1."""

    used: NDArray[np.int64]


class Car(Kernel):
    """Common average reference: y_c = x_c - mean of x over the channels that take part and are finite.

    An excluded channel takes no part and passes unchanged. A missing channel stays missing, and the mean is
    that of the others.

    Errors: an excluded channel that does not exist; fewer than two left.
    """

    exclude: tuple[str, ...] = ()
    """Channels that take no part: broken ones, or those that measure something else."""

    def start(self, x: Spec) -> Spec:
        for name in self.exclude:
            if name not in x.channels:
                raise StreamError(f"exclude: no channel {name!r} in its input{nearest(name, x.channels)}")
        used = np.array([c not in self.exclude for c in x.channels], np.int64)
        if used.sum() < 2:
            raise StreamError(f"needs at least 2 channels to take the average of, {used.sum()} left of {x.n}")
        self.params = Average(used)
        return x

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        total, n = 0.0, 0
        for c in range(x.shape[0]):
            if params.used[c] and np.isfinite(x[c]):
                total += x[c]
                n += 1
        mean = total / n if n else 0.0
        for c in range(x.shape[0]):
            if not np.isfinite(x[c]):
                y[c] = np.nan
            elif params.used[c]:
                y[c] = x[c] - mean
            else:
                y[c] = x[c]
        return True
