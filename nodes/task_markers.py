"""Events of a task as words, for `lsl_out` and for a recording."""

from __future__ import annotations

import json

import numpy as np

from rheobase.nodes.task import ACQUIRED, TIMEOUT, WRONG
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.node import Node

WORDS = {ACQUIRED: "acquired", TIMEOUT: "timeout", WRONG: "wrong"}
"""What a trial's outcome is called."""


class TaskMarkers(Node):
    """What a task does, as words, where it happens.

    {"event": "target", "number": trial, "x": m, "y": m} at the first sample of a trial, x, y the target's centre;
    "acquired", "timeout" or "wrong" at its last. JSON, one a sample, as LSL's marker streams are.

    Errors: an input that is not the stream of a `task`.
    """

    def start(self, x: Spec) -> Spec:
        missing = {"number", "outcome", "target_x", "target_y"} - set(x.channels)
        if missing:
            raise StreamError(f"in: takes the stream of a task; the input has no {', '.join(sorted(missing))}")
        self.number = self.seq = 0
        self.columns = [x.channels.index(c) for c in ("number", "outcome", "target_x", "target_y")]
        return Spec(rate=0, channels=("marker",), delay=x.delay, dtype="str")

    def process(self, x: Block) -> Block | None:
        known = np.flatnonzero(np.isfinite(x.data[:, self.columns]).all(axis=1))
        rows, at = x.data[known][:, self.columns], x.times[known]
        words: list[str] = []
        times: list[float] = []
        begins = np.diff(rows[:, 0], prepend=self.number) != 0
        for i in np.flatnonzero(begins | (rows[:, 1] > 0)):
            number, outcome, target_x, target_y = rows[i].tolist()
            events = ["target"] if begins[i] else []
            events += [WORDS[int(outcome)]] if outcome in WORDS else []
            about = {"number": int(number), "x": round(target_x, 4), "y": round(target_y, 4)}
            words += [json.dumps({"event": e, **about}) for e in events]
            times += [at[i]] * len(events)
        self.number = rows[-1, 0] if len(rows) else self.number
        self.seq += len(words)
        if not words:
            return None
        return Block(np.array(words, object)[:, None], np.array(times), self.seq - len(words), x.segment)
