"""Small nodes for tests of the runtime, importable by child processes as "parts:Name"."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream import clock
from rheobase.stream.block import Block, Spec, numbered
from rheobase.stream.node import Kernel, Node, Sink, Source, kernel


class Ramp(Source):
    """Sample k is k in every channel; paced at `rate`, or as fast as it goes."""

    n: int = 1000
    """Samples."""
    c: int = 4
    """Channels."""
    rate: float = 1000.0
    """Hz."""
    block: int = 1
    """Samples a block."""
    paced: bool = True
    """At its rate."""
    die: int = -1
    """Sample at which the process kills itself."""

    def start(self, *inputs: Spec) -> Spec:
        return Spec(rate=self.rate, channels=numbered("c", self.c), dtype="float32")

    def blocks(self) -> Iterator[Block | None]:
        begin = clock.now()
        for a in range(0, self.n, self.block):
            k = np.arange(a, min(a + self.block, self.n))
            if self.paced:
                clock.wait_until(begin + k[-1] / self.rate)
            if 0 <= self.die <= k[-1]:
                os.kill(os.getpid(), signal.SIGKILL)
            yield Block(np.repeat(k[:, None], self.c, 1).astype(np.float32), begin + k / self.rate, a)


class Recorded(Ramp):
    """The same, from a recording."""

    live: ClassVar[bool] = False
    paced: bool = False

    def blocks(self) -> Iterator[Block | None]:
        for a in range(0, self.n, self.block):
            k = np.arange(a, min(a + self.block, self.n))
            yield Block(np.repeat(k[:, None], self.c, 1).astype(np.float32), k / self.rate, a)


class Square(Node):
    """y = x^2."""

    def start(self, x: Spec) -> Spec:  # type: ignore[override]
        return x.replace(dtype="float64")

    def process(self, x: Block) -> Block:  # type: ignore[override]
        return x.replace(data=x.data.astype(np.float64) ** 2)


class Fail(Node):
    """Raises at a sample."""

    at: int = 100
    """Sample."""

    def process(self, x: Block) -> Block:  # type: ignore[override]
        if x.seq >= self.at:
            raise ValueError("on purpose")
        return x


class Stop(Node):
    """Kills its process at a sample, or hangs, or raises."""

    at: int = 100
    """Sample."""
    hang: bool = False
    """Hang and do not die."""
    fail: bool = False
    """Raise and do not die."""
    attempts: int = 1000
    """How many processes it ends."""

    def process(self, x: Block) -> Block:  # type: ignore[override]
        if x.seq >= self.at and self.attempt < self.attempts:
            if self.hang:
                signal.pause()
            if self.fail:
                raise ValueError("on purpose")
            os.kill(os.getpid(), signal.SIGKILL)
        return x


class Slow(Node):
    """Takes its time at one sample."""

    at: int = 100
    """Sample."""
    late: float = 0.2
    """s."""

    def process(self, x: Block) -> Block:  # type: ignore[override]
        if x.seq == self.at:
            time.sleep(self.late)
        return x


class Gaps(Ramp):
    """Fifty samples are missing before the 200th, as where a program outside has lost them."""

    def blocks(self) -> Iterator[Block | None]:
        for b in super().blocks():
            assert b is not None
            yield b if b.seq < 200 else b.replace(seq=b.seq + 50, segment=1)


class Late(Ramp):
    """Takes its time to start, and says when it begins to."""

    late: float = 30.0
    """s."""

    def start(self, *inputs: Spec) -> Spec:
        assert self.folder is not None
        (self.folder / "starting").touch()
        time.sleep(self.late)
        return super().start(*inputs)


class Keep(Sink):
    """Keeps what it gets; at the end writes the sum of its first channel, and how many, to its folder."""

    slow: float = 0.0
    """Time that each block takes, s."""

    def start(self, *inputs: Spec) -> None:
        self.got: list[tuple[int, Block]] = []
        self.specs = inputs

    def take(self, i: int, x: Block) -> None:
        if self.slow:
            clock.wait_until(clock.now() + self.slow)
        self.got.append((i, x))

    def stop(self) -> None:
        if self.folder is not None:
            rows = np.concatenate([b.data[:, 0] for _, b in self.got]) if self.got else np.zeros(0)
            np.savetxt(self.folder / f"{self.name}.txt", rows)


class Say(Keep):
    """Prints what it took, as anyone's node may."""

    def take(self, i: int, x: Block) -> None:
        print("took", x.seq)


class SumState(NamedTuple):
    total: NDArray[np.float64]
    seen: NDArray[np.int64]


class SumParams(NamedTuple):
    every: int
    gain: NDArray[np.float64]


class Sum(Kernel):
    """y = sum of gain x over all samples so far, given at every `every`-th."""

    every: int = 1
    """Samples for one out."""

    def start(self, x: Spec) -> Spec:  # type: ignore[override]
        self.params = SumParams(self.every, 1 + np.arange(x.n) / 7)
        self.state = SumState(np.zeros(x.n), np.zeros(1, np.int64))
        return x.replace(rate=x.rate / self.every)

    @staticmethod
    @kernel
    def step(params: Any, state: Any, t: float, x: Any, y: Any) -> bool:
        state.seen[0] += 1
        for i in range(x.shape[0]):
            state.total[i] += params.gain[i] * x[i]
            y[i] = state.total[i]
        return state.seen[0] % params.every == 0


class Decay(Kernel):
    """y = a y + x / 3: no reset at a new segment."""

    resets: ClassVar[bool] = False

    def start(self, x: Spec) -> Spec:  # type: ignore[override]
        self.state = SumState(np.zeros(x.n), np.zeros(1, np.int64))
        return x

    @staticmethod
    @kernel
    def step(params: Any, state: Any, t: float, x: Any, y: Any) -> bool:
        for i in range(x.shape[0]):
            state.total[i] = 0.9 * state.total[i] + x[i] / 3.0
            y[i] = state.total[i]
        return True


class Count(Kernel):
    """y = how many samples it has seen, over all segments."""

    resets: ClassVar[bool] = False

    def start(self, x: Spec) -> Spec:  # type: ignore[override]
        self.state = SumState(np.zeros(1), np.zeros(1, np.int64))
        return x.replace(channels=("n",))

    @staticmethod
    @kernel
    def step(params: Any, state: Any, t: float, x: Any, y: Any) -> bool:
        state.seen[0] += 1
        y[0] = state.seen[0]
        return True


class First(Kernel):
    """y = x[0] / (1 + t): one channel."""

    def start(self, x: Spec) -> Spec:  # type: ignore[override]
        return x.replace(channels=x.channels[:1])

    @staticmethod
    @kernel
    def step(params: Any, state: Any, t: float, x: Any, y: Any) -> bool:
        y[0] = x[0] / (1.0 + t)
        return True


class Swapper(Sink):
    """Asks for another model each time that so many samples have come."""

    node: str = ""
    """Decoder to give them to."""
    models: list[str] = dataclasses.field(default_factory=list)
    """Files."""
    every: int = 100
    """Samples from one to the next."""

    def start(self, *inputs: Spec) -> None:
        self.left, self.seen = list(self.models), 0

    def take(self, i: int, x: Block) -> None:
        self.seen += len(x)
        if self.left and self.seen >= self.every:
            self.seen = 0
            self.tell({"swap": {"node": self.node, "model": self.left.pop(0)}})
