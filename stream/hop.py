"""What nearly every message of a ring (`ring.py`) takes, compiled: put it in, sleep until one is there, take it out.

All arguments are addresses and sizes in bytes, so there is one signature for every kind of samples. Head, tail and the
counts are loaded and stored atomically, in the order in which they stand here; the wake-up is a read-modify-write of
the word slept on, then a futex. Whatever is not the usual (a message larger than half of the ring, a spec, an end, one
that is still being written) is left to `ring.py`.

With jit off this file is not imported, and `ring.py` does everything.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rheobase.stream.link import HEADER as _HEADER
from rheobase.stream.ring import AGAIN, FIRST, FUTEX, HEAD, READ, SLEEPS, SPACE, TAIL, WAIT, WAKE, WRITTEN

HEADER = _HEADER.size
"""Bytes of the header of a frame; n (uint32) stands at 12."""

EMPTY, OTHER = -1, -2
"""Of `peek`: nothing lies there; what lies there is not the usual."""

_int = types.intp
_copy = types.ExternalFunction("memcpy", _int(_int, _int, _int))
_call = types.ExternalFunction("syscall", _int(_int, _int, _int, _int, _int, _int, _int))


@intrinsic  # type: ignore[untyped-decorator]
def _load(typing: Any, at: Any) -> Any:
    """The int64 at an address, and no later load before it."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(where, "acquire", 8)

    return types.int64(types.intp), code


@intrinsic  # type: ignore[untyped-decorator]
def _store(typing: Any, at: Any, x: Any) -> Any:
    """x to an address, and no earlier store behind it."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        builder.store_atomic(args[1], where, "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), code


@intrinsic  # type: ignore[untyped-decorator]
def _word(typing: Any, at: Any) -> Any:
    """The uint32 at an address."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        return builder.load_atomic(where, "seq_cst", 4)

    return types.uint32(types.intp), code


@intrinsic  # type: ignore[untyped-decorator]
def _count(typing: Any, at: Any) -> Any:
    """One more in the uint32 at an address, a barrier for all that stands before and behind."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        where = builder.inttoptr(args[0], ir.IntType(32).as_pointer())
        return builder.atomic_rmw("add", where, ir.Constant(ir.IntType(32), 1), "seq_cst")

    return types.uint32(types.intp), code


def _compiled(signature: Any) -> Any:
    return numba.njit(signature, nogil=True, cache=True, error_model="numpy")


@_compiled(types.void(_int))
def _ring(word):
    _count(word)
    _call(FUTEX, word, WAKE, 0x7FFFFFFF, 0, 0, 0)


@_compiled(_int(_int, _int, _int, _int, _int))
def _in(ring, size, at, x, n):
    """n bytes from x to place `at` of the ring, around its end. Where they end."""
    here = at % size
    cut = min(n, size - here)
    _copy(ring + here, x, cut)
    if cut < n:
        _copy(ring, x + cut, n - cut)
    return at + n


@_compiled(_int(_int, _int, _int, _int, _int))
def _out(ring, size, at, x, n):
    """n bytes from place `at` of the ring to x."""
    here = at % size
    cut = min(n, size - here)
    _copy(x, ring + here, cut)
    if cut < n:
        _copy(x + cut, ring, n - cut)
    return at + n


@_compiled(_int(_int, _int, _int, _int, _int, _int, _int, _int, _int, _int))
def put(memory, size, bell, most, hot, header, times, n_times, data, n_data):
    """Header, times and data as one message, and ring the bell. 1; 0 where it has no room (now)."""
    ring = memory + FIRST
    length = HEADER + n_times + n_data
    head, tail = _load(memory + 8 * HEAD), _load(memory + 8 * TAIL)
    written = _load(memory + 8 * WRITTEN)
    if length + 32 > size // 2 or size - (head - tail) < length + 32 or written - _load(memory + 8 * READ) >= most:
        return 0
    if head % size > hot and head == tail:
        _store(ring + head % size, AGAIN)
        head += size - head % size
    _store(ring + head % size, length)
    end = _in(ring, size, head + 8, header, HEADER)
    end = _in(ring, size, end, times, n_times)
    end = _in(ring, size, end, data, n_data)
    _store(memory + 8 * HEAD, end + -end % 8)
    _store(memory + 8 * WRITTEN, written + 1)
    _ring(bell)
    return 1


@_compiled(_int(_int, _int, _int, _int, _int, _int, _int))
def peek(memory, size, bell, ns, header, start, each):
    """The header of the next message to `header`, and its number of samples, where it is whole, its first 8 bytes are
    `start` and each of its samples has `each` bytes; EMPTY where none comes within ns, else OTHER."""
    ring = memory + FIRST
    seen = _word(bell)
    tail, head = _load(memory + 8 * TAIL), _load(memory + 8 * HEAD)
    if head == tail:
        if ns <= 0:
            return EMPTY
        span = np.array([ns // 1_000_000_000, ns % 1_000_000_000])
        _call(FUTEX, bell, WAIT, seen, span.ctypes.data, 0, 0)
        head = _load(memory + 8 * HEAD)
        if head == tail:
            return EMPTY
    length = _load(ring + tail % size)
    if length == AGAIN:
        tail += size - tail % size
        _store(memory + 8 * TAIL, tail)
        if head == tail:
            return EMPTY
        length = _load(ring + tail % size)
    if length < HEADER or head - tail < 8 + length:
        return OTHER
    _out(ring, size, tail + 8, header, HEADER)
    n = np.int64(_word(header + 12))
    if _load(header) != start or length != HEADER + n * each:
        return OTHER
    return n


@_compiled(types.void(_int, _int, _int, _int, _int, _int))
def fetch(memory, size, times, n_times, data, n_data):
    """Times and data of the message that was looked at, and it is gone from the ring."""
    tail = _load(memory + 8 * TAIL)
    end = _out(memory + FIRST, size, tail + 8 + HEADER, times, n_times)
    end = _out(memory + FIRST, size, end, data, n_data)
    _store(memory + 8 * TAIL, end + -end % 8)
    _store(memory + 8 * READ, _load(memory + 8 * READ) + 1)
    if _load(memory + 8 * SLEEPS):
        _ring(memory + 4 * SPACE)
