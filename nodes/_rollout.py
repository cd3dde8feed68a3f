"""Life by simulation: an autoregressive chain run on until its first channel falls below a threshold.

A second opinion on what the phases say of the same unit (`_phase_type.py`), for one who would rather believe in a level
at which a unit counts as worn than in how long others lived. A path also ends where the chain says that it fails.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._arhmm import ARHMM
from rheobase.stream.block import Array


def first_below(
    model: ARHMM,
    S: Array,
    stage: NDArray[np.int64],
    alpha: Array,
    lags: Array,
    below: float,
    horizon: int,
    paths: int = 1000,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Lives (paths,): samples still to come before y_t0 < below, or before the failure; `horizon` where neither comes.

    S (N, N) and stage (N,) as `expand` gives them; alpha (N,) the belief now; lags (P, d) the last samples, the newest
    first.
    """  # fmt: skip
    rng = np.random.default_rng(seed)
    P, d = lags.shape
    ways, phase = np.cumsum(S, axis=1), rng.choice(len(S), size=paths, p=alpha / alpha.sum())
    past = np.broadcast_to(lags, (paths, P, d)).copy()
    life, alive = np.full(paths, horizon), np.ones(paths, bool)
    for r in range(horizon):
        to = (rng.random(paths)[:, None] > ways[phase]).sum(axis=1)
        alive &= to < len(S)
        phase = np.where(alive, np.minimum(to, len(S) - 1), phase)
        i, y = stage[phase], np.zeros((paths, d))
        for k in range(d):
            ell = np.column_stack([past.reshape(paths, P * d), np.ones(paths), y[:, :k]])
            mean = -(model.B[i, k, : ell.shape[1]] * ell).sum(axis=1)
            y[:, k] = mean + np.sqrt(model.s2[i, k]) * rng.standard_normal(paths)
        alive &= y[:, 0] >= below
        life[~alive & (life == horizon)] = r
        if not alive.any():
            break
        past = np.concatenate([y[:, None], past], axis=1)[:, :P]
    return life
