"""One edge between two processes: framing, policy, counting.

Over ZeroMQ PUSH (the sender binds) and PULL (the receiver connects), one socket an edge. Every message is one
frame, little endian, so that any program can read an edge with a ZeroMQ PULL socket:

    offset  size  type     field
    0       4     char[4]  magic, "RHEO"
    4       1     uint8    version, 1
    5       1     uint8    kind: 0 samples, 1 spec, 2 end
    6       1     uint8    dtype: 0 float64, 1 float32, 2 int64, 3 int32, 4 int16, 5 int8, 6 text
    7       1     uint8    flags: bit 0 set when times are virtual (a replay)
    8       4     uint32   stream: number of the edge in its graph
    12      4     uint32   n, samples
    16      4     uint32   c, channels
    20      4     uint32   segment: grows by one at every gap or clock reset
    24      8     uint64   seq: samples of this stream before the first one here
    32      8     float64  time of the first sample, s of the LSL clock
    40                     samples: n float64 times, then n x c values, a sample's channels together
                           (text: for each value a uint32 length in bytes, then so many bytes of UTF-8)
                           spec: JSON {"rate", "channels", "unit", "delay", "dtype"}, UTF-8; n bytes long
                           end: nothing; seq is what the next sample would have had

The first frame is the spec. Samples are lost between two frames where seq jumps.

    policy            sender                              receiver
    block             waits at the high-water mark        takes all
    latest            never waits, keeps only the newest  takes the newest
    drop_oldest: n    never waits, keeps n messages       keeps the n newest messages
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import zmq

from rheobase.stream import clock
from rheobase.stream.block import DTYPES, Array, Block, Spec, StreamError
from rheobase.stream.keys import Door, context_of
from rheobase.stream.pulse import counts

HEADER = struct.Struct("<4sBBBBIIIIQd")
MAGIC, VERSION = b"RHEO", 1
SAMPLES, SPEC, END = range(3)
HIGH_WATER = 1024
"""Messages that may wait on each side of a `block` edge."""
LARGEST = 1 << 28
"""Bytes: a larger frame is refused before memory is taken for it."""
LARGEST_SPEC = 1 << 24
"""Bytes of a spec: a longer one is refused before it is read."""
LAST = 1 << 62
"""Samples: a stream has no more."""
LAST_SEGMENT = 1 << 31
START = 120.0
"""s: until every process must be ready (finding streams and the first compilation included)."""
PATIENCE = 100
"""ms between two looks at whether a wait still makes sense."""

TIME = np.dtype("<f8")
KEPT = [np.dtype(d).newbyteorder("<") for d in DTYPES if d != "str"]


class Frame(NamedTuple):
    """What a message says. block for SAMPLES, spec for SPEC, seq for END."""

    kind: int
    seq: int
    virtual: bool = False
    block: Block | None = None
    spec: Spec | None = None


def pack(block: Block, dtype: str, stream: int = 0, virtual: bool = False) -> bytes:
    """A SAMPLES frame."""
    n, c = block.data.shape
    code = DTYPES.index(dtype)
    if dtype == "str":
        words = [str(w).encode(errors="replace") for w in block.data.ravel()]
        values = b"".join(struct.pack("<I", len(w)) + w for w in words)
    else:
        values = np.asarray(block.data, KEPT[code]).tobytes()
    first = block.times[0] if n else 0.0
    head = HEADER.pack(MAGIC, VERSION, SAMPLES, code, virtual, stream, n, c, block.segment, block.seq, first)
    return head + np.asarray(block.times, TIME).tobytes() + values


def pack_spec(spec: Spec, stream: int = 0, virtual: bool = False) -> bytes:
    """A SPEC frame."""
    said = {"rate": spec.rate, "channels": spec.channels, "unit": spec.unit, "delay": spec.delay, "dtype": spec.dtype}
    text = json.dumps(said).encode()
    return HEADER.pack(MAGIC, VERSION, SPEC, 0, virtual, stream, len(text), spec.n, 0, 0, 0.0) + text


def pack_end(seq: int, stream: int = 0) -> bytes:
    """An END frame: the next sample would have been number seq."""
    return HEADER.pack(MAGIC, VERSION, END, 0, 0, stream, 0, 0, 0, seq, 0.0)


def unpack(message: bytes, spec: Spec | None = None) -> Frame:
    """Read a message; spec, where known, is what its samples must be.

    Raises StreamError that says what is wrong with the frame.
    """
    if len(message) < HEADER.size:
        raise StreamError(f"frame of {len(message)} bytes is shorter than its header")
    magic, version, kind, code, flags, _, n, c, segment, seq, _ = HEADER.unpack_from(message)
    if magic != MAGIC or version != VERSION:
        raise StreamError(f"frame is not of this format (magic {magic!r}, version {version})")
    body = len(message) - HEADER.size
    if seq > LAST - n or segment > LAST_SEGMENT:
        raise StreamError(f"frame with a seq of {seq} and a segment of {segment}")
    if kind == END:
        return Frame(END, seq)
    if kind == SPEC:
        if body > LARGEST_SPEC:
            raise StreamError(f"frame with a spec of {body} bytes, more than {LARGEST_SPEC}")
        try:
            said = msgspec.json.decode(message[HEADER.size :], type=Spec)
            return Frame(SPEC, 0, bool(flags & 1), spec=said)
        except (StreamError, msgspec.MsgspecError, ValueError, RecursionError) as e:
            raise StreamError(f"frame with a damaged spec: {e}") from None
    if kind != SAMPLES or code >= len(DTYPES):
        raise StreamError(f"frame of unknown kind {kind} or dtype {code}")
    dtype = DTYPES[code]
    if spec is not None and (dtype, c) != (spec.dtype, spec.n):
        raise StreamError(f"frame has {c} channels of {dtype}, its stream has {spec.n} of {spec.dtype}")
    if dtype == "str":
        times, data = _texts(message, n, c)
    else:
        if body != n * (8 + c * KEPT[code].itemsize):
            raise StreamError(f"frame of {body} bytes does not hold {n} x {c} samples of {dtype}")
        times, data = _samples(message, code, n, c)
    return Frame(SAMPLES, seq, bool(flags & 1), Block(data, times, seq, segment))


def _samples(message: bytes, code: int, n: int, c: int) -> tuple[Array, Array]:
    # np.frombuffer takes twice as long
    times = np.ndarray((n,), TIME, message, HEADER.size)
    return times, np.ndarray((n, c), KEPT[code], message, HEADER.size + 8 * n)


def _texts(message: bytes, n: int, c: int) -> tuple[Any, Any]:
    at = HEADER.size + 8 * n
    if at + 4 * n * c > len(message):
        raise StreamError(f"frame of {len(message)} bytes does not hold {n} x {c} texts")
    times = np.frombuffer(message, "<f8", n, HEADER.size)
    words = np.empty(n * c, object)
    for i in range(n * c):
        if at + 4 > len(message):
            raise StreamError("frame ends within a text")
        (size,) = struct.unpack_from("<I", message, at)
        at += 4 + size
        if at > len(message):
            raise StreamError("frame ends within a text")
        words[i] = message[at - size : at].decode(errors="replace")
    if at != len(message):
        raise StreamError("frame goes on behind its last text")
    return times, words.reshape(n, c)


class Slot:
    """One count of an end of an edge, kept where a parent may read it (`rheobase.stream.pulse`)."""

    def __init__(self, k: int) -> None:
        self.k = k

    def __get__(self, end: Any, _: Any) -> int:
        return int(end.counts[self.k])

    def __set__(self, end: Any, n: int) -> None:
        end.counts[self.k] = n


SENDER_WORDS = ("sent", "lost", "missing", "waits", "next", "left")
RECEIVER_WORDS = ("received", "dropped", "gaps", "expected", "segment")
SENT, LOST, MISSING, WAITS, NEXT, LEFT = range(6)
RECEIVED, DROPPED, GAPS, EXPECTED, SEGMENT = range(5)


class Sender:
    """The sending end.

    Counts `sent` samples, `lost` ones (a block edge whose reader is gone), `missing` ones (that were not there to be
    sent: the reader sees a gap that is not the edge's), `waits` of a block edge, and `dropped` samples that an edge
    that never waits let go here.
    Waits up to `wait` s for its reader, so that the spec is there before the first sample. `heard`: one has come.
    """

    sent, lost, missing, waits, _next, dropped = map(Slot, range(6))

    def __init__(
        self,
        address: str,
        spec: Spec,
        policy: str = "block",
        keep: int = 0,
        stream: int = 0,
        virtual: bool = False,
        give_up: Callable[[], bool] = lambda: False,
        wait: float = START,
        door: Door | None = None,
        kept: memoryview[int] | None = None,
        name: str = "",
    ) -> None:
        self.address, self.spec, self.policy, self.stream, self.virtual = name or address, spec, policy, stream, virtual
        self.counts = counts() if kept is None else kept
        self._give_up = give_up
        self._late: deque[bytes] = deque(maxlen=keep or 1)
        self.heard = False
        self._socket: zmq.Socket[bytes] = context_of(door).socket(zmq.PUSH)
        self._socket.set(zmq.MAXMSGSIZE, 4096)  # handshakes are all that it hears
        if door:
            door.guard(self._socket, binds=True)
        # small marks let what is old be dropped here and not wait on the way
        self._socket.set(zmq.SNDHWM, {"block": HIGH_WATER, "latest": 1}.get(policy, keep))
        if policy == "latest":
            self._socket.set(zmq.CONFLATE, 1)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as e:
            self._socket.close(0)
            raise StreamError(f"cannot open {address}: {_why(e)}") from None
        self._late.append(pack_spec(spec, stream, virtual))
        self.flush(wait)

    def send(self, block: Block) -> None:
        """Send samples, by the edge's policy."""
        done = self._push(pack(block, self.spec.dtype, self.stream, self.virtual))
        n, count = len(block), self.counts
        if block.seq > count[NEXT]:
            count[MISSING] += block.seq - count[NEXT]
        count[NEXT] = block.seq + n
        count[SENT] += n
        if not done:
            count[LOST] += n

    def say_spec(self) -> None:
        """Say the spec again, for a reader who came late."""
        self._push(pack_spec(self.spec, self.stream, self.virtual))

    def _push(self, message: bytes) -> bool:
        socket = self._socket
        if self.policy == "block":
            try:
                socket.send(message, zmq.DONTWAIT)
            except zmq.Again:
                self.waits += 1
                while self._give_up() or not socket.poll(PATIENCE, zmq.POLLOUT):
                    if self._give_up():
                        return False
                socket.send(message)
            return True
        if len(self._late) == self._late.maxlen:
            self._drop()
        self._late.append(message)
        self.flush()
        return True

    def _drop(self) -> None:
        """The oldest of what is kept."""
        _, _, kind, _, _, _, n, *_ = HEADER.unpack_from(self._late.popleft())
        self.dropped += n if kind == SAMPLES else 0

    def abandon(self) -> None:
        """What is still kept will not leave any more: it counts as dropped."""
        while self._late:
            self._drop()

    def end(self, patience: float = 2.0) -> None:
        """Say the end; where the policy never waits, try for `patience` s to get rid of what is kept."""
        end = pack_end(self._next, self.stream)
        if self.policy == "block":
            self._push(end)
            return
        self._late = deque([*self._late, end])
        self.flush(patience)

    @property
    def behind(self) -> bool:
        """Whether the reader has left no room for what is kept."""
        return bool(self._late)

    def flush(self, patience: float = 0.0) -> None:
        """Send what is kept (edges that drop keep some), waiting up to `patience` s for a reader to take it."""
        until = clock.now() + patience
        while self._late:
            try:
                self._socket.send(self._late[0], zmq.DONTWAIT)
                self._late.popleft()
                self.heard = True
            except zmq.Again:
                left = until - clock.now()
                if left <= 0 or self._give_up():
                    return
                self._socket.poll(int(min(PATIENCE, left * 1000)), zmq.POLLOUT)

    def close(self, linger: float = 0.0) -> None:
        """Close, at the latest `linger` s after what was sent has left.

        On an ipc edge call this only when the reader has come to the end: libzmq 4.3.5 forgets what lies between
        the two when the sender closes while the reader is at its high-water mark, whatever the linger.
        """
        self._socket.close(int(linger * 1000))


class Receiver:
    """The receiving end. Counts `received` and `dropped` samples and `gaps` (times that some were missing).

    A gap opens a segment: what is behind the edge must not run on over missing samples.

    name  what the edge is called in counts and messages (default: its address)
    kept  the counts of a reader before, which this one goes on for
    spec  its Spec, for a reader who comes after it was said
    """

    received, dropped, gaps, _expected, _segment = map(Slot, range(5))

    def __init__(
        self,
        address: str,
        policy: str = "block",
        keep: int = 0,
        door: Door | None = None,
        kept: memoryview[int] | None = None,
        spec: tuple[Spec, bool] | None = None,
        name: str = "",
    ) -> None:
        self.address, self.policy = name or address, policy
        self.spec: Spec | None = None
        self.virtual = self.ended = False
        self.counts = counts() if kept is None else kept
        self._shift = 0
        self._anew = bool(self.counts[RECEIVED])  # what the one before did with its last samples, nobody knows
        self._usual: tuple[Any, ...] = ()
        self._kept: deque[bytes] = deque(maxlen=keep or None)
        self._door, self._keep = door, keep
        if spec:
            self._begin(*spec)
        self._connect(address)

    def _connect(self, address: str) -> None:
        self._timeout = 0
        self.socket: zmq.Socket[bytes] = context_of(self._door).socket(zmq.PULL)
        self.socket.set(zmq.RCVHWM, {"block": HIGH_WATER, "latest": 1}.get(self.policy, self._keep))
        self.socket.set(zmq.MAXMSGSIZE, LARGEST)
        if self.policy == "latest":
            self.socket.set(zmq.CONFLATE, 1)
        if self._door:
            self._door.guard(self.socket, binds=False)
        self.socket.connect(address)

    def _begin(self, spec: Spec, virtual: bool) -> None:
        self.spec, self.virtual = spec, virtual
        if spec.dtype != "str" and not self._anew:
            self._usual = (MAGIC, VERSION, SAMPLES, DTYPES.index(spec.dtype), spec.n)

    def wait_spec(self, timeout: float, give_up: Callable[[], bool] = lambda: False) -> Spec:
        """The stream's Spec, which comes before its samples.

        Raises StreamError when none came in `timeout` s.
        """
        if self.spec is not None:
            return self.spec
        for _ in range(max(1, int(timeout * 1000 / PATIENCE))):
            if give_up():
                raise StreamError(f"stopped before anything came on {self.address}")
            if self.socket.poll(PATIENCE):
                self._take(self.socket.recv())
                if self.spec is not None:
                    return self.spec
        raise StreamError(f"nothing came on {self.address} within {timeout:g} s")

    def receive(self, timeout: float = 0.1) -> Block | None:
        """The next block; None when none came in `timeout` s, and at the end (then `ended` is True).

        Raises StreamError on a damaged frame.
        """
        socket = self.socket
        if self.policy == "drop_oldest":
            with contextlib.suppress(zmq.Again):
                while True:
                    self._kept.append(socket.recv(zmq.DONTWAIT))
            if self._kept:
                return self._take(self._kept.popleft())
        if timeout <= 0:
            try:
                return self._take(socket.recv(zmq.DONTWAIT))
            except zmq.Again:
                return None
        ms = max(1, int(timeout * 1000))
        if ms != self._timeout:
            self._timeout = ms
            socket.set(zmq.RCVTIMEO, ms)
        try:
            return self._take(socket.recv())
        except zmq.Again:
            return None

    def pending(self, ms: int = 0) -> bool:
        """Whether a message is there, or comes within so many ms."""
        return bool(self._kept) or bool(self.socket.poll(ms))

    @property
    def waiting(self) -> bool:
        """Whether messages were taken from the socket and not yet given."""
        return bool(self._kept)

    def _take(self, message: bytes) -> Block | None:
        if len(message) > HEADER.size:
            # nearly every message is the next samples of a known stream, and takes the short way
            magic, version, kind, code, _, _, n, c, segment, seq, _ = HEADER.unpack_from(message)
            count = self.counts
            usual = (magic, version, kind, code, c) == self._usual and seq == count[EXPECTED]
            if usual and len(message) == HEADER.size + n * (8 + c * KEPT[code].itemsize):
                segment += self._shift
                count[EXPECTED] = seq + n
                count[RECEIVED] += n
                count[SEGMENT] = segment
                times, data = _samples(message, code, n, c)
                return Block(data, times, seq, segment)
        try:
            frame = unpack(message, self.spec)
        except StreamError as e:
            raise StreamError(f"edge {self.address}: {e}") from None
        if frame.kind == SPEC:
            assert frame.spec
            if self.spec is None:
                self._begin(frame.spec, frame.virtual)
            elif self.spec != frame.spec:
                raise StreamError(f"edge {self.address}: its stream became another one")
            return None
        missed = frame.seq - self._expected
        if missed or self._anew:
            # it goes back where the sender began anew; no count may run over, whatever a frame says
            self.dropped = min(self.dropped + max(0, missed), LAST)
            self.gaps += bool(missed)
            # a sender that began anew counts its segments anew, too
            segment = frame.block.segment if frame.block else 0
            self._shift = max(self._shift + 1, self._segment + 1 - segment)
            self._expected = frame.seq
            if self._anew and self.spec:
                self._anew = False
                self._begin(self.spec, self.virtual)
        if frame.block is None:
            self.ended = True
            return None
        block = frame.block
        self._expected += len(block)
        self.received += len(block)
        self._segment = block.segment + self._shift
        if self._segment > LAST_SEGMENT:
            raise StreamError(f"edge {self.address}: its segments go up and down: there are no numbers left")
        return block.replace(segment=self._segment) if self._shift else block

    def move(self, address: str) -> None:
        """Go on with a sender that began anew at another address, once all of the one before has been taken.

        A new socket, so that nothing of the old connection meets the new one.
        """
        self.socket.close(0)
        self._anew, self._usual = True, ()
        self._connect(address)

    def close(self) -> None:
        self.socket.close(0)


def _why(e: zmq.ZMQError) -> str:
    return "the port is in use" if e.errno == zmq.EADDRINUSE else str(e)
