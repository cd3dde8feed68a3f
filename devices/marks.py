"""Event marks that the experimenter types into the window."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from rheobase.stream.block import Block, Spec
from rheobase.stream.clock import now
from rheobase.stream.node import Source

IDLE = 0.1
"""s between two looks whether it has ended."""


class Marks(Source):
    """Words from the keyboard, each at the time at which its key was pressed: a stream like any other, so that it can
    be recorded, sent out, drawn and replayed.

        marks: {type: marks, process: view}
        view:  {type: view, in: [task, rates, marks], process: view}
        out:   {type: lsl_out, in: marks, stream: Marks, process: view}
        rec:   {type: record, in: [array, task, marks], process: record}

    It stands in the process of the window: in a window, Enter opens a line to write in, and 1 to 9 are marks at once.
    It has no end of its own: a run with it ends with `--for` or Ctrl-C.
    """

    spare: ClassVar[bool] = True
    here: ClassVar[list[Marks]] = []
    """Those that run in this process."""

    def start(self, *inputs: Spec) -> Spec:
        self.stop()
        self.typed: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        self.ended = threading.Event()
        Marks.here.append(self)
        return Spec(rate=0, channels=("mark",), dtype="str")

    def blocks(self) -> Iterator[Block | None]:
        seq = 0
        while not self.ended.is_set():
            try:
                t, word = self.typed.get(timeout=IDLE)
            except queue.Empty:
                yield None
                continue
            yield Block(np.array([[word]], object), np.array([t]), seq)
            seq += 1

    def stop(self) -> None:
        if self in Marks.here:
            Marks.here.remove(self)
        if hasattr(self, "ended"):
            self.ended.set()


def write(word: str) -> bool:
    """A mark, now, to every such node of this process; False: there is none."""
    t = now()
    for node in Marks.here:
        node.typed.put((t, word))
    return bool(Marks.here)
