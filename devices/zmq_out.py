"""Samples for programs outside: one ZeroMQ socket that anyone who can read a frame may connect to."""

from __future__ import annotations

import re
from typing import ClassVar

from rheobase.stream import clock
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.link import Sender
from rheobase.stream.node import Count, Sink

LOCAL = re.compile(r"tcp://(127\.\d+\.\d+\.\d+|localhost|\[::1\]):(?P<port>\d+)|ipc://.+")


def local(address: str) -> str:
    """The address, where it stays on this machine. Raises StreamError else: other addresses need keys."""
    found = LOCAL.fullmatch(address)
    if not found or int(found["port"] or 1) not in range(1, 1 << 16):  # ZeroMQ takes larger ones, modulo 2^16
        raise StreamError(f"address: {address!r} is not tcp://127.0.0.1:PORT or ipc://PATH (others would need keys)")
    return address


class ZmqOut(Sink):
    """Publishes its input on a PUSH socket, in the frames that `rheobase.stream.link` describes.

    Whoever reads it (a PULL socket; ZeroMQ deals the frames out where several connect) never slows the graph: the
    oldest messages are dropped when nobody takes them. The spec is said anew every second for those who come late.

    Errors: a port in use; an address that is not of this machine.
    """

    SAY: ClassVar[float] = 1.0

    address: str
    """Where to listen: tcp://127.0.0.1:5557 or ipc://PATH."""
    keep: Count = 1024
    """Messages kept for a reader that is slow."""

    def check(self) -> None:
        local(self.address)

    def start(self, *inputs: Spec) -> None:
        if len(inputs) != 1:
            raise StreamError(f"in: takes one input, got {len(inputs)}: give each its own address")
        self.check()
        self.sender = Sender(self.address, inputs[0], "drop_oldest", self.keep, wait=0)
        self.said = clock.now()

    def take(self, i: int, x: Block) -> None:
        if clock.now() - self.said > self.SAY:
            self.said = clock.now()
            self.sender.say_spec()
        self.sender.send(x)

    def stop(self) -> None:
        if hasattr(self, "sender"):
            self.sender.end(patience=0.2)
            self.sender.close(linger=0.2)
