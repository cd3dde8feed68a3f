"""Publish a stream on the Lab Streaming Layer, its times as they are."""

from __future__ import annotations

import math
import platform
import time
from typing import Any

import numpy as np
import pylsl

from rheobase.devices._outlet import Outlet
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.clock import now

FORMATS = {"float64": "double64", "str": "string"}
"""LSL's word for a dtype, where it differs."""


LINGER = 0.1
"""s between the last sample and the end of the outlet: liblsl drops what it has not sent, and has no way to wait."""


class LslOut(Outlet):
    """One input as an LSL outlet, from `start` on, so that others find it before the first sample.

    Each sample goes with its own time (times of a `now()` clock are LSL times), or all are moved by the same (`now`).
    Channel names, unit and delay stand in the description. The source_id stays the same over restarts, so that
    receivers take the stream up again. `health` counts how often it went `safe`, and samples `withheld` because they
    came too late.

    Errors: two in one graph with the same name of their stream.
    """

    stream: str = ""
    """Name of the LSL stream; empty: the node's name."""
    kind: str = ""
    """Content type, such as EEG or Markers; empty: Markers for strings, else Signal."""
    now: bool = False
    """Put all times so much later that the first sample leaves now: a recording, played (at speed 1) to those who
    expect a live stream."""

    def check(self) -> None:
        nodes, name = self.config.get("nodes", {}), self.stream or self.name
        for other, e in nodes.items():
            if other != self.name and e["type"] == nodes[self.name]["type"] and (e.get("stream") or other) == name:
                raise StreamError(f"stream: {name!r} is that of node {other!r}, too: receivers cannot tell them apart")

    @property
    def health(self) -> dict[str, int]:
        return {"safe": self.went_safe, "withheld": self.withheld}

    def open(self, x: Spec) -> None:
        spec, name = x, self.stream or self.name
        kind = self.kind or ("Markers" if spec.dtype == "str" else "Signal")
        form = FORMATS.get(spec.dtype, spec.dtype)
        source = f"rheobase:{platform.node()}:{name}"
        info = pylsl.StreamInfo(name, kind, spec.n, spec.rate, form, source)
        info.set_channel_labels(list(spec.channels))
        info.set_channel_units([spec.unit] * spec.n)
        info.desc().append_child_value("delay", repr(spec.delay))
        kept = getattr(self, "outlet", None) is not None and getattr(self, "spec", None) == spec
        self.spec, self.later = spec, math.nan if self.now else 0.0
        if not kept:  # somebody may listen to it already
            self.outlet: Any = None  # the old one goes before the new one comes
            self.outlet = pylsl.StreamOutlet(info)

    def take(self, i: int, x: Block) -> None:
        if math.isnan(self.later):
            self.later = now() - float(x.times[-1])
        super().take(i, x.replace(times=x.times + self.later) if self.now else x)

    def give(self, x: Block) -> None:
        # LSL reads a time of 0 as "now" and of -1 as "one interval after the last"
        times = np.where((x.times == 0) | (x.times == -1), np.nextafter(x.times, math.inf), x.times)
        data = [[str(v) for v in row] for row in x.data] if self.spec.dtype == "str" else x.data
        self.outlet.push_chunk(data, times)

    def shut(self) -> None:
        outlet = getattr(self, "outlet", None)
        if outlet and outlet.have_consumers():
            time.sleep(LINGER)
        self.outlet = None
