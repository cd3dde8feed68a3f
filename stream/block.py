"""What travels along an edge: a `Spec` once at the start, then `Block`s of samples.

Times are seconds of the LSL clock (`rheobase.stream.clock.now`), data are (n, c): n samples of c channels.
NaN is a missing value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DTYPES = ("float64", "float32", "int64", "int32", "int16", "int8", "str")
"""Sample types an edge can carry, in the order of their code in a frame (`link.py`)."""


class StreamError(Exception):
    """Something a user can put right: the message is one line that says what and where."""


class Interrupted(StreamError):
    """Ctrl-C, before there was anything to bring to an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a stream is.

    rate      samples a second, Hz; 0: irregular
    channels  a name for each channel
    unit      SI unit of the samples ("" where there is none)
    delay     s: constant delay that the samples carry against their times (filters declare theirs)
    dtype     one of `DTYPES`
    """

    rate: float
    channels: tuple[str, ...]
    unit: str = ""
    delay: float = 0.0
    dtype: str = "float64"

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(str(c) for c in self.channels))
        object.__setattr__(self, "rate", float(self.rate))
        if not (np.isfinite(self.rate) and self.rate >= 0):
            raise StreamError(f"rate must be a number of Hz that is not negative, got {self.rate}")
        if self.dtype not in DTYPES:
            raise StreamError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if not self.channels:
            raise StreamError("a stream needs at least one channel")

    @property
    def n(self) -> int:
        """Number of channels."""
        return len(self.channels)

    def replace(self, **changes: Any) -> Spec:
        return replace(self, **changes)


@dataclass(slots=True, eq=False)
class Block:
    """Samples that belong together: one segment, one stream. Nobody changes one that was given (not frozen, which
    would cost 0.3 us for each).

    data     (n, c)
    times    (n,) s, LSL clock
    seq      number of samples of this stream before the first one here, since the start
    segment  grows by one at every gap or clock reset
    """

    data: Array
    times: NDArray[np.float64]
    seq: int = 0
    segment: int = 0

    def __len__(self) -> int:
        return len(self.times)

    def replace(self, **changes: Any) -> Block:
        return replace(self, **changes)

    def cut(self, a: int, b: int) -> Block:
        """Samples a to b (views)."""
        return Block(self.data[a:b], self.times[a:b], self.seq + a, self.segment)


def numbered(prefix: str, n: int) -> tuple[str, ...]:
    """Channel names prefix0, prefix1, ... for streams that carry none."""
    return tuple(f"{prefix}{i}" for i in range(n))
