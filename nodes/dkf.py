"""Discriminative Kalman filter."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from rheobase.nodes._decoder import Decoder, Training, part, spec_header
from rheobase.nodes._noise import constant, jitter, noise_params, precision, varying, weights
from rheobase.nodes._recursion import DKFParams, Recursion, filtered, limit, linear, recursion, settling, state
from rheobase.nodes._scale import calibrate, square
from rheobase.nodes._sequence import SequenceModel
from rheobase.nodes._unscented import points, unscented
from rheobase.nodes.kalman import Kalman, dynamics
from rheobase.nodes.nadaraya_watson import NadarayaWatson
from rheobase.stream.block import Array, Spec, StreamError, numbered
from rheobase.stream.node import Count, Fraction, Positive, Seed, load, nearest


class DKF(Decoder):
    """Discriminative Kalman filter: what z is most likely, where p(z | x) is learnt instead of p(x | z).

        z(t) = A z(t-1) + N(0, Gamma),   z ~ N(0, S),   p(z(t) | x(t)) = N(f(x(t)), Q)

        m = A mu,  M = A Sigma A' + Gamma
        Sigma = (M^-1 + Q^-1 - S^-1)^-1
        mu = Sigma (M^-1 m + Q^-1 f(x))

    z (d,) is taken less its training mean. f is any regressor; Q is the mean of r r' over residuals r of rows that f
    had not seen, or a regression of r r' on x. A bin where f is not finite is missing: mu = m, Sigma = M. A linear f
    with the matching Q gives the Kalman filter. Burkhart, Brandman, Franco, Hochberg, Harrison, Neural Comput 32:969,
    2020.
    """

    f: str | dict[str, Any] = "nadaraya_watson"
    """The regressor: its type, or {type: mlp, hidden: 32}."""

    Q: Literal["constant", "nadaraya_watson", "f"] = "constant"
    """Covariance of f about z: one for all x; Nadaraya-Watson regression of r r' on x, with the bandwidth of least
    leave-one-out error; or what f itself says, where it is a posterior and knows its own (place_bayes)."""

    points: Count = 2000
    """Most held-out rows that Q(x) keeps."""

    scale: Positive | None = 1.0
    """Factor on Q; none: the one of most predictive score on held-out time, and with it the spread of the covariance
    that is given out (`_scale.py`). For an f that looks back (lags, a recurrent net): it counts the past twice."""

    gain: Positive | None = 1.0
    """Factor on mu as it is given out: y = z_mean + gain mu, with gain^2 times the covariance: the filter of z, f, Q, S
    and Gamma in other units. f draws z to its mean, which slows a cursor. none: the cursor of a Kalman filter, mean
    |mu of a Kalman filter| / mean |mu| over the training rows (Brandman et al., J Neural Eng 15:026007, 2018)."""

    dynamics: str | dict[str, Any] = "linear"
    """How z moves: linear, or the type of a regressor of z(t) on z(t-1) as for f: then m and M are by unscented
    prediction."""

    nonpd: Literal["fallback_code", "fallback_text", "clip", "robust"] = "fallback_code"
    """Where Q^-1 - S^-1 is not positive definite. robust: S^-1 is left out, there and everywhere.
    fallback_text: it is left out there (the paper's words).
    fallback_code: it is left out of Sigma there, and f weighs Q^-1 + S^-1 (the authors' code).
    clip: the part of Q that exceeds S is set to S."""

    S: Literal["cov", "lyapunov"] = "cov"
    """S is the covariance of z in training, or what A and Gamma make stationary."""

    steady: bool = False
    """Use the limits of Sigma and of the gain once they are reached, in O(d^2): the same to 1e-9, for constant Q and
    linear dynamics. After a missing bin Sigma is followed until it has settled again."""

    covariance: bool = False
    """After the d channels of z give the d (d+1) / 2 of Sigma, upper triangle row by row, named cov(vx,vy), in the
    square of the unit of z."""

    held_out: Fraction = 0.3
    """Share of the training rows, drawn at random, that Q is learnt from; and share of them, the last, that its scale
    is."""

    seed: Seed = 0
    """Of that draw, and of f where it draws too."""

    shapes = {"A": "d d", "Gamma": "d d", "S": "d d", "Q": "d d", "z_mean": "d", "scale": "", "spread": ""}
    adjustable = ("model", "gain", "nonpd", "steady", "covariance")
    kept = ("bins", "nonpd", "missing")

    def regressor(self, key: str = "f") -> Decoder:
        """A fresh f, or g of the dynamics. Raises StreamError where it cannot be made."""
        given = getattr(self, key)
        if key == "dynamics" and isinstance(given, str) and nearest(given, ["linear"]).startswith("; did"):
            raise StreamError(f"dynamics: unknown type {given!r}; did you mean 'linear'?")
        words = {"type": given} if isinstance(given, str) else dict(given)
        kind = words.pop("type", None)
        if not isinstance(kind, str):
            raise StreamError(f"{key}: needs a type, as in {{type: ridge, lags: 5}}")
        try:
            cls = load(kind)
            made = cls.make(**({"seed": self.seed} if "seed" in cls.parameters() else {}) | words)
            if isinstance(made, SequenceModel):
                made.serves_a_filter()
        except StreamError as e:
            raise StreamError(f"{key}: {e}") from None
        if not isinstance(made, Decoder) or isinstance(made, DKF):
            raise StreamError(f"{key}: {kind!r} is no regressor")
        return made

    @property
    def replaceable(self) -> bool:
        return self.regressor().replaceable

    @property
    def health(self) -> dict[str, int]:
        """Bins decoded, those not positive definite, those missing."""
        return {k: int(getattr(self.state, k)[0]) for k in self.kept} if self.state else {}

    def settings(self) -> dict[str, Any]:
        found = super().settings()
        for key in ("f", "dynamics"):
            if isinstance(found[key], dict) and set(found[key]) == {"type"}:
                found[key] = found[key]["type"]  # two ways to write one thing
        return found

    def check(self) -> None:
        self.regressor()
        self._agrees()
        super().check()

    def _agrees(self) -> None:
        if self.steady and (self.Q != "constant" or self.dynamics != "linear"):
            raise StreamError("steady: there is a limit only for a constant Q and linear dynamics")
        if self.S == "lyapunov" and self.dynamics != "linear":
            raise StreamError("S: only linear dynamics say what is stationary: use cov")
        if self.Q == "f":
            self._noise_of_f()

    def start(self, x: Spec) -> Spec:
        out = super().start(x)
        return out.replace(channels=out.channels + self._pairs(out.channels)) if self.covariance else out

    def _pairs(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"cov({a},{b})" for i, a in enumerate(names) for b in names[i:])

    def predict(self, X: ArrayLike, segment: ArrayLike | None = None) -> NDArray[np.float64]:
        """Decode X (T, n) from a fresh start: z_mean + gain mu (T, d), without its covariance."""
        Y = super().predict(X, segment)
        return Y[:, : len(self.arrays["z_mean"])] if self.covariance else Y

    def posterior(self, X: ArrayLike, segment: ArrayLike | None = None) -> tuple[Array, Array]:
        """Decode X (T, n) from a fresh start: z_mean + gain mu (T, d) and its covariance (T, d, d)."""
        self._load()
        given = dataclasses.replace(self, covariance=True).hold(self.arrays, self.header["in"], self.header["out"])
        Y, d = Decoder.predict(given, X, segment), len(self.arrays["z_mean"])
        return Y[:, :d], square(Y[:, d:], d)

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        self._agrees()
        rows = np.flatnonzero(data.rows)
        cut, d = round(len(rows) * self.held_out), data.Z.shape[1]
        if not d < cut < len(rows):
            raise StreamError(f"held_out: {cut} of {len(rows)} rows are no basis for both f and Q")
        drawn = np.random.default_rng(self.seed).permutation(rows)
        seen = np.zeros(len(data.rows), bool)
        seen[drawn[cut:]] = True
        first = self.regressor().fit(data.X, data.Z, rows=seen, segment=data.segment, like=part("f.", like) or None)
        out = data.rows & ~seen
        r = data.Z - first.predict(data.X, data.segment)
        noise = self._noise(data, r, out, part("Q.", like))
        # f is then learnt from all rows, its hyper-parameters kept
        f = self.regressor().fit(data.X, data.Z, rows=data.rows, segment=data.segment, like=first.arrays)
        z_mean = data.Z[data.rows].mean(axis=0)
        A, Gamma = dynamics(data, z_mean)
        S = np.atleast_2d(np.cov(data.Z[data.rows].T))
        if self.S == "lyapunov":
            if np.abs(np.linalg.eigvals(A)).max() >= 1:
                raise StreamError("S: z as learnt is not stationary, so there is no such S: use cov")
            S = scipy.linalg.solve_discrete_lyapunov(A, Gamma)
        arrays = dict(A=A, Gamma=Gamma, S=S, z_mean=z_mean, **noise, **{f"f.{k}": v for k, v in f.arrays.items()})
        if self.dynamics != "linear":
            arrays |= self._moves(data, z_mean, seen, part("g.", like))
        scale, spread = 1.0 if self.scale is None else self.scale, 1.0
        if self.scale is None and like:
            scale, spread = float(like["scale"]), float(like["spread"])
        elif self.scale is None:
            scale, spread = self._calibrate(data, arrays, first, r, out, rows[-cut])
        arrays |= dict(scale=np.array(scale), spread=np.array(spread))
        if self.gain is None:
            arrays["gain"] = np.array(like["gain"] if like and "gain" in like else self._match(data, arrays))
        return arrays

    def _noise(self, data: Training, r: Array, out: NDArray[np.bool_], like: dict[str, Any]) -> dict[str, Array]:
        """Q, from the residuals r of the rows that are out; for Q(x) the regression too, as Q.*."""
        found = {"Q": r[out].T @ r[out] / out.sum()}
        if self.Q == "nadaraya_watson":
            products = (r[:, :, None] * r[:, None, :]).reshape(len(r), -1)
            q = NadarayaWatson(points=self.points).fit(
                data.X, products, rows=out, segment=data.segment, like=like or None
            )
            found |= {f"Q.{k}": v for k, v in q.arrays.items()}
        return found

    def _moves(self, data: Training, z_mean: Array, seen: NDArray[np.bool_], like: dict[str, Any]) -> dict[str, Array]:
        """g of z(t) = g(z(t-1)) + N(0, Gamma), as g.*: Gamma from the rows held out, then g from all."""
        t = data.pairs()
        before, after = data.Z[t - 1] - z_mean, data.Z[t] - z_mean
        try:
            first = self.regressor("dynamics").fit(before, after, rows=seen[t], like=like or None)
            some = before[: min(len(before), 20)]
            if not np.array_equal(first.predict(some), first.predict(some, np.arange(len(some)))):
                raise StreamError(f"{self.settings()['dynamics']!r} looks back, and the filter knows z(t-1) only")
            R = (after - first.predict(before))[~seen[t]]
            g = self.regressor("dynamics").fit(before, after, like=first.arrays)
        except StreamError as e:
            raise StreamError(f"dynamics: {str(e).removeprefix('dynamics: ')}") from None
        return {"Gamma": R.T @ R / len(R)} | {f"g.{k}": v for k, v in g.arrays.items()}

    def _calibrate(
        self, data: Training, arrays: dict[str, Array], first: Decoder, r: Array, out: NDArray[np.bool_], begin: int
    ) -> tuple[float, float]:
        """Scale and spread by the rows from `begin` on, of an f (and a Q(x)) learnt from those before. A constant Q, A,
        Gamma and S are those of all training rows: few numbers, which gain nothing by a look at them.
        """
        before = np.arange(len(data.rows)) < begin
        X, z_mean, late = data.X, arrays["z_mean"], data.segment[begin:]
        f = self.regressor().fit(X, data.Z, rows=data.rows & before, segment=data.segment, like=first.arrays)
        F, d = f.predict(X, data.segment)[begin:] - z_mean, len(z_mean)
        Q = np.broadcast_to(arrays["Q"], (len(F), d, d))
        if self.Q != "constant":
            own = {f"f.{k}": v for k, v in f.arrays.items()}
            held = own if self.Q == "f" else self._noise(data, r, out & before, part("Q.", arrays))
            q = self._covariance(held, Spec(rate=0, channels=numbered("x", X.shape[1])), d)
            Q = q.predict(X, data.segment)[begin:].reshape(-1, d, d) + jitter(arrays["S"]) * np.eye(d)
        given = Recursion(A=arrays["A"], Gamma=arrays["Gamma"], S=arrays["S"], nonpd=self.nonpd)
        if self.dynamics != "linear":
            g = self._started("dynamics", part("g.", arrays), Spec(rate=0, channels=numbered("z", d)), d)
            given.move, given.g, given.points = unscented(g.step), g.params, points(d, g.state)
        Z = np.where(data.rows[begin:, None], data.Z[begin:] - z_mean, np.nan)
        return calibrate(given, F, Q, Z, late)

    def _match(self, data: Training, arrays: dict[str, Array]) -> float:
        """The gain by which mu is as long on average as that of a Kalman filter learnt from the same rows."""
        z_mean, out = arrays["z_mean"], {"channels": numbered("z", len(arrays["z_mean"])), "unit": ""}
        own = dataclasses.replace(self, gain=1.0).hold(arrays, {"n": data.X.shape[1]}, out)
        other = Kalman().fit(data.X, data.Z, rows=data.rows, segment=data.segment)
        mu = [(k.predict(data.X, data.segment) - z_mean)[data.rows] for k in (own, other)]
        short, long = (float(np.linalg.norm(m, axis=1).mean()) for m in mu)
        if not min(short, long) > 0:
            raise StreamError("gain: nothing is decoded but the mean, give a number")
        return long / short

    def _started(self, key: str, arrays: dict[str, Array], x: Spec, d: int) -> Decoder:
        made = self.regressor(key)
        made.hold(arrays, spec_header(x), {"channels": numbered(key, d), "unit": ""}).start(x)
        return made

    def _covariance(self, arrays: dict[str, Array], x: Spec, d: int) -> Decoder:
        """The decoder of Q(x) (d d,): the regression of r r', or what f says of itself."""
        q: Decoder = NadarayaWatson(points=self.points) if self.Q == "nadaraya_watson" else self._noise_of_f()
        prefix = "Q." if self.Q == "nadaraya_watson" else "f."
        return q.hold(part(prefix, arrays), spec_header(x), {"channels": numbered("q", d * d), "unit": ""})

    def _noise_of_f(self) -> Decoder:
        f = self.regressor()
        if not hasattr(f, "noise"):
            raise StreamError(f"Q: {self.settings()['f']!r} does not say how sure it is; place_bayes does")
        made: Decoder = f.noise()
        return made

    def ready(
        self, x: Spec, A: Array, Gamma: Array, S: Array, Q: Array, z_mean: Array, scale: Array, spread: Array,
        gain: Array | None = None, **given: Array,
    ) -> None:  # fmt: skip
        self._agrees()
        d = len(z_mean)
        factor = gain if self.gain is None else self.gain
        if factor is None:
            raise StreamError("gain: the model has none, for it was fitted with a number: fit it again, or give one")
        f = self._started("f", part("f.", given), x, d)
        B, P, Q_inv, violated = precision(scale * Q, S, self.nonpd)
        more, own = dict[str, Any](), dict[str, Any]()
        weigh, move = constant, linear
        if self.Q != "constant":
            q = self._covariance(given, x, d)
            q.start(x)
            more["noise"] = noise_params(S, float(scale), self.nonpd, q.params, jitter(S))
            own |= {"weights": weights(d), "q": q.state}
            weigh = varying(q.step)
        if self.dynamics != "linear":
            g = self._started("dynamics", part("g.", given), Spec(rate=x.rate, channels=numbered("z", d)), d)
            more["g"], own["points"] = g.params, points(d, g.state)
            move = unscented(g.step)
        advance = recursion(move)
        if self.steady:
            more["limit"], advance = limit(A, Gamma, B, P), settling(advance)
        flag, by = np.array([violated], np.int64), float(factor)
        self.params = DKFParams(A, Gamma, scale * Q, B, P, Q_inv, flag, z_mean, float(spread), by, f.params, **more)
        self.state = state(S, f.state, **own)
        self.step = filtered(f.step, weigh, advance)  # type: ignore[method-assign, misc]
