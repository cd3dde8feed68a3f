"""A kernel that is learnt: `Decoder`, in scikit-learn's manner.

    decoder = Kalman().fit(X, Z)      X (T, n) features, Z (T, d) truth
    decoder.predict(X)                (T, d), by the very kernel that runs live
    decoder.save("cursor.npz")        a graph reads it by {type: kalman, model: cursor.npz}

Whatever can be learnt in a graph is one of these: `rheo fit` looks for nothing else.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rheobase.stream.block import Array, Block, Spec, StreamError, numbered
from rheobase.stream.files import find, load_model, save_model
from rheobase.stream.fuse import Loop
from rheobase.stream.node import Kernel, kernel, nearest, type_name


@dataclasses.dataclass(frozen=True)
class Training:
    """What a decoder learns from.

    X        (T, n) features
    Z        (T, d) truth
    rows     (T,) True where x and z are finite and may be used as a target
    segment  (T,) number of the unbroken stretch that a row belongs to
    """

    X: NDArray[np.float64]
    Z: NDArray[np.float64]
    rows: NDArray[np.bool_]
    segment: NDArray[np.int64]

    def pairs(self) -> NDArray[np.int64]:
        """Every t for which rows t - 1 and t are both good and of one segment."""
        good = self.rows[1:] & self.rows[:-1] & (self.segment[1:] == self.segment[:-1])
        return np.flatnonzero(good) + 1

    def windows(self, lags: int, mean: Array) -> NDArray[np.float64]:
        """[x(t) - mean, x(t-1) - mean, ...] (T, lags n); what is missing or lies before a segment counts as mean."""
        centred = np.nan_to_num(self.X - mean, nan=0.0, posinf=0.0, neginf=0.0)
        W = np.zeros((len(centred), lags, centred.shape[1]))
        W[:, 0] = centred
        for k in range(1, min(lags, len(centred))):
            same = self.segment[k:] == self.segment[:-k]
            W[k:, k][same] = centred[:-k][same]
        return W.reshape(len(W), -1)


class Decoder(Kernel):
    """z from x, learnt. A subclass gives `shapes`, `learn` (X, Z -> arrays), `ready` (arrays -> params, state)
    and `step`.
    """

    model: str = ""
    """Model file (.npz) that `rheo fit` writes and a run reads."""

    shapes: ClassVar[dict[str, str]] = {}
    """Its arrays and their sizes: n channels in, d out, l = lags n; other letters are free, but one size each."""

    any_rate: ClassVar[bool] = False
    """Whether it runs at another rate than it was fitted at."""

    unsupervised: ClassVar[bool] = False
    """Learns from X alone: there is no truth, and `rheo fit` scores it by the likelihood of held-out samples."""

    adjustable: ClassVar[tuple[str, ...]] = ("model",)
    """Parameters that may differ between the fit and a run."""

    arrays: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)
    """What was learnt, by the letters of `shapes`."""

    header: dict[str, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)
    """Where it came from: node type, parameters, Specs in and out, provenance."""

    learnt: bool = dataclasses.field(default=False, init=False, repr=False)
    """Whether `fit` was called: then that counts, and not the model file."""

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        """The arrays. `like`: those of an earlier fit whose hyper-parameters are to be kept."""
        raise NotImplementedError

    def ready(self, x: Spec, **arrays: Any) -> None:
        """Set `params` and `state` for input x."""
        raise NotImplementedError

    @property
    def judged(self) -> bool:
        """Whether it gives an estimate of z."""
        return not self.unsupervised

    def estimate(self, Y: Array, d: int) -> Array:
        """Of all that it gives, Y (T, ...), what estimates z (T, d)."""
        return Y[:, :d]

    @property
    def replaceable(self) -> bool:
        """Whether another model can take over between two samples, with what this one remembers."""
        return True

    def fit(
        self,
        X: ArrayLike,
        Z: ArrayLike,
        *,
        rows: ArrayLike | None = None,
        segment: ArrayLike | None = None,
        inputs: Spec | None = None,
        outputs: Spec | None = None,
        like: dict[str, Any] | None = None,
    ) -> Self:
        """Learn from features X (T, n) and truth Z (T, d). Rows with a value that is not finite are left out.

        rows      (T,) bool: which rows are targets; the others serve as history only (default: all)
        segment   (T,) number of the unbroken stretch that a row belongs to (default: one)
        inputs    Spec of X; with it, a run on other channels or at another rate is refused
        outputs   Spec of Z: channel names and unit of what comes out
        like      `arrays` of an earlier fit: keep its hyper-parameters (bandwidth, penalty, epochs)

        Raises StreamError where X and Z do not suit.
        """
        X, Z = _table("X", X), _table("Z", Z)
        if len(X) != len(Z):
            raise StreamError(f"X has {len(X)} rows, Z {len(Z)}")
        good = np.asarray(np.isfinite(np.hstack([X, Z])).all(axis=1))
        if rows is not None:
            good &= _as_long("rows", rows, X).astype(bool)
        least = X.shape[1] + Z.shape[1] + 2
        if good.sum() < least:
            _some_of_each(X, Z, inputs)
            raise StreamError(f"{good.sum()} rows to learn from, {least} are the least for {X.shape[1]} channels")
        stretch = np.zeros(len(X), np.int64) if segment is None else _as_long("segment", segment, X)
        outputs = outputs or Spec(rate=0, channels=numbered("z", Z.shape[1]))
        of = spec_header(inputs) if inputs else {"n": X.shape[1]}, spec_header(outputs)
        self.header = {"in": of[0], "out": of[1]}  # for those that learn by rate or by name
        found = self.learn(Training(X, Z, good, stretch), like)
        for key, a in found.items():
            if not np.isfinite(a).all():
                raise StreamError(f"learning ended in no numbers ({key} is not finite): smaller steps, or other data")
        return self.hold(found, *of)

    def hold(self, arrays: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> Self:
        """Be fitted: have these arrays, whatever the model file says."""
        self.arrays, self.learnt = arrays, True
        self.header = {
            "node": type_name(type(self)),
            "parameters": self.settings(),
            "in": inputs,
            "out": outputs,
        }
        return self

    def predict(self, X: ArrayLike, segment: ArrayLike | None = None) -> NDArray[np.float64]:
        """Decode X (T, n) from a fresh start: (T, d), NaN in rows that no estimate comes with."""
        X = _table("X", X)
        if X.shape[1] != self.header.get("in", {}).get("n", X.shape[1]):
            raise StreamError(f"was fitted on {self.header['in']['n']} channels, X has {X.shape[1]}")
        named = self.header.get("in", {}).get("channels") or numbered("x", X.shape[1])
        loop = Loop([self], [-1], [0])
        out = loop.start(Spec(rate=self.header.get("in", {}).get("rate", 0.0), channels=named))[0]
        stretch = np.zeros(len(X), np.int64) if segment is None else _as_long("segment", segment, X)
        cuts = [0, *(np.flatnonzero(np.diff(stretch)) + 1), len(X)]
        Y = np.full((len(X), out.n), np.nan)
        for k, (a, b) in enumerate(itertools.pairwise(cuts)):
            for _, y in loop.process(Block(X[a:b], np.arange(a, b, dtype=float), a, k)) if b > a else ():
                Y[y.times.astype(np.int64)] = y.data
        return Y

    def save(self, path: str | Path, **provenance: Any) -> Path:
        """Write the model file; `provenance` goes into its header."""
        if not self.arrays:
            raise StreamError("not fitted: nothing to save")
        return save_model(path, self.arrays, self.header | provenance)

    def check(self) -> None:
        """Raises StreamError where the model file is missing, damaged, or not of this node."""
        try:
            self._load()
        except StreamError as e:
            made = str(e).startswith("no file") and "did you mean" not in str(e)
            raise StreamError(f"model: {e}{': rheo fit or rheo calibrate writes it' if made else ''}") from None
        if self.arrays:
            self._suits(None)

    def start(self, x: Spec) -> Spec:
        """Raises StreamError where there is no model, or it is of another node, other parameters or other input."""
        self._load()
        if not self.arrays:
            raise StreamError("model: not fitted yet: fit it (rheo fit GRAPH NODE), or name a model file")
        self._suits(x)
        self.ready(x, **self.arrays)
        out = self.header["out"]
        return x.replace(channels=tuple(out["channels"]), unit=out["unit"], dtype="float64")

    def settings(self) -> dict[str, Any]:
        """Its parameters as plain values, less those that may differ between fit and run."""
        found: dict[str, Any] = json.loads(
            json.dumps({k: getattr(self, k) for k in self.parameters() if k not in self.adjustable})
        )
        return found

    def _load(self) -> None:
        if self.model and not self.learnt:
            arrays, self.header = load_model(find(self.model))
            self.arrays = {k: a.astype(np.float64) for k, a in arrays.items()}

    def _suits(self, x: Spec | None) -> None:
        """Raises StreamError where what was learnt is not for this node, its parameters, or the input x."""
        word, then = type_name(type(self)), self.header.get("parameters", {})
        try:
            if self.header.get("node") != word:
                raise StreamError(f"is of a {self.header.get('node')!r}, this node is a {word!r}")
            for key, value in self.settings().items():
                if then.get(key) != value:
                    raise StreamError(f"was fitted with {key} {then.get(key)!r}, here it is {value!r}: fit it again")
            if x:
                check_input(self.header["in"] | ({"rate": 0.0} if self.any_rate else {}), x)
            n, d = self.header["in"]["n"], len(self.header["out"]["channels"])
            check_shapes(self.shapes, self.arrays, n=n, d=d, l=n * getattr(self, "lags", 1))
        except StreamError as e:
            raise StreamError(f"model {self.model}: {e}" if self.model and not self.learnt else f"model: {e}") from None


def spec_header(x: Spec) -> dict[str, Any]:
    """A Spec as it stands in a model file."""
    return {"n": x.n, "rate": x.rate, "channels": list(x.channels), "unit": x.unit}


def check_input(then: dict[str, Any], x: Spec) -> None:
    """Raises StreamError where the input is not what the model was fitted on."""
    if then["n"] != x.n:
        more = ""
        if then.get("channels"):
            missing = [c for c in then["channels"] if c not in x.channels]
            more = f" (missing here: {', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''})" if missing else ""
        raise StreamError(f"was fitted on {then['n']} channels, the input has {x.n}{more}")
    for k, (a, b) in enumerate(zip(then.get("channels", ()), x.channels, strict=False)):
        if a != b:
            raise StreamError(f"was fitted on other channels: channel {k} was {a!r}, here it is {b!r}")
    if then.get("rate") and x.rate and abs(then["rate"] / x.rate - 1) > 0.01:
        raise StreamError(f"was fitted at {then['rate']:g} Hz, the input has {x.rate:g} Hz")


def check_shapes(shapes: dict[str, str], arrays: dict[str, Any], **sizes: int) -> None:
    """Raises StreamError where an array is missing or of a shape that does not fit the others."""
    for key, letters in shapes.items():
        if key not in arrays:
            raise StreamError(f"has no array {key!r}{nearest(key, arrays)}")
        shape = np.shape(arrays[key])
        if len(shape) == len(letters.split()):
            for letter, size in zip(letters.split(), shape, strict=True):
                sizes.setdefault(letter, size)
        expected = tuple(sizes.get(letter, -1) for letter in letters.split())
        if shape != expected:
            raise StreamError(f"array {key} is {shape}, expected ({letters}) = {expected}")


@kernel
def remember(x, mean, window):
    """Push x - mean to the front of `window` (lags n,), newest first.

    A channel that is not finite counts as its mean. Returns False where one was.
    """
    n = x.shape[0]
    for k in range(window.shape[0] - 1, n - 1, -1):
        window[k] = window[k - n]
    whole = True
    for k in range(n):
        there = np.isfinite(x[k])
        window[k] = x[k] - mean[k] if there else 0.0
        whole &= there
    return whole


@kernel
def affine(W, b, u, v):
    """v = b + W' u"""
    for i in range(v.shape[0]):
        v[i] = b[i]
    for j in range(u.shape[0]):
        uj = u[j]
        row = W[j]
        for i in range(v.shape[0]):
            v[i] += uj * row[i]


