"""How many states and lags an autoregressive hidden Markov model needs: by BIC, and by what it predicts of others."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from rheobase.nodes._arhmm import Sequences, forward_backward, learn, log_b


def bic(log_L: float, Q: int, P: int, d: int, n: int, fails: bool = False) -> float:
    """-2 log L + k log n for the k free numbers of a model and n samples: less is better (Schwarz 1978)."""
    k = Q * d * (P * d + 1) + Q * d * (d - 1) // 2 + Q * d + Q * (Q - 1) + Q - 1 + Q * fails
    return -2 * log_L + k * math.log(n)


def held_out(s: Sequences, Q: int, left_right: bool = False, folds: int = 5, seed: int = 0, restarts: int = 3) -> float:
    """Mean log-score of a sample one step ahead, in sequences that were left out in turn: more is better. No knowledge
    is used on either side."""
    s = dataclasses.replace(s, log_pl=np.zeros((*s.Y.shape[:2], Q)))
    fold = np.random.default_rng(seed).permutation(len(s.Y)) % folds
    total = 0.0
    for f in range(min(folds, len(s.Y))):
        model, _ = learn(s.take(fold != f), Q, left_right, False, restarts, seed)
        out = s.take(fold == f)
        none = np.zeros(len(out.failed), bool)
        total += float(forward_backward(model.pi, model.A, log_b(model, out), out.length, none).log_L.sum())
    return total / int(s.length.sum())
