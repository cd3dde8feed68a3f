"""Notch filter, against the hum of the mains."""

from __future__ import annotations

import numpy as np

from rheobase.nodes.bandpass import Delays, Sections, cascade, check_corner, group_delay
from rheobase.stream.block import Spec
from rheobase.stream.node import Count, Kernel, Positive


class Notch(Kernel):
    """Second-order notches (scipy.signal.iirnotch) at a frequency and its multiples, one section each.

    Starts from rest, at every segment. A missing sample comes out missing; the filter of that channel holds.
    Its Spec's delay grows by the group delay at 0 Hz, near 1 / (2 pi frequency q); close to the notch, where
    little passes, it is longer.

    Errors: an irregular input; the highest multiple not below half of the rate.
    """

    frequency: Positive = 50.0
    """What is removed, Hz."""
    q: Positive = 30.0
    """Quality: frequency over the width of the notch at -3 dB."""
    harmonics: Count = 1
    """How many multiples of the frequency are removed, itself included; all are equally wide in Hz."""

    def start(self, x: Spec) -> Spec:
        check_corner("frequency", self.frequency * self.harmonics, x.rate)
        multiples = range(1, self.harmonics + 1)
        from scipy import signal  # late, as in bandpass.py

        sos = np.array([np.r_[signal.iirnotch(k * self.frequency, k * self.q, fs=x.rate)] for k in multiples])
        self.params = Sections(sos)
        self.state = Delays(np.zeros((len(sos), 2 * x.n)))
        return x.replace(delay=x.delay + group_delay(sos, 0.0, x.rate))

    step = staticmethod(cascade)
