"""Low-pass filter."""

from __future__ import annotations

import numpy as np

from rheobase.nodes.bandpass import Delays, Sections, cascade, check_corner, group_delay
from rheobase.stream.block import Spec
from rheobase.stream.node import Count, Kernel, Positive


class Lowpass(Kernel):
    """Butterworth low-pass (scipy.signal.butter) in second-order sections; equals scipy.signal.sosfilt.

    Starts from rest, at every segment. A missing sample comes out missing; the filter of that channel holds.
    Its Spec's delay grows by the group delay at 0 Hz: near constant well below the corner.

    Errors: an irregular input; corner not below half of the rate.
    """

    corner: Positive
    """Corner (-3 dB), Hz."""
    order: Count = 4
    """Order of the slope: 6 dB an octave each."""

    def start(self, x: Spec) -> Spec:
        check_corner("corner", self.corner, x.rate)
        from scipy import signal  # late, as in bandpass.py

        sos = signal.butter(self.order, self.corner, "lowpass", output="sos", fs=x.rate)
        self.params = Sections(sos)
        self.state = Delays(np.zeros((len(sos), 2 * x.n)))
        return x.replace(delay=x.delay + group_delay(sos, 0.0, x.rate))

    step = staticmethod(cascade)
