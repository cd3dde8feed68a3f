"""Samples from a program outside, by ZeroMQ."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator

import numpy as np
import zmq
from zmq.utils.monitor import parse_monitor_message

from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.keys import Door, check_address
from rheobase.stream.link import Receiver
from rheobase.stream.node import NotNegative, Positive, Source

log = logging.getLogger("rheobase")

STALE, GONE = 0.5, 2.0
"""s without a sample after which a regular stream is stale, and after which it is lost."""
THERE = zmq.EVENT_HANDSHAKE_SUCCEEDED
AWAY = zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED


class ZmqIn(Source):
    """Takes frames of the form that `rheobase.stream.link` describes from a PUSH socket at an address.

    The first frame must be the spec. Samples that are missing between two frames open a segment. `health` counts
    samples `missing` by the numbers that the other program gives them, from the first one that came on, and `gaps`:
    how often some were missing, or the numbers went back. `state` is connecting, live, stale or lost; the last two
    are said in the log.

    An address that is not of this machine needs `keys` and `server` (`rheo keys`).

    Errors: no spec within `wait`; a damaged frame, or times that are not finite; channels or dtype that are not those
    of the spec; gone for `lost` s; an address that is not of this machine without keys; a damaged key file.
    """

    address: str
    """Where the other program listens: tcp://127.0.0.1:5557, ipc://PATH, or with keys tcp://HOST:PORT."""
    wait: Positive = 10.0
    """How long to wait for the spec, s."""
    lost: NotNegative = 0.0
    """Gone for longer than this is an error, s; 0: wait for it for ever, with a warning in the log. An irregular
    stream may be silent: it is gone when its connection has ended."""
    keys: str = ""
    """File with our own keys, NAME.key_secret."""
    server: str = ""
    """File with the key of the other program, NAME.key."""

    def check(self) -> None:
        check_address(self.address, self.keys, (self.server,) if self.server else (), "server")

    def start(self, *inputs: Spec) -> Spec:
        self.check()
        self.state, self.gone, self.there = "connecting", False, True
        self.before: tuple[int, int] | None = None
        self.watch: zmq.Socket[bytes] | None = None
        self.door = Door(self.keys, [self.server]) if self.keys else None
        self.receiver = Receiver(self.address, door=self.door)
        try:
            self.spec = self.receiver.wait_spec(self.wait)
        except StreamError as e:
            # CurveZMQ does not tell a stranger why it is turned away
            why = f" ({self.door.refused} handshakes failed: does each side know the other's key?)" if self.door else ""
            self.stop()
            raise StreamError(f"{e}{why}") from None
        self.receiver.socket.disable_monitor()  # that of the door: it has let us in
        self.watch = self.receiver.socket.get_monitor_socket(THERE | AWAY, f"inproc://{uuid.uuid4()}")
        return self.spec

    @property
    def health(self) -> dict[str, int]:
        if not hasattr(self, "receiver"):
            return {}
        r = self.receiver
        missing, gaps = self.before or (r.dropped, r.gaps)
        return {"missing": r.dropped - missing, "gaps": r.gaps - gaps}

    def blocks(self) -> Iterator[Block | None]:
        self.heard = now()
        while not self.receiver.ended:
            block = self.receiver.receive(0.1)
            if block is not None:
                if not np.isfinite(block.times).all():
                    raise StreamError(f"edge {self.address}: frame with times that are not finite")
                # what was sent before we came is not missing
                self.before = self.before or (self.receiver.dropped, self.receiver.gaps)
                self.heard, self.gone, self.state = now(), False, "live"
            elif not (self.receiver.ended or self.receiver.pending()):
                self._look()
            yield block

    def stop(self) -> None:
        if hasattr(self, "receiver"):
            if self.watch:
                self.receiver.socket.disable_monitor()
                self.watch.close(0)
                self.watch = None
            self.receiver.close()
            if self.door:
                self.door.close()

    def _look(self) -> None:
        """Nothing comes: what is the state?"""
        assert self.watch
        while self.watch.poll(0):
            self.there = parse_monitor_message(self.watch.recv_multipart())["event"] == THERE
        if self.there and not self.spec.rate:
            self.heard, self.gone = now(), False  # there, with nothing to say
        quiet = now() - self.heard
        due = max(STALE, 3 / self.spec.rate) if self.spec.rate else np.inf
        if quiet > due and self.state == "live":
            self.state = "stale"
            log.warning("%s: stream of %s is stale", self.name, self.address)
        if quiet > (max(GONE, 2 * due) if self.spec.rate else GONE) and not self.gone:
            self.state, self.gone = "lost", True
            log.warning("%s: nothing comes from %s; waiting for it", self.name, self.address)
        if self.lost and quiet > self.lost:
            raise StreamError(f"stream of {self.address} has been gone for {quiet:.1f} s")
