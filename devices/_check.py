"""Checksums in a recording: what lies on the disk is what was written, or it is said."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CHECK = 0x5243
"""Tag of a chunk of ours, which other readers of XDF skip: it lies behind all that was written at once."""
_HEAD = struct.Struct("<IQI")
_ROW = struct.Struct("<qqq")


class Check(NamedTuple):
    """The bytes from `start` to `end` of a file, and what they must be.

    crc     CRC-32 (zlib's) of them and of the totals after them
    totals  for each stream: samples recorded so far, seq of the next one, segment of the last
    """

    start: int
    end: int
    crc: int
    totals: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, data: bytes, totals: tuple[tuple[int, int, int], ...]) -> Check:
        """That of what is written at once."""
        return cls(0, len(data), zlib.crc32(_rows(totals), zlib.crc32(data)), totals)

    def pack(self) -> bytes:
        """The content of its chunk: uint32 crc, uint64 bytes, uint32 streams, and three int64 for each."""
        return _HEAD.pack(self.crc, self.end - self.start, len(self.totals)) + _rows(self.totals)

    @classmethod
    def unpack(cls, raw: bytes | mmap.mmap, at: int, body: int, end: int) -> Check:
        """From the chunk at `at`, whose content lies from `body` to `end`. Raises ValueError or struct.error."""
        crc, size, n = _HEAD.unpack_from(raw, body)
        if end - body != _HEAD.size + n * _ROW.size or size > at:
            raise ValueError(f"a checksum of {size} bytes and {n} streams")
        totals = tuple((a, b, c) for a, b, c in _ROW.iter_unpack(raw[body + _HEAD.size : end]))
        return cls(at - size, at, crc, totals)

    def holds(self, raw: bytes | mmap.mmap) -> bool:
        """Whether the bytes are those that were written. (A file of before has a CRC of them without the totals.)"""
        with memoryview(raw) as whole:
            crc = zlib.crc32(whole[self.start : self.end])
        return self.crc in (zlib.crc32(_rows(self.totals), crc), crc)


def _rows(totals: tuple[tuple[int, int, int], ...]) -> bytes:
    return b"".join(_ROW.pack(*row) for row in totals)


_SEEN: dict[tuple[str, int, int], int] = {}


def first_damage(path: Path, raw: bytes | mmap.mmap, checks: Sequence[Check]) -> int:
    """Where the first bytes begin that are not what they were; -1: nowhere. Read once for each state of a file."""
    stat = path.stat()
    key = str(path), stat.st_size, stat.st_mtime_ns
    if key not in _SEEN:
        _SEEN.clear()
        _SEEN[key] = next((c.start for c in checks if not c.holds(raw)), -1)
    return _SEEN[key]
