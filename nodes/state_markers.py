"""Entries of states as words, for `lsl_out` and for a recording."""

from __future__ import annotations

import json

import numpy as np

from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.node import Node


class StateMarkers(Node):
    """Each entry of a state, as a word where it happens.

    {"event": "state", "state": 2, "from": 0, "after": 1.35, "p": 0.93} at the first sample of state 2, which came after
    1.35 s of state 0 (the first state of a segment came of none: null); p is its posterior there. JSON, one a sample,
    as LSL's marker streams are. The times are those of the samples: where states are `lag` bins late, so are these, and
    the stream's delay says so.

    Errors: an input that is not the stream of an `hmm_glm`.
    """

    def start(self, x: Spec) -> Spec:
        if "state" not in x.channels or "p0" not in x.channels:
            raise StreamError("in: takes the stream of an hmm_glm; the input has no channels 'state' and 'p0'")
        self.column, self.first = x.channels.index("state"), x.channels.index("p0")
        self.state, self.since, self.segment, self.seq = -1, np.nan, 0, 0
        return Spec(rate=0, channels=("marker",), delay=x.delay, dtype="str")

    def process(self, x: Block) -> Block | None:
        if x.segment != self.segment:
            self.state, self.segment = -1, x.segment
        states = np.where(np.isfinite(x.data[:, self.column]), x.data[:, self.column], -1).astype(int)
        words, times = [], []
        for i in np.flatnonzero(np.diff(states, prepend=self.state)):
            now = int(states[i])
            if now < 0 or now == self.state:  # nothing is known: the state lasts until another is entered
                continue
            came = self.state >= 0
            words.append(
                json.dumps({
                    "event": "state", "state": now, "from": self.state if came else None,
                    "after": round(x.times[i] - self.since, 4) if came else None,
                    "p": round(float(x.data[i, self.first + now]), 4),
                })
            )  # fmt: skip
            times.append(x.times[i])
            self.state, self.since = now, x.times[i]
        self.seq += len(words)
        if not words:
            return None
        return Block(np.array(words, object)[:, None], np.array(times), self.seq - len(words), x.segment)
