"""Band-pass filter, and the cascade of second-order sections that `lowpass` and `notch` run too."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Count, Kernel, Positive, kernel


class Sections(NamedTuple):
    """Coefficients b0 b1 b2 1 a1 a2 of each section, (sections, 6), as scipy gives them."""

    sos: NDArray[np.float64]


class Delays(NamedTuple):
    """The delays of each section, (sections, 2 channels): z0 of all channels, then z1 of all.

    In one row, as LLVM then sees that they do not overlap, and vectorises over channels (6 times faster).
    """

    z: NDArray[np.float64]


@kernel
def cascade(params, state, t, x, y):
    """Second-order sections one after the other, each in direct form II transposed:

        y = b0 x + z0,   z0 <- b1 x - a1 y + z1,   z1 <- b2 x - a2 y

    A delay that would become NaN or Inf is held instead: a missing sample comes out as NaN and leaves no trace.
    """
    n = x.shape[0]
    for c in range(n):
        y[c] = x[c]
    for s in range(params.sos.shape[0]):
        q, z = params.sos[s], state.z[s]
        b0, b1, b2, a1, a2 = q[0], q[1], q[2], q[4], q[5]
        for c in range(n):
            u, z0, z1 = y[c], z[c], z[n + c]
            v = b0 * u + z0
            z0_next = b1 * u - a1 * v + z1
            z1_next = b2 * u - a2 * v
            finite = z0_next - z0_next + (z1_next - z1_next) == 0.0
            z[c] = z0_next if finite else z0
            z[n + c] = z1_next if finite else z1
            y[c] = v if finite else np.nan
    return True


def check_corner(key: str, frequency: float, rate: float) -> None:
    """Raise StreamError where a filter for `frequency` Hz cannot be made at `rate` Hz."""
    if rate == 0:
        raise StreamError(f"{key}: a filter needs a regular rate, its input is irregular")
    if frequency >= rate / 2:
        raise StreamError(f"{key}: {frequency:g} Hz is not below {rate / 2:g} Hz, half of its input's rate")


def group_delay(sos: NDArray[np.float64], frequency: float, rate: float) -> float:
    """Group delay of a cascade at `frequency` Hz, s: the sum over its sections."""
    from scipy import signal

    return float(sum(signal.group_delay((q[:3], q[3:]), [frequency], fs=rate)[1][0] for q in sos)) / rate


class Bandpass(Kernel):
    """Butterworth band-pass (scipy.signal.butter) in second-order sections; equals scipy.signal.sosfilt.

    Starts from rest, at every segment. A missing sample comes out missing; the filter of that channel holds.
    Its Spec's delay grows by the group delay at the centre of the band, sqrt(low high): exact there, shorter
    inside the band, longer at its edges.

    Errors: an irregular input; low >= high; high not below half of the rate.
    """

    low: Positive
    """Lower corner (-3 dB), Hz."""
    high: Positive
    """Upper corner (-3 dB), Hz."""
    order: Count = 4
    """Order of each slope: 6 dB an octave each; the filter has this many sections."""

    def start(self, x: Spec) -> Spec:
        if self.low >= self.high:
            raise StreamError(f"low: {self.low:g} Hz is not below high, {self.high:g} Hz")
        check_corner("high", self.high, x.rate)
        from scipy import signal  # it takes 0.8 s, which a process that only checks a graph saves

        sos = signal.butter(self.order, (self.low, self.high), "bandpass", output="sos", fs=x.rate)
        self.params = Sections(sos)
        self.state = Delays(np.zeros((len(sos), 2 * x.n)))
        return x.replace(delay=x.delay + group_delay(sos, np.sqrt(self.low * self.high), x.rate))

    step = staticmethod(cascade)