def part(prefix: str, arrays: dict[str, Any] | None) -> dict[str, Any]:
    """Those whose names begin with the prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in (arrays or {}).items() if k.startswith(prefix)}


def spread(X: Array) -> Array:
    """Standard deviation of each column over what is finite; 0 where that is rounding alone."""
    X = np.where(np.isfinite(X), X, np.nan)
    sd = np.nanstd(X, axis=0)
    flat = (np.nanmax(X, axis=0) == np.nanmin(X, axis=0)) | (sd <= 1e-12 * np.nanmax(np.abs(X), axis=0))
    return np.where(flat, 0.0, sd)


def _as_long(name: str, given: ArrayLike, X: Array) -> NDArray[np.int64]:
    made = np.asarray(given, np.int64)
    if made.shape != (len(X),):
        raise StreamError(f"{name} must be ({len(X)},), one for each row of X, has shape {made.shape}")
    return made


def _some_of_each(X: Array, Z: Array, inputs: Spec | None) -> None:
    """Raises StreamError that names a channel without a value."""
    for word, table in (("X", X), ("Z", Z)):
        none = ~np.isfinite(table).any(axis=0)
        for k in np.flatnonzero(none & ~none.all()):
            name = repr(inputs.channels[k]) if inputs and word == "X" else k
            raise StreamError(f"channel {name} of {word} has no value: leave it out")


def _table(name: str, X: ArrayLike) -> NDArray[np.float64]:
    X = np.ascontiguousarray(X, np.float64)
    if X.ndim != 2 or not X.shape[1]:
        raise StreamError(f"{name} must be (rows, channels), has shape {X.shape}")
    return X
