"""An edge between two processes of one host, in memory that both see: a ring of bytes, and futexes to wait on.

The frames are those of `link.py`, each behind its length (int64). One writes and moves `head`, the other reads and
moves `tail`; a block is copied twice, and one wake-up is all that lies between the two (ZeroMQ takes three). A reader
of several rings sleeps on one word, its `Bell`, which every writer changes. Nothing is lost where either side dies:
what lies in the ring stays there for who comes next. The two ends that use it are in `shared.py`.

Plain loads and stores, in the order in which they stand here, are enough where the processor keeps that order (x86-64,
`able()`); elsewhere, and for policies that drop, edges go by ZeroMQ.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

from rheobase.stream.block import StreamError
from rheobase.stream.link import HIGH_WATER, LARGEST, PATIENCE, START

SIZE = 1 << 26
"""Bytes of a ring. Pages that were never reached take no memory."""
HOT = 1 << 18
"""Bytes after which a ring that is empty begins at its start again, so that it stays in the cache."""
FAR = 1 << 20
"""Bytes after which it also gives back the memory that it no longer needs."""
SMALL = 1 << 13
"""Bytes of a message up to which its parts are put together first: to copy twice takes less than to write each."""
MOST = 2 * HIGH_WATER
"""Messages that may wait, as many as ZeroMQ keeps at its two ends."""

_HEAD, _WRITTEN, _SLEEPS, _TAIL, _READ = 0, 1, 2, 16, 17
"""Slots of 8 bytes: bytes and messages written, whether the writer sleeps; bytes and messages read. What the reader
writes lies in another cache line."""
_SPACE = 96
"""Index, in words of 4 bytes, of the word that a writer sleeps on."""
_FIRST = 512
"""Where the ring begins."""
_AGAIN = -1
"""In the place of a length: go on at the start of the ring."""

_FUTEX, _WAIT, _WAKE = 202, 0, 1


class _Span(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]


if sys.platform == "linux":
    _syscall = ctypes.CDLL(None).syscall
    _kinds: list[Any] = [ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p]
    _syscall.argtypes = [*_kinds, ctypes.c_long, ctypes.c_long]
    _syscall.restype = ctypes.c_long


def able() -> bool:
    """Whether rings work on this machine, and may be as large as they are (`ulimit -f` holds for memory, too)."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    file = os.memfd_create("rheo")
    try:
        os.ftruncate(file, _FIRST + SIZE)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


class Word:
    """A word of 4 bytes that processes sleep on and wake each other by."""

    def __init__(self, memory: Any, index: int) -> None:
        self._words = memoryview(memory).cast("I")
        self._index = index
        self._address = ctypes.addressof(ctypes.c_uint32.from_buffer(memory, 4 * index))
        self._span = _Span()
        self._timeout = ctypes.byref(self._span)

    def value(self) -> int:
        """Read it before looking for what it tells of."""
        return self._words[self._index]

    def ring(self) -> None:
        """Wake who sleeps. The time is the value: two writers who came at once would count the same."""
        self._words[self._index] = time.monotonic_ns() & 0xFFFFFFFF
        _syscall(_FUTEX, self._address, _WAKE, 0x7FFFFFFF, None, 0, 0)

    def wait(self, seen: int, seconds: float) -> None:
        """Sleep until it is no longer `seen`, or so long. Without the GIL."""
        self._span.s, self._span.ns = divmod(int(seconds * 1e9), 1_000_000_000)
        _syscall(_FUTEX, self._address, _WAIT, seen, self._timeout, 0, 0)


class Bell(Word):
    """What a process sleeps on that reads rings."""

    def __init__(self, path: str) -> None:
        super().__init__(_mapped(path, mmap.PAGESIZE), 0)


def _mapped(path: str, size: int) -> mmap.mmap:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(file).st_size < size:
                os.ftruncate(file, size)
            return mmap.mmap(file, size)
        finally:
            os.close(file)
    except OSError as e:
        raise StreamError(f"cannot open {path}: {e.strerror}") from None


