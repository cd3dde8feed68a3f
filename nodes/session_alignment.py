"""Session alignment: today's features as if they were of the session in which the decoder was learnt."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rheobase.nodes._decoder import check_input, check_shapes, spec_header
from rheobase.nodes.kalman import cholesky
from rheobase.stream.block import Array, Spec, StreamError, numbered
from rheobase.stream.files import find, load_model, save_model
from rheobase.stream.node import Fraction, Kernel, Positive, kernel

SWEEPS = 20
"""Most sweeps of rotations: they converge quadratically, so that 10 are many."""
READY = SWEEPS + 1
"""The phase in which W is known."""
FAINT = 1e-9
"""Share of the mean variance that every channel has at least: a silent one has no inverse."""


class AlignmentParams(NamedTuple):
    """mu (c,) and the root L (c, c), C_ref = L L', of the session of the decoder; samples to learn from today."""

    mu: NDArray[np.float64]
    L: NDArray[np.float64]
    samples: int
    known: bool
    always: bool
    shrink: float


class AlignmentState(NamedTuple):
    """n (1,) whole samples, their mean (c,) and C (c, c) the sum of products about it. phase (1,): 0 learning, up to
    SWEEPS rotating, READY. at (c,) the mean that W (c, c) belongs to; L, G, V (c, c), d (c,): room.
    """

    n: NDArray[np.int64]
    mean: NDArray[np.float64]
    C: NDArray[np.float64]
    phase: NDArray[np.int64]
    at: NDArray[np.float64]
    W: NDArray[np.float64]
    L: NDArray[np.float64]
    G: NDArray[np.float64]
    V: NDArray[np.float64]
    d: NDArray[np.float64]


class SessionAlignment(Kernel):
    """y = mu_ref + W (x - mu), which gives today's features the mean and the covariance of an earlier session.

        W = C^-1/2 (C^1/2 C_ref C^1/2)^1/2 C^-1/2 = L^-1' (L' C_ref L)^1/2 L^-1,   C = L L',   so that W C W = C_ref

    the one map of least mean |y - x|^2 that does (optimal transport between Gaussians: Dowson, Landau, J Multivar Anal
    12:450, 1982). Today's mu and C are those of the first `seconds` of samples that are whole; until then y = x. No
    labels are needed. The square root comes from one-sided rotations (Hestenes), a sweep a sample, in the dozen samples
    after; then mu and W hold for the run, so that a closed loop does not learn a steady effort away.

    What it repairs: x -> B x + b, to the sampling error of mu and C, where B is symmetric and positive definite:
    offsets, gains of single channels, a common mode that grew or shrank. What it cannot: second moments are all it
    sees. A B that turns (electrodes that moved by one, other preferred directions) it makes look right without being
    right, and where C_ref is a multiple of I it does not even see it. For such a day refit the decoder
    (`recalibrate`), or align by subspaces that stay (Degenhart et al., Nat Biomed Eng 4:672, 2020). And `seconds` must
    hold the same mix of movements as the session of the decoder did.

    The earlier session is written with `write` in a run of it, or by SessionAlignment().fit(X).save(path).

    A missing channel comes out missing and counts as its mean for the others; samples with one are not learnt from
    (while a channel is dead, none is: `health` counts them).
    Errors: an irregular input; fewer samples than channels; a model of other channels.
    """

    resets = False

    model: str = ""
    """File of the mean and covariance of the session that the decoder was learnt in (.npz); none: y = x."""
    seconds: Positive = 60.0
    """Time that today's mean and covariance are learnt from, s."""
    shrink: Fraction = 0.01
    """How much of either covariance is replaced by as much white noise: lets directions that hardly vary be."""
    write: str = ""
    """File to write the mean and covariance of this session to, when it ends; none: nowhere."""

    def fit(self, X: ArrayLike, spec: Spec | None = None) -> Self:
        """Take features X (T, c) as the earlier session; rows with a value that is not finite are left out."""
        rows: Array = np.asarray(X, np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)]
        c = rows.shape[1]
        self.moments = rows.mean(axis=0), np.cov(rows.T, bias=True).reshape(c, c), len(rows)
        self.of = spec or Spec(rate=0, channels=numbered("x", c))
        return self

    def save(self, path: str | Path) -> Path:
        """Write the model file of what `fit` was given, or of the samples of a run."""
        mean, C, rows = self.moments
        if rows < 2:
            raise StreamError("no moments to write: fewer than two whole samples")
        header = {"node": "session_alignment", "in": spec_header(self.of), "out": {"channels": list(self.of.channels)}}
        return save_model(path, {"mean": mean, "cov": C}, header | {"rows": rows})

    def check(self) -> None:
        """Raises StreamError where the model file is missing, damaged, or of another node."""
        if self.model:
            self._load()

    def _load(self, x: Spec | None = None) -> tuple[Array, Array]:
        arrays, header = load_model(find(self.model))
        try:
            if header["node"] != "session_alignment":
                raise StreamError(f"is of a {header['node']!r}, this node is a 'session_alignment'")
            if x:
                check_input(header["in"], x)
            check_shapes({"mean": "n", "cov": "n n"}, arrays, n=header["in"]["n"])
        except StreamError as e:
            raise StreamError(f"model {self.model}: {e}") from None
        return arrays["mean"].astype(np.float64), arrays["cov"].astype(np.float64)

    def start(self, x: Spec) -> Spec:
        if x.rate == 0:
            raise StreamError("needs a regular rate, its input is irregular")
        c, samples = x.n, round(self.seconds * x.rate)
        if samples <= c:
            raise StreamError(f"seconds: {self.seconds:g} s are {samples} samples, too few for {c} channels")
        known = bool(self.model) or hasattr(self, "moments")
        mu, C = np.zeros(c), np.eye(c)
        if known:
            mu, C = self._load(x) if self.model else self.moments[:2]
            if len(mu) != c:
                raise StreamError(f"was fitted on {len(mu)} channels, the input has {c}")
        white = np.trace(C) / c
        if not white > 0:
            raise StreamError("model: no channel varied in that session")
        L = np.linalg.cholesky((1 - self.shrink) * C + (self.shrink + FAINT) * white * np.eye(c))
        self.params = AlignmentParams(mu, L, samples, known, bool(self.write), float(self.shrink))
        v, w, one = (lambda: np.zeros(c)), (lambda: np.zeros((c, c))), (lambda: np.zeros(1, np.int64))
        self.state = AlignmentState(one(), v(), w(), one(), v(), w(), w(), w(), w(), v())
        self.seen = x
        return x.replace(dtype="float64")

    def stop(self) -> None:
        if self.write:
            s = self.state
            n = int(s.n[0])
            done = SessionAlignment()
            done.moments, done.of = (s.mean.copy(), s.C / max(n, 1), n), self.seen
            done.save(self.write)

    @property
    def health(self) -> dict[str, int]:
        """Samples learnt from; with a model, those it lacks before it can align; whether it aligns."""
        if not self.state:
            return {}
        n, aligns = int(self.state.n[0]), self.state.phase[0] == READY
        lacks = max(self.params.samples - n, 0) if self.params.known and not aligns else 0
        return {"learnt": n, "lacks": lacks, "aligns": int(aligns)}

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        c, phase = x.shape[0], state.phase
        whole = True
        for i in range(c):
            whole &= np.isfinite(x[i])
        if whole and (params.always or (params.known and phase[0] == 0)):
            _learn(state, x)
            if params.known and phase[0] == 0 and state.n[0] >= params.samples and _begin(params, state):
                phase[0] = 1
        if 0 < phase[0] < READY:
            if _sweep(state.G, state.V):
                phase[0] = SWEEPS
            phase[0] += 1
            if phase[0] == READY:
                _finish(state)
        if phase[0] < READY:
            for i in range(c):
                y[i] = x[i] if np.isfinite(x[i]) else np.nan
            return True
        for i in range(c):
            y[i] = params.mu[i]
        for j in range(c):
            u = x[j] - state.at[j]
            if np.isfinite(u):
                row = state.W[j]
                for i in range(c):
                    y[i] += u * row[i]
        for i in range(c):
            if not np.isfinite(x[i]):
                y[i] = np.nan
        return True


