"""Samples from a program outside, by ZeroMQ."""

from __future__ import annotations

from collections.abc import Iterator

from rheobase.devices.zmq_out import local
from rheobase.stream.block import Block, Spec
from rheobase.stream.link import Receiver
from rheobase.stream.node import Positive, Source


class ZmqIn(Source):
    """Takes frames of the form that `rheobase.stream.link` describes from a PUSH socket at an address.

    The first frame must be the spec. Samples that are missing between two frames open a segment.

    Errors: no spec within `wait`; a damaged frame; channels or dtype that are not those of the spec.
    """

    address: str
    """Where the other program listens: tcp://127.0.0.1:5557 or ipc://PATH."""
    wait: Positive = 10.0
    """How long to wait for the spec, s."""

    def check(self) -> None:
        local(self.address)

    def start(self, *inputs: Spec) -> Spec:
        self.check()
        self.receiver = Receiver(self.address)
        return self.receiver.wait_spec(self.wait)

    def blocks(self) -> Iterator[Block | None]:
        while not self.receiver.ended:
            yield self.receiver.receive(0.1)

    def stop(self) -> None:
        if hasattr(self, "receiver"):
            self.receiver.close()
