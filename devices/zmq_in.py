"""Samples from a program outside, by ZeroMQ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.keys import Door, check_address
from rheobase.stream.link import Receiver
from rheobase.stream.node import Positive, Source


class ZmqIn(Source):
    """Takes frames of the form that `rheobase.stream.link` describes from a PUSH socket at an address.

    The first frame must be the spec. Samples that are missing between two frames open a segment.

    An address that is not of this machine needs `keys` and `server` (`rheo keys`).

    Errors: no spec within `wait`; a damaged frame, or times that are not finite; channels or dtype that are not those
    of the spec; an address that is not of this machine without keys; a damaged key file.
    """

    address: str
    """Where the other program listens: tcp://127.0.0.1:5557, ipc://PATH, or with keys tcp://HOST:PORT."""
    wait: Positive = 10.0
    """How long to wait for the spec, s."""
    keys: str = ""
    """File with our own keys, NAME.key_secret."""
    server: str = ""
    """File with the key of the other program, NAME.key."""

    def check(self) -> None:
        check_address(self.address, self.keys, (self.server,) if self.server else (), "server")

    def start(self, *inputs: Spec) -> Spec:
        self.check()
        self.door = Door(self.keys, [self.server]) if self.keys else None
        self.receiver = Receiver(self.address, door=self.door)
        try:
            return self.receiver.wait_spec(self.wait)
        except StreamError as e:
            # CurveZMQ does not tell a stranger why it is turned away
            why = f" ({self.door.refused} handshakes failed: does each side know the other's key?)" if self.door else ""
            self.stop()
            raise StreamError(f"{e}{why}") from None

    def blocks(self) -> Iterator[Block | None]:
        while not self.receiver.ended:
            block = self.receiver.receive(0.1)
            if block is not None and not np.isfinite(block.times).all():
                raise StreamError(f"edge {self.address}: frame with times that are not finite")
            yield block

    def stop(self) -> None:
        if hasattr(self, "receiver"):
            self.receiver.close()
            if self.door:
                self.door.close()