@kernel
def _learn(s, x):
    """Mean and sum of products about it, with one sample more (Welford)."""
    c = x.shape[0]
    s.n[0] += 1
    n = float(s.n[0])
    for i in range(c):
        s.d[i] = x[i] - s.mean[i]
    for i in range(c):
        v = s.d[i] * (n - 1.0) / n
        row = s.C[i]
        for j in range(c):
            row[j] += v * s.d[j]
        s.mean[i] += s.d[i] / n


@kernel
def _begin(params, s):
    """L of today's C, G = (L_ref' L)' and V = I. Returns False where nothing has varied."""
    L, G, V = s.L, s.G, s.V
    c, n = G.shape[0], float(s.n[0])
    white = 0.0
    for i in range(c):
        white += s.C[i, i] / n / c
    for i in range(c):
        s.at[i] = s.mean[i]
        for j in range(c):
            G[i, j] = (1.0 - params.shrink) * s.C[i, j] / n
            V[i, j] = 0.0
        G[i, i] += (params.shrink + FAINT) * white
        V[i, i] = 1.0
    if not cholesky(G, L):
        return False
    for i in range(c):
        row = G[i]
        for j in range(c):
            row[j] = 0.0
        for k in range(i, c):
            v = L[k, i]
            for j in range(c):
                row[j] += v * params.L[k, j]
    return True


@kernel
def _sweep(G, V):
    """Each pair of rows of G made orthogonal once, and V turned along. Returns whether they all were."""
    c = G.shape[0]
    done = True
    for i in range(c - 1):
        for k in range(i + 1, c):
            g, h, v, w = G[i], G[k], V[i], V[k]
            a, b, e = 0.0, 0.0, 0.0
            for j in range(c):
                a += g[j] * g[j]
                b += h[j] * h[j]
                e += g[j] * h[j]
            if abs(e) <= 1e-13 * math.sqrt(a * b):
                continue
            done = False
            z = (b - a) / (2.0 * e)
            tan = 1.0 / (abs(z) + math.sqrt(1.0 + z * z))
            if z < 0.0:
                tan = -tan
            cos = 1.0 / math.sqrt(1.0 + tan * tan)
            sin = cos * tan
            for j in range(c):
                a, b = g[j], h[j]
                g[j] = cos * a - sin * b
                h[j] = sin * a + cos * b
                a, b = v[j], w[j]
                v[j] = cos * a - sin * b
                w[j] = sin * a + cos * b
    return done


@kernel
def _finish(s):
    """W = sum_i |g_i| u_i u_i', L' u_i = v_i: for F = L_ref' L is (F'F)^1/2 = sum_i |g_i| v_i v_i'."""
    L, G, V, W, u = s.L, s.G, s.V, s.W, s.d
    c = G.shape[0]
    for i in range(c):
        for j in range(c):
            W[i, j] = 0.0
    for i in range(c):
        size = 0.0
        for j in range(c):
            size += G[i, j] * G[i, j]
            u[j] = V[i, j]
        size = math.sqrt(size)
        for k in range(c - 1, -1, -1):
            u[k] /= L[k, k]
            v = u[k]
            for j in range(k):
                u[j] -= v * L[k, j]
        for k in range(c):
            v = size * u[k]
            row = W[k]
            for j in range(c):
                row[j] += v * u[j]
