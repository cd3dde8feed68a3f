"""A new model for a decoder that runs: put in between two samples, noted, and put in again there by a replay."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.fuse import Loop
from rheobase.stream.node import Kernel, blame

LOG = "swaps.jsonl"
"""File of a run directory: a line for each `Swap`, in the order they were made."""


class Swap(msgspec.Struct):
    """From the first sample at or after `time` s of that segment on, `node` goes by the file `model`.

    The model's path is relative to the run directory where it lies inside.
    """

    node: str
    model: str
    segment: int
    time: float


class Swaps:
    """The swaps of one loop.

    inputs   Spec of what each kernel of the loop takes
    planned  swaps to make again where they were made, in order of time (a replay)
    folder   run directory, where those made live are noted
    """

    def __init__(self, loop: Loop, inputs: Sequence[Spec], planned: Sequence[Swap], folder: Path | None) -> None:
        self.loop, self.inputs, self.folder = loop, inputs, folder
        self.names = [k.name for k in loop.kernels]
        self.planned = [s for s in planned if s.node in self.names]
        self.given: list[tuple[int, str, Kernel]] = []
        self.last = -1, 0.0
        self.lock = threading.Lock()
        self.made: dict[str, int] = {}
        self.models: dict[str, str] = {}

    def give(self, name: str, model: str) -> None:
        """Swap this in before the next block. From any thread. Raises StreamError where it does not suit."""
        i = self.names.index(name)
        fresh = self._fresh(i, model)
        with self.lock:
            self.given.append((i, model, fresh))

    def through(self, x: Block) -> Iterator[Block]:
        """The block, cut where a model changes: when a piece is given, the models are those it goes by.

        A swap is noted by the time of its first sample: so of samples of one time all go by the same model.
        """
        segment, time = self.last
        self.last = x.segment, float(x.times[-1])
        k = int(np.searchsorted(x.times, time, "right")) if self.given and x.segment == segment else 0
        if self.given and k < len(x):
            if k:
                yield x.cut(0, k)
                x = x.cut(k, len(x))
            with self.lock:
                given, self.given = self.given, []
            for i, model, fresh in given:
                self._note(Swap(self.names[i], self._inside(model), x.segment, float(x.times[0])))
                self._make(i, fresh)
        while self.planned and self.planned[0].segment <= x.segment:
            first = self.planned[0]
            k = int(np.searchsorted(x.times, first.time)) if first.segment == x.segment else 0
            if k == len(x):
                break
            if k:
                yield x.cut(0, k)
            i = self.names.index(first.node)
            self._make(i, self._fresh(i, first.model))
            self.planned.pop(0)
            x = x.cut(k, len(x))
        yield x

    def _fresh(self, i: int, model: str) -> Kernel:
        """The kernel, started with this model file."""
        node: Kernel = self.loop.kernels[i]
        if "model" not in node.parameters():
            raise StreamError(f"node {node.name!r} has no model to swap")
        if not getattr(node, "replaceable", True):
            raise StreamError(f"node {node.name!r} takes no other model while it runs: restart the graph")
        fresh = type(node)(**{k: getattr(node, k) for k in node.parameters()} | {"model": model})
        fresh.name = node.name
        with blame(fresh):
            out = fresh.start(self.inputs[i])
            then = self.loop.specs[i]
            if out is None or (out.channels, out.unit) != (then.channels, then.unit) or fresh.step is not node.step:
                raise StreamError(f"model {model}: gives {out}, the one that runs gives {then}: restart the graph")
            self.loop.suits(i, fresh.params, fresh.state)
        return fresh

    def _make(self, i: int, fresh: Kernel) -> None:
        self.loop.swap(i, fresh.params, fresh.state)
        self.made[self.names[i]] = self.made.get(self.names[i], 0) + 1
        self.models[self.names[i]] = fresh.model  # type: ignore[attr-defined]

    def _inside(self, model: str) -> str:
        path = Path(model).resolve()
        home = self.folder.resolve() if self.folder else None
        return str(path.relative_to(home) if home and path.is_relative_to(home) else path)

    def _note(self, swap: Swap) -> None:
        if self.folder is None:
            return
        line = msgspec.json.encode(swap) + b"\n"
        # one write, for another process of the run may note one too
        file = os.open(self.folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line)
        finally:
            os.close(file)


def swaps(folder: Path) -> list[Swap]:
    """The swaps of a run, in order of time, its models by their full paths.

    Raises StreamError where the file that says so is damaged.
    """
    path = folder / LOG
    if not path.exists():
        return []
    try:
        found = msgspec.json.decode(b"[" + b",".join(path.read_bytes().splitlines()) + b"]", type=list[Swap])
    except (OSError, msgspec.MsgspecError) as e:
        raise StreamError(f"{path}: {e}") from None
    for s in found:
        s.model = str(folder / s.model)
    return sorted(found, key=lambda s: (s.segment, s.time))
