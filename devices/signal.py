"""Sines in white noise, for trying things out without hardware: the same bits every time, live or not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rheobase.stream.block import Block, Spec, numbered
from rheobase.stream.clock import fine_timer, now, wait_until
from rheobase.stream.node import Count, NotNegative, Positive, Source

IDLE = 0.1
"""s: the longest wait without a sign of life."""


class Signal(Source):
    """x_i[k] = amplitude sin(2 pi (frequency k / rate + i / n)) + noise e_i[k], e standard normal, i < n channels.

    Sample k depends on k and the parameters alone: its noise comes from the k-th numbers of a counter-based
    generator (Philox, Salmon et al. 2011), whatever the size of the chunks.
    """

    channels: Count = 8
    """Number of channels, n."""
    rate: Positive = 1000.0
    """Sampling rate, Hz."""
    frequency: NotNegative = 10.0
    """Frequency of the sines, Hz."""
    amplitude: float = 1.0
    """Their amplitude."""
    noise: NotNegative = 0.1
    """Standard deviation of the noise."""
    seed: int = 0
    """Seed of the noise."""
    paced: bool = True
    """Live, each sample at its time; else as fast as they are taken, from 0 s on."""
    seconds: NotNegative = 0.0
    """How long it lasts, s; 0: for ever."""
    chunk: Count = 10
    """Samples in a block."""

    def __post_init__(self) -> None:
        self.live = self.paced  # type: ignore[misc]

    def start(self, *inputs: Spec) -> Spec:
        return Spec(rate=self.rate, channels=numbered("ch", self.channels))

    def blocks(self) -> Iterator[Block | None]:
        if self.paced:
            fine_timer()
        begin = now() if self.paced else 0.0
        n = round(self.seconds * self.rate)
        a = 0
        while a < n or not self.seconds:
            b = min(a + self.chunk, n) if self.seconds else a + self.chunk
            times, x = begin + np.arange(a, b) / self.rate, self.samples(a, b)
            if self.paced:
                while times[-1] - now() > IDLE:
                    wait_until(now() + IDLE)
                    yield None
                wait_until(times[-1])
            yield Block(x, times, a)
            a = b

    def samples(self, a: int, b: int) -> NDArray[np.float64]:
        """Samples a to b, (b - a, n)."""
        k = np.arange(a, b, dtype=np.float64)[:, None]
        turns = np.mod(self.frequency * k / self.rate, 1.0) + np.arange(self.channels) / self.channels
        return self.amplitude * np.sin(2 * np.pi * turns) + self.noise * self._normal(a, b)

    def _normal(self, a: int, b: int) -> NDArray[np.float64]:
        # Philox gives four numbers for each step of its counter; one number makes one normal by the inverse of
        # its distribution, so that it is known where the numbers of sample a begin.
        first, last = a * self.channels, b * self.channels
        generator = np.random.Philox(key=self.seed % (1 << 64))
        generator.advance(first // 4)
        bits = generator.random_raw(last - 4 * (first // 4))[first % 4 :]
        return ndtri(((bits >> 11) + 0.5) * 2.0**-53).reshape(b - a, self.channels)  # type: ignore[no-any-return]
