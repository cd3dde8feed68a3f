"""Publish a stream on the Lab Streaming Layer, its times as they are."""

from __future__ import annotations

import math
import platform
import time
from typing import Any

import numpy as np
import pylsl

from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.node import Sink

FORMATS = {"float64": "double64", "str": "string"}
"""LSL's word for a dtype, where it differs."""


LINGER = 0.1
"""s between the last sample and the end of the outlet: liblsl drops what it has not sent, and has no way to wait."""


class LslOut(Sink):
    """One input as an LSL outlet, from `start` on, so that others find it before the first sample.

    Each sample goes with its own time (times of a `now()` clock are LSL times), or all are moved by the same (`shift`).
    Channel names, unit and delay stand in the description. The source_id stays the same over restarts, so that
    receivers take the stream up again.
    """

    stream: str = ""
    """Name of the LSL stream; empty: the node's name."""
    kind: str = ""
    """Content type, such as EEG or Markers; empty: Markers for strings, else Signal."""
    shift: bool = False
    """Move all times by as much as makes the first sample one of now: a recording that others are to take for live."""

    def start(self, *inputs: Spec) -> None:
        if len(inputs) != 1:
            raise StreamError(f"in: one input goes to one LSL stream, got {len(inputs)}; use a node for each")
        spec, name = inputs[0], self.stream or self.name
        kind = self.kind or ("Markers" if spec.dtype == "str" else "Signal")
        form = FORMATS.get(spec.dtype, spec.dtype)
        source = f"rheobase:{platform.node()}:{name}"
        info = pylsl.StreamInfo(name, kind, spec.n, spec.rate, form, source)
        info.set_channel_labels(list(spec.channels))
        info.set_channel_units([spec.unit] * spec.n)
        info.desc().append_child_value("delay", repr(spec.delay))
        kept = getattr(self, "outlet", None) is not None and getattr(self, "spec", None) == spec
        self.spec, self.moved = spec, 0.0 if not self.shift else math.nan
        if not kept:  # somebody may listen to it already
            self.outlet: Any = None  # the old one goes before the new one comes
            self.outlet = pylsl.StreamOutlet(info)

    def take(self, i: int, x: Block) -> None:
        # LSL reads a time of 0 as "now" and of -1 as "one interval after the last"
        if math.isnan(self.moved) and len(x):
            self.moved = now() - float(x.times[0])
        at = x.times + self.moved
        times = np.where((at == 0) | (at == -1), np.nextafter(at, math.inf), at)
        data = [[str(v) for v in row] for row in x.data] if self.spec.dtype == "str" else x.data
        self.outlet.push_chunk(data, times)

    def stop(self) -> None:
        outlet = getattr(self, "outlet", None)
        if outlet and outlet.have_consumers():
            time.sleep(LINGER)
        self.outlet = None
