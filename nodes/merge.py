"""Merge: the channels of several inputs side by side."""

from __future__ import annotations

import numpy as np

from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.node import Node


class Merge(Node):
    """y_t = [x_t, u_t, ...]: a sample for each sample of the first input, with what the others last gave.

    Before the first sample of another input its channels are missing. Where two inputs have a channel of the
    same name, all channels are called "input.channel". The unit stays where all have the same; the delay is
    that of the slowest.

    Errors: an input of text.
    """

    def start(self, *inputs: Spec) -> Spec:
        names = self.inputs or tuple(f"in{i}" for i in range(len(inputs)))
        for name, x in zip(names, inputs, strict=True):
            if x.dtype == "str":
                raise StreamError(f"takes numbers, and {name!r} is text")
        channels = tuple(c for x in inputs for c in x.channels)
        if len(set(channels)) < len(channels):
            channels = tuple(f"{name}.{c}" for name, x in zip(names, inputs, strict=True) for c in x.channels)
        return Spec(
            rate=inputs[0].rate,
            channels=channels,
            unit=inputs[0].unit if len({x.unit for x in inputs}) == 1 else "",
            delay=max(x.delay for x in inputs),
        )

    def process(self, *inputs: Block) -> Block:
        x = inputs[0]
        return x.replace(data=np.hstack([np.asarray(b.data, np.float64) for b in inputs]))
