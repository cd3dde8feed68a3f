"""Chance inside a kernel: numbers that depend on a seed and on how many were drawn before, and on nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec
from rheobase.stream.node import kernel

DONE = "disturbed"
"""The channel that says what was done, of nodes that disturb a stream on purpose."""


def chance(seed: int) -> NDArray[np.int64]:
    """What `uniform` begins with, (2,)."""
    return np.random.default_rng(seed).integers(1, [2147483563, 2147483399])


def told(x: Spec, truth: bool) -> Spec:
    """The Spec of x, disturbed: the same channels, and last what was done, where that is asked for."""
    return x.replace(channels=(*x.channels, *[DONE] * truth), dtype="float64")


@kernel
def uniform(s):
    """The next number, in (0, 1) and neither of them.

    Two multiplicative generators together, of period 2.3e18, whose products fit in 63 bits, so that compiled and plain
    Python agree (L'Ecuyer, Commun. ACM 31:742, 1988).
    """
    s[0] = 40014 * s[0] % 2147483563
    s[1] = 40692 * s[1] % 2147483399
    z = (s[0] - s[1]) % 2147483562
    return (z if z > 0 else 2147483562) / 2147483563.0


@kernel
def below(s, n):
    """The next number of 0 ... n - 1."""
    return int(uniform(s) * n)
