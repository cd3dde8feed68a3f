"""How much of the past `hippo_memory` holds: python -m rheobase.tools.memory

A signal of sd 1 through a low-pass (Butterworth, 4th order), and noise of sd 0.05 on it; its last 200 samples, without
the noise, are read by ridge regression from 64 features of it with the noise. 8000 samples to learn from, 4000 later
ones for the score, nrmse over all lags. The step dt is chosen for each basis and seed among the 8000: learnt from 6000,
judged on 2000. A seed gives the signal, the noise and the matrix of ptd.

The corner of the low-pass, in cycles a sample, decides how hard it is (--band). It is set where S4D-LegS comes to 0.08,
as it did in an earlier test of this kind whose corner was not told; the other bases follow from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

import numpy as np
import rich.console
import rich.table
from numpy.typing import NDArray

from rheobase.nodes.hippo_memory import SPANS, HippoMemory
from rheobase.nodes.ridge import Ridge
from rheobase.stream.fuse import apply
from rheobase.tools.scores import nrmse

F = NDArray[np.float64]

LAGS, FEATURES, BAND, NOISE = 200, 64, 0.023, 0.05
WARM, JUDGE, LEARN, SCORE = 1000, 2000, 8000, 4000
TRIED = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
"""200 dt, which is in the basis' own time what the 200 samples are."""


def signal(seed: int, band: float = BAND) -> tuple[F, F]:
    """u, of sd 1 and below `band` cycles a sample, and u with noise; (T,)."""
    from scipy.signal import butter, sosfilt

    rng = np.random.default_rng(seed)
    T = WARM + LEARN + SCORE
    u = sosfilt(butter(4, band, output="sos", fs=1.0), rng.standard_normal(WARM + T))[WARM:]
    u /= u.std()
    return u, u + NOISE * rng.standard_normal(T)


def recalled(basis: str, u: F, v: F, seed: int = 0, features: int = FEATURES) -> tuple[float, float]:
    """nrmse of u(t), ..., u(t - 199) from the features of v, and the 200 dt that was chosen."""
    past = np.lib.stride_tricks.sliding_window_view(u, LAGS)[WARM - LAGS + 1 :, ::-1]

    def seen(spans: float) -> F:
        node = HippoMemory.make(memory=LAGS * SPANS[basis] / spans, features=features, basis=basis, seed=seed)
        return apply(node, v).data[WARM:]

    def error(X: F, learn: int, score: int, every: int) -> float:
        Z = past[:, ::every]
        Y = Ridge().fit(X[:learn], Z[:learn]).predict(X[learn : learn + score])
        return nrmse(Y, Z[learn : learn + score])

    tried = {spans: seen(spans) for spans in TRIED}
    best = min(TRIED, key=lambda spans: error(tried[spans], LEARN - JUDGE, JUDGE, 10))
    return error(tried[best], LEARN, SCORE, 1), best


def study(
    seeds: Iterable[int], band: float = BAND, among: Iterable[str] = SPANS
) -> dict[str, list[tuple[float, float]]]:
    """Basis -> what `recalled` gives for each seed."""
    found: dict[str, list[tuple[float, float]]] = {basis: [] for basis in among}
    for seed in seeds:
        u, v = signal(seed, band)
        for basis, done in found.items():
            done.append(recalled(basis, u, v, seed))
    return found


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="memory", description="How much of the past hippo_memory holds.")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="how many (5)")
    parser.add_argument("--band", type=float, default=BAND, metavar="B", help=f"corner, cycles a sample ({BAND})")
    given = parser.parse_args(argv)
    if given.seeds < 1 or not 0 < given.band < 0.5:
        print("memory: seeds: at least 1; band: between 0 and 0.5", file=sys.stderr)
        return 1
    found = study(range(given.seeds), given.band)
    title = f"{FEATURES} features of a signal below {given.band:g} cycles a sample: nrmse of its last {LAGS} samples"
    table = rich.table.Table(title=title)
    for heading in ("basis", f"mean of {given.seeds}", "least", "most", f"{LAGS} dt"):
        table.add_column(heading, justify="left" if heading == "basis" else "right")
    for basis in sorted(found, key=lambda b: float(np.mean([error for error, _ in found[b]]))):
        errors, spans = zip(*found[basis], strict=True)
        numbers = [f"{e:.4f}" for e in (np.mean(errors), min(errors), max(errors))]
        table.add_row(basis, *numbers, ", ".join(f"{s:g}" for s in sorted(set(spans))))
    rich.console.Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
