"""Samples for programs outside: one ZeroMQ socket that anyone who can read a frame may connect to."""

from __future__ import annotations

from typing import ClassVar

from rheobase.devices._outlet import Outlet
from rheobase.stream import clock
from rheobase.stream.block import Block, Spec
from rheobase.stream.keys import Door, check_address
from rheobase.stream.link import Sender
from rheobase.stream.node import Count

BEHIND = 2.0
"""s that a reader who is behind at the end, or was so long before, has to read what lies on the way."""


class ZmqOut(Outlet):
    """Publishes its input on a PUSH socket, in the frames that `rheobase.stream.link` describes.

    Whoever reads it (a PULL socket; ZeroMQ deals the frames out where several connect) never slows the graph: the
    oldest messages are dropped when nobody takes them. The spec is said anew every second for those who come late.
    An address that is not of this machine needs `keys` and `peers` (`rheo keys`); with them only these peers are let
    in. `health` counts samples `untaken` by any reader, handshakes
    `refused`, how often it went `safe`, and samples `withheld` because they came too late.

    Errors: a port in use; an address that is not of this machine without keys; a damaged key file.
    """

    SAY: ClassVar[float] = 1.0

    address: str
    """Where to listen: tcp://127.0.0.1:5557, ipc://PATH, or with keys tcp://HOST:PORT (* for every address)."""
    keep: Count = 1024
    """Messages kept for a reader that is slow."""
    keys: str = ""
    """File with our own keys, NAME.key_secret."""
    peers: tuple[str, ...] = ()
    """Files with the keys of those who may connect, NAME.key."""

    def check(self) -> None:
        check_address(self.address, self.keys, self.peers, "peers")

    def open(self, x: Spec) -> None:
        self.check()
        self.door = Door(self.keys, self.peers) if self.keys else None
        self.sender = Sender(self.address, x, "drop_oldest", self.keep, wait=0, door=self.door)
        self.said, self.slow = clock.now(), -BEHIND

    @property
    def health(self) -> dict[str, int]:
        if not hasattr(self, "sender"):
            return {}
        refused = self.door.refused if self.door else 0
        own = {"untaken": self.sender.dropped, "refused": refused}
        return own | {"safe": self.went_safe, "withheld": self.withheld}

    def give(self, x: Block) -> None:
        if clock.now() - self.said > self.SAY:
            self.said = clock.now()
            self.sender.say_spec()
        self.sender.send(x)
        if self.sender.behind:
            self.slow = clock.now()

    def shut(self) -> None:
        # a reader that is there, but behind, is to hear the last word, which may be what is safe
        # room on the way does not mean that the reader has come to what lies there
        behind = self.sender.behind or clock.now() - self.slow < BEHIND
        patience = max(self.patience, BEHIND if behind else 1.0) if self.sender.heard else self.patience
        until = clock.now() + patience
        if self.ends:
            self.sender.end(patience)
        else:
            self.sender.flush(patience)
        if behind:  # libzmq forgets what lies on the way where a reader at its high-water mark is left (`Sender.close`)
            clock.wait_until(until)
        self.sender.abandon()
        self.sender.close(linger=patience)
        if self.door:
            self.door.close()
