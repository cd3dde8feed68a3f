"""The two ends of an edge in shared memory (`ring.py`): what `link.py` does by sockets, for the policy `block`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rheobase.stream.block import DTYPES, Block, Spec, StreamError
from rheobase.stream.link import (
    HEADER,
    KEPT,
    LOST,
    MAGIC,
    MISSING,
    NEXT,
    PATIENCE,
    SAMPLES,
    SENT,
    TIME,
    VERSION,
    Receiver,
    Sender,
    pack,
)
from rheobase.stream.pulse import counts
from rheobase.stream.ring import Ring


class RingSender(Sender):
    """The sending end of an edge by a ring; its policy is `block`."""

    def __init__(
        self,
        address: str,
        bell: str,
        spec: Spec,
        stream: int = 0,
        virtual: bool = False,
        give_up: Callable[[], bool] = lambda: False,
        kept: memoryview[int] | None = None,
        name: str = "",
    ) -> None:
        self.address, self.spec, self.policy, self.stream, self.virtual = (
            name or address,
            spec,
            "block",
            stream,
            virtual,
        )
        self.counts = counts() if kept is None else kept
        self._give_up = give_up
        self.ring = Ring(address.removeprefix("shm://"), bell)
        self._code = DTYPES.index(spec.dtype)
        self.say_spec()

    def send(self, block: Block) -> None:
        """Send samples: times and values go into the ring as they lie there."""
        n, count = len(block), self.counts
        if self.spec.dtype == "str":
            done = self._push(pack(block, "str", self.stream, self.virtual))
        else:
            done = self._write(self._parts(block, n))
        if block.seq > count[NEXT]:
            count[MISSING] += block.seq - count[NEXT]
        count[NEXT] = block.seq + n
        count[SENT] += n
        if not done:
            count[LOST] += n

    def _parts(self, block: Block, n: int) -> tuple[Any, ...]:
        c = block.data.shape[1]
        first = block.times[0] if n else 0.0
        head = HEADER.pack(
            MAGIC, VERSION, SAMPLES, self._code, self.virtual, self.stream, n, c, block.segment, block.seq, first
        )
        if not n * c:
            return (head,)
        times, values = np.ascontiguousarray(block.times, TIME), np.ascontiguousarray(block.data, KEPT[self._code])
        return head, times.data.cast("B"), values.data.cast("B")

    def _write(self, parts: tuple[Any, ...]) -> bool:
        waited = False

        def stop() -> bool:
            nonlocal waited
            if not waited:
                waited = True
                self.waits += 1
            return self._give_up()

        return self.ring.write(parts, stop)

    def _push(self, message: bytes) -> bool:
        return self._write((message,))

    def flush(self, patience: float = 0.0) -> None:
        """Nothing is kept."""

    def close(self, linger: float = 0.0) -> None:
        """What was sent stays for its reader."""


class RingReceiver(Receiver):
    """The receiving end of an edge by a ring."""

    def __init__(
        self,
        address: str,
        bell: str,
        kept: memoryview[int] | None = None,
        spec: tuple[Spec, bool] | None = None,
        name: str = "",
    ) -> None:
        self._bell = bell
        super().__init__(address, kept=kept, spec=spec, name=name)

    def _connect(self, address: str) -> None:
        self.ring = Ring(address.removeprefix("shm://"), self._bell)

    def pending(self, ms: int = 0) -> bool:
        seen = self.ring.bell.value()
        if not self.ring.waiting and ms:
            self.ring.bell.wait(seen, ms / 1000)
        return self.ring.waiting

    def receive(self, timeout: float = 0.1) -> Block | None:
        """The next block; None when none came in `timeout` s, and at the end."""
        message = self._read()
        if message is None and timeout > 0:
            self.pending(int(timeout * 1000))
            message = self._read()
        return None if message is None else self._take(message)

    def _read(self) -> bytes | None:
        try:
            return self.ring.read()
        except StreamError as e:
            raise StreamError(f"edge {self.address}: {e}") from None

    def wait_spec(self, timeout: float, give_up: Callable[[], bool] = lambda: False) -> Spec:
        for _ in range(max(1, int(timeout * 1000 / PATIENCE))):
            if self.spec is not None:
                return self.spec
            if give_up():
                raise StreamError(f"stopped before anything came on {self.address}")
            self.receive(PATIENCE / 1000)
        raise StreamError(f"nothing came on {self.address} within {timeout:g} s")

    def move(self, address: str) -> None:
        self._anew, self._usual = True, ()
        self._connect(address)

    def close(self) -> None:
        """What lies in the ring stays there."""