class Ring:
    """One writer, one reader."""

    def __init__(self, path: str, bell: str) -> None:
        self._memory = memory = _mapped(path, _FIRST + SIZE)
        self._slots = memoryview(memory)[:_FIRST].cast("q")
        self._bytes = memoryview(memory)[_FIRST:]
        self.size = len(self._bytes)
        self.space = Word(memory, _SPACE)
        self.bell = Bell(bell)

    # --- the writer

    def write(self, parts: tuple[Any, ...], stop: Callable[[], bool]) -> bool:
        """A message in parts. Waits for space; False where `stop` says that nobody will make any."""
        slots = self._slots
        length = sum(len(p) for p in parts)
        need = length + 32 if length + 32 <= self.size // 2 else 0  # larger ones go piece by piece
        while True:
            seen = self.space.value()
            if slots[_WRITTEN] - slots[_READ] < MOST and self.size - (slots[_HEAD] - slots[_TAIL]) >= need:
                break
            if stop():
                return False
            self._sleep(seen)
        head = slots[_HEAD]
        at = head % self.size
        if need and at > max(HOT, 2 * need) and head == slots[_TAIL]:  # what is left out is taken until it is passed
            if at > FAR:
                with contextlib.suppress(OSError):  # a file system that cannot
                    self._memory.madvise(mmap.MADV_REMOVE, HOT)
            self._put(head, _AGAIN.to_bytes(8, "little", signed=True))
            head += self.size - at
        parts = (length.to_bytes(8, "little"), *parts)
        for part in parts if length > SMALL else (b"".join(parts),):
            done = self._write(head, part, stop)
            if done < 0:
                return False
            head = done
        head += -head % 8
        slots[_HEAD] = head
        slots[_WRITTEN] += 1
        self.bell.ring()
        return True

    def _sleep(self, seen: int) -> None:
        """Until the reader has made space, or for a while."""
        self._slots[_SLEEPS] = 1
        self.space.wait(seen, PATIENCE / 1000)
        self._slots[_SLEEPS] = 0

    def _write(self, head: int, part: Any, stop: Callable[[], bool]) -> int:
        """Copy a part; one that is larger than the ring piece by piece, as they are taken. Where it ends, or -1."""
        slots, size = self._slots, self.size
        free = size - (head - slots[_TAIL]) - 16
        if len(part) <= free:
            self._put(head, part)
            return head + len(part)
        at = 0
        while at < len(part):
            seen = self.space.value()
            free = size - (head - slots[_TAIL]) - 16
            if free <= 0:
                slots[_HEAD] = head
                self.bell.ring()
                if stop():
                    return -1
                self._sleep(seen)
                continue
            n = min(free, len(part) - at)
            self._put(head, part[at : at + n])
            head, at = head + n, at + n
        return head

    def _put(self, head: int, part: Any) -> None:
        at = head % self.size
        end = at + len(part)
        if end <= self.size:
            self._bytes[at:end] = part
        else:
            cut = self.size - at
            self._bytes[at:] = part[:cut]
            self._bytes[: end - self.size] = part[cut:]

    # --- the reader

    @property
    def waiting(self) -> bool:
        return self._slots[_HEAD] != self._slots[_TAIL]

    def read(self) -> bytes | None:
        """The next message, if there is one. Raises StreamError where what lies there is none."""
        slots = self._slots
        tail, head = slots[_TAIL], slots[_HEAD]
        if head == tail:
            return None
        length = int.from_bytes(self._get(tail, 8), "little", signed=True)
        if length == _AGAIN:
            tail += self.size - tail % self.size
            slots[_TAIL] = tail
            head = slots[_HEAD]
            if head == tail:
                return None
            length = int.from_bytes(self._get(tail, 8), "little", signed=True)
        if not 0 <= length <= LARGEST:
            raise StreamError(f"a message of {length} bytes")
        end = tail + 8 + length
        if head >= end:
            message = self._get(tail + 8, length)
        else:
            message = self._rest(tail + 8, length)
        end += -end % 8
        slots[_TAIL] = end
        slots[_READ] += 1
        if slots[_SLEEPS]:
            self.space.ring()
        return message

    def _get(self, at: int, n: int) -> bytes:
        at %= self.size
        if at + n <= self.size:
            return bytes(self._bytes[at : at + n])
        return bytes(self._bytes[at:]) + bytes(self._bytes[: at + n - self.size])

    def _rest(self, at: int, n: int) -> bytes:
        """A message that is still being written, or never will be to its end: then its writer died in it."""
        slots, got, until = self._slots, bytearray(), time.monotonic() + START
        while len(got) < n:
            seen = self.bell.value()
            there = min(slots[_HEAD] - at, n - len(got))
            if there <= 0:
                if time.monotonic() > until:
                    raise StreamError("a message has no end")
                self.bell.wait(seen, PATIENCE / 1000)
                continue
            got += self._get(at, there)
            at += there
            slots[_TAIL] = at
            self.space.ring()
        return bytes(got)
