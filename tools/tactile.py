"""Slip and force on a magnetic skin, every recording left out in turn: python -m rheobase.tools.tactile

Slip: the decoders of configs/slip.yaml on 92 sequences, each labelled as a whole. Left out are first every tenth
sequence (its neighbours are learnt from), then stretches of nine (they are not: what a day changes has to be coped
with). The table says how well the sequences left out are told apart by what is said of them at one sample, so many
seconds after their start, and how many are told right at their end. Where nothing is known yet, an AUC may lie far
below one half: where more of one class is left out, less of it is learnt from, and so it is thought less likely.

Force: those of configs/force.yaml on two recordings of normal force, each learnt from and scored on the other, and on
the halves of one of shear force.

Beside them a `hiss` of two small levels (`HISS`: one try, nothing was chosen by these scores), of what the logistic
regression or the ridge on a regular grid gets.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.resources
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import rich.console
import rich.progress
import rich.table
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder
from rheobase.nodes.hiss import HiSS
from rheobase.stream.block import StreamError
from rheobase.stream.graph import Graph, parse
from rheobase.tools.fit import Gathered, aligned, gather
from rheobase.tools.scores import accuracy, auc, nrmse, r2

F = NDArray[np.float64]

AT = (0.2, 2.5, 5.0, 7.5, 10.0)
"""s after the start of a sequence when it is looked at."""
EVERY = 10
"""One sample in so many is learnt from: neighbours are alike."""
HISS: dict[str, Any] = dict(
    low={"type": "s4d", "width": 16}, high={"type": "s4d", "width": 16}, chunks=12, epochs=30, dropout=0.2
)
SHEAR = "data:eflesh/shear_force/20250416_200533_probe/"


def config(name: str) -> Graph:
    """One of the graphs that come with rheobase."""
    return parse(importlib.resources.files("rheobase.configs").joinpath(f"{name}.yaml").read_text(), name)


def decoders(graph: Graph) -> dict[str, tuple[Decoder, str]]:
    """Each decoder of a graph, not fitted, and the name of its input."""
    return {
        k: (dataclasses.replace(p.node, model=""), p.edges[0].source)
        for k, p in graph.places.items()
        if isinstance(p.node, Decoder)
    }


def all_of(graph: Graph, k: int, beside: str) -> dict[str, tuple[Decoder, str]]:
    """Those, and a `hiss` of chunks of k samples of what the decoder `beside` gets."""
    found = decoders(graph)
    return found | {"hiss": (HiSS(k=k, **HISS), found[beside][1])}


def sequences_apart(
    graph: Graph, folds: NDArray[np.int64], found: dict[str, tuple[Decoder, str]]
) -> Iterator[tuple[str, F, F]]:
    """For each of the decoders on a graph: its name, what it says of each sequence (N, T), and the labels (N,), fitted
    without the sequences of the same number in `folds` (N,)."""
    truth = str(graph.options["eval"]["truth"])
    given = gather(graph, [*(source for _, source in found.values()), truth])
    for name, (node, source) in found.items():
        x, segment = given[source].data, given[source].segment
        z = given[truth].data
        rows = (np.arange(len(x)) % EVERY == EVERY - 1) | isinstance(node, HiSS)  # which learns by the stretch
        said = np.full(len(x), np.nan)
        for k in np.unique(folds):
            out = np.isin(segment, np.flatnonzero(folds == k))
            node.fit(x[~out], z[~out], rows=rows[~out], segment=segment[~out])
            said[out] = node.predict(x[out], segment[out])[:, 0]
        n = int(segment.max()) + 1
        yield name, said.reshape(n, -1), z.reshape(n, -1)[:, 0]


def slip(console: rich.console.Console) -> None:
    """Print how well the sequences are told apart."""
    graph, n = config("slip"), 92
    found = all_of(graph, 3, "logistic")
    for what, folds in (("every tenth", np.arange(n) % 10), ("stretches of nine", np.arange(n) // 9)):
        table = rich.table.Table(title=f"slip, left out: {what}; AUC after so many s, accuracy at the end")
        for heading in ("decoder", *(f"{t:g}" for t in AT), "accuracy"):
            table.add_column(heading, justify="left" if heading == "decoder" else "right")
        for name, said, label in sequences_apart(graph, folds, found):
            # samples are counted as 30 a second
            scores = [auc(said[:, [round(30 * t) - 1]], label[:, None]) for t in AT]
            table.add_row(name, *(f"{s:.3f}" for s in scores), f"{accuracy(said[:, -1], label):.3f}")
        most = max(np.mean(label), 1 - np.mean(label))
        table.add_row("the commoner class", *["0.500"] * len(AT), f"{most:.3f}")
        console.print(table)


def across(x: Gathered, truth: Gathered, node: Decoder) -> list[tuple[float, float, float, int]]:
    """R2, nRMSE, RMSE and rows, learnt from one half of the segments and scored on the other, both ways."""
    Z = aligned(truth, x.times)
    t = x.times
    # the middle is the longest pause of the middle third
    third = slice(len(t) // 3, 2 * len(t) // 3)
    edge = t[third][np.argmax(np.diff(t[third]))]
    late, scores = t > edge, []
    for learn in (~late, late):
        node.fit(x.data[learn], Z[learn], segment=x.segment[learn])
        Y = node.predict(x.data[~learn], x.segment[~learn])
        there = np.isfinite(np.hstack([Y, Z[~learn]])).all(axis=1)
        Y, truth_ = Y[there], Z[~learn][there]
        scores.append((r2(Y, truth_), nrmse(Y, truth_), float(np.sqrt(np.mean((Y - truth_) ** 2))), len(Y)))
    return scores


def force(console: rich.console.Console) -> None:
    """Print how well the force is told, of the normal and of the shear force."""
    table = rich.table.Table(title="force: a recording by the other (normal), a half by the other (shear)")
    for heading in ("recordings", "decoder", "R2", "nRMSE", "RMSE, gf", "samples"):
        table.add_column(heading, justify="left" if heading in ("recordings", "decoder") else "right")
    for word in ("normal", "shear"):
        graph = config("force")
        if word == "shear":
            graph.set(f"skin.file={SHEAR}sensor.csv.gz")
            graph.set(f"probe.file={SHEAR}states.csv.gz")
        found = all_of(graph, 4, "ridge_grid")
        given = gather(graph, [*(source for _, source in found.values()), "force"])
        for name, (node, source) in found.items():
            each = across(given[source], given["force"], node)
            cells = [" / ".join(f"{s[k]:.4g}" for s in each) for k in range(4)]
            table.add_row(word, name, *cells)
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    """Print the tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tactile", description="Slip and force on a magnetic skin.")
    parser.add_argument("what", nargs="*", choices=["slip", "force", []], help="slip, force (both)")
    given = parser.parse_args(argv)
    console = rich.console.Console()
    try:
        for word in given.what or ("slip", "force"):
            {"slip": slip, "force": force}[word](console)
    except StreamError as e:
        print(f"tactile: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
