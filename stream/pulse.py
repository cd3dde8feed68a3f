"""What a process does just now, and what it has counted, where its parent can read it though the process is dead.

A small file, mapped into both. The process writes with plain stores (some 20 ns each), so that after SIGKILL, a
segmentation fault, or while it hangs, the parent knows the node, the sample, and how far every edge had come.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

from rheobase.stream.block import Block

BEAT, SINCE, NODE, SEQ, TIME = range(5)
"""Slots: ns of the clock at the last beat of the watch; since when the engine is at its present block, ns (0: it
waits for one); number of the node that has it; seq and time (float64, s) of its first sample."""
FIRST, SLOTS = 8, 6
"""Where the counts of edges begin, and how many there are for each."""


class Pulse:
    """The page of one process. path None: memory that nobody else reads."""

    def __init__(self, path: Path | None, edges: int = 0) -> None:
        size = 8 * (FIRST + SLOTS * edges)
        if path is None:
            whole: Any = memoryview(bytearray(size))
        else:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if os.fstat(file).st_size < size:
                    os.ftruncate(file, size)
                whole = memoryview(mmap.mmap(file, size))
            finally:
                os.close(file)
        self.slots: memoryview[int] = whole.cast("q")
        self._times: memoryview[float] = whole.cast("d")

    def at(self, node: int, x: Block) -> None:
        """This node has this block."""
        slots = self.slots
        slots[NODE], slots[SEQ] = node, x.seq
        self._times[TIME] = x.times[0]

    def edge(self, k: int) -> memoryview[int]:
        """The counts of edge k, for one of its ends."""
        first = FIRST + SLOTS * k
        return self.slots[first : first + SLOTS]

    def where(self) -> tuple[int, int, float]:
        """Number of the node that had the last block, seq and time of its first sample."""
        return self.slots[NODE], self.slots[SEQ], self._times[TIME]


def counts() -> memoryview[int]:
    """Slots for one end of an edge that nobody watches."""
    return memoryview(bytearray(8 * SLOTS)).cast("q")
