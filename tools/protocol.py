"""The `eval` table of a config: what `rheo fit` and `rheo eval` take for truth, and which time they hold out.

    eval:
      truth: hand            node whose samples the decoders should give
      train: [0, 500]        s from the first sample of the recording, the end left out
      test: [500, 600]
      metrics: [nrmse, maae]
      seeds: 1               so many fits of each decoder that draws at random
      figure: [kalman, dkf]  decoders to draw (default: the first and the best)

Without `train` and `test` the last fifth of the recording is held out. Decoders that learn without a truth need none.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from rheobase.stream.block import StreamError
from rheobase.stream.graph import Graph
from rheobase.stream.node import nearest
from rheobase.tools.scores import METRICS

Seconds = tuple[float, float]


class Protocol(msgspec.Struct, forbid_unknown_fields=True):
    """The `eval` table of a config."""

    truth: str = ""
    train: Seconds | None = None
    test: Seconds | None = None
    metrics: list[str] = msgspec.field(default_factory=lambda: ["nrmse", "maae"])
    seeds: Annotated[int, msgspec.Meta(ge=1)] = 1
    figure: list[str] = []


def protocol_of(graph: Graph, truth: bool = True) -> Protocol:
    """The `eval` table of a graph. truth: it must name one. Raises StreamError where it says what cannot be."""
    given = graph.options.get("eval") or ({} if not truth else None)
    if not isinstance(given, dict) or (truth and not given.get("truth")):
        raise wrong(graph, "the graph says no truth: write eval: {truth: NODE}")
    for key in given:
        if key not in Protocol.__struct_fields__:
            raise wrong(graph, f"unknown key {key!r}{nearest(str(key), Protocol.__struct_fields__)}")
    try:
        protocol = msgspec.convert(given, Protocol, strict=False)
    except msgspec.ValidationError as e:
        why, _, where = str(e).partition(" - at `$.")
        raise wrong(graph, f"{where.rstrip('`')}: {why[0].lower()}{why[1:]}".removeprefix(": ")) from None
    if (truth or protocol.truth) and protocol.truth not in graph.places:
        raise wrong(graph, f"truth: no node {protocol.truth!r}{nearest(protocol.truth, graph.places)}")
    for metric in protocol.metrics or [""]:
        if metric not in METRICS:
            what = f"unknown metric {metric!r}" if metric else "name one"
            raise wrong(graph, f"metrics: {what}{nearest(metric, METRICS)}")
    if (protocol.train is None) != (protocol.test is None):
        raise wrong(graph, "train and test: give both or neither")
    return protocol


def wrong(graph: Graph, text: str) -> StreamError:
    """What is wrong with the `eval` table of a graph."""
    return StreamError(f"{graph.origin or graph.name}: eval: {text}")
