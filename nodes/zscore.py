"""Z-score: running, of the block before, or by what was measured once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rheobase.nodes._decoder import check_input, check_shapes, spec_header, spread
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.files import find, load_model, save_model
from rheobase.stream.node import Kernel, NotNegative, Positive, kernel


class Memory(NamedTuple):
    """window, freeze, block: in samples (freeze, block 0: never); clip: largest |y| (inf: none); known: whether there
    is a model, mean, sd (c,) what it says."""

    window: float
    freeze: int
    block: int
    clip: float
    known: bool
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]


class Moments(NamedTuple):
    """mean (c,), var (c,) over n (c,) samples that were there; seen (1,): samples that came; by_mean, by_sd (c,): of
    the block before."""

    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    n: NDArray[np.int64]
    seen: NDArray[np.int64]
    by_mean: NDArray[np.float64]
    by_sd: NDArray[np.float64]


class Zscore(Kernel):
    """y_c = (x_c - mean_c) / sd_c, with mean and sd of all samples so far, the present one included.

    Older samples fade: with a = max(1/n, 1/(window rate)),

        d = x - mean,   mean <- mean + a d,   var <- (1 - a) (var + a d²)

    which is Welford's mean and variance (over n) until the window is full, and the exponentially weighted ones
    after it (Finch, Incremental calculation of weighted mean and variance, 2009). y = 0 where the sd is 0.

    block   mean and sd are those of the block before, so they stay the same for a block; in the first, running ones
            (or the model's). So it is done in BrainGate (Brandman et al., J Neural Eng 15:026007, 2018), which also
            lets no feature exceed 2 sd: clip: 2.
    model   mean and sd from a file, that `rheo calibrate` writes of its open loop: the same in every run.

    In a closed loop, a running z-score before a decoder learns a steady effort away: the longer one pushes one way,
    the less it counts, with the time constant `window` (a window of minutes, far longer than any push, makes that
    small; `freeze` and `model` end it). And it begins anew with each run, on which no decoder was fitted.

    A missing sample comes out missing and is not learnt from. What was learnt outlasts gaps.

    Errors: an irregular input; a window or block shorter than two samples; a model of other channels.
    """

    resets = False

    window: Positive = 60.0
    """Time constant of the fading, s."""
    freeze: NotNegative = 0.0
    """Time after which mean and sd stay as they are, s; 0: never."""
    block: NotNegative = 0.0
    """Length of the blocks, s; 0: mean and sd run."""
    clip: NotNegative = 0.0
    """Largest |y| that is given, in sd; 0: any."""
    model: str = ""
    """File of mean and sd (.npz) that stay as they are; none: they are learnt as it runs."""

    def check(self) -> None:
        """Raises StreamError where the model file is missing, damaged, or of another node."""
        if self.model:
            self._load()

    def start(self, x: Spec) -> Spec:
        if x.rate == 0:
            raise StreamError("needs a regular rate, its input is irregular")
        for word, s in (("window", self.window), ("block", self.block)):
            if s and s * x.rate < 2:
                raise StreamError(f"{word}: {s:g} s are less than two samples at {x.rate:g} Hz")
        if self.block and self.freeze:
            raise StreamError("block, freeze: blocks follow each other for ever: give one of them")
        mean, sd = self._load(x) if self.model else np.zeros((2, x.n))
        self.params = Memory(
            window=math.inf if self.block else float(self.window * x.rate),
            freeze=max(2, round(self.freeze * x.rate)) if self.freeze else 0,
            block=round(self.block * x.rate),
            clip=float(self.clip or math.inf),
            known=bool(self.model),
            mean=mean,
            sd=sd,
        )
        self.state = Moments(
            mean=np.zeros(x.n),
            var=np.zeros(x.n),
            n=np.zeros(x.n, np.int64),
            seen=np.zeros(1, np.int64),
            by_mean=mean.copy(),
            by_sd=sd.copy(),
        )
        return x.replace(unit="")

    def _load(self, x: Spec | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        arrays, header = load_model(find(self.model))
        try:
            if header["node"] != "zscore":
                raise StreamError(f"is of a {header['node']!r}, this node is a 'zscore'")
            if x:
                check_input(header["in"], x)
            check_shapes({"mean": "n", "sd": "n"}, arrays, n=header["in"]["n"])
        except StreamError as e:
            raise StreamError(f"model {self.model}: {e}") from None
        return arrays["mean"].astype(np.float64), arrays["sd"].astype(np.float64)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        before = params.block > 0 and state.seen[0] >= params.block
        learning = params.block > 0 or not (params.known or 0 < params.freeze <= state.seen[0])
        state.seen[0] += 1
        last = params.block > 0 and state.seen[0] % params.block == 0
        for c in range(x.shape[0]):
            there = np.isfinite(x[c])
            if learning and there:
                state.n[c] += 1
                a = 1.0 / min(float(state.n[c]), params.window)
                d = x[c] - state.mean[c]
                state.mean[c] += a * d
                state.var[c] = (1.0 - a) * (state.var[c] + a * d * d)
            if before:
                mean, sd = state.by_mean[c], state.by_sd[c]
            elif params.known:
                mean, sd = params.mean[c], params.sd[c]
            else:
                mean, sd = state.mean[c], math.sqrt(state.var[c])
            z = (x[c] - mean) / sd if sd > 0.0 else 0.0
            y[c] = min(max(z, -params.clip), params.clip) if there else np.nan
            if last:
                if state.n[c] > 0:
                    state.by_mean[c], state.by_sd[c] = state.mean[c], math.sqrt(state.var[c])
                state.mean[c], state.var[c], state.n[c] = 0.0, 0.0, 0
        return True


def write_moments(path: str | Path, x: Spec, X: ArrayLike) -> Path:
    """A model file of mean and sd of samples X (T, c) of a stream; what is not finite is left out.

    Raises StreamError where a channel has no sample that is.
    """
    X = np.asarray(X, np.float64)
    there = np.isfinite(X)
    if not there.any(axis=0).all():
        raise StreamError(f"channel {x.channels[int(np.argmin(there.any(axis=0)))]!r} has no sample that is finite")
    X = np.where(there, X, np.nan)
    arrays = {"mean": np.nanmean(X, axis=0), "sd": spread(X)}
    header = {"node": "zscore", "in": spec_header(x), "out": {"channels": list(x.channels)}, "rows": len(X)}
    return save_model(path, arrays, header)
