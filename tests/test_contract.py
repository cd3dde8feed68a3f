"""Every node there is keeps the contract; and each check of the contract catches a node that breaks it."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.stream.block import Block, Spec
from rheobase.stream.check import CHECKS, KERNEL_CHECKS, contract
from rheobase.stream.node import Kernel, Node, Sink, kernel, load, types

X = Spec(rate=1000, channels=("a", "b", "c"), unit="V")
IMU = Spec(rate=1000, channels=tuple("abcdefghi"))
POSE = Spec(rate=1000, channels=tuple("xyzabcd"))
SLOW = Spec(rate=10, channels=("a", "b", "c"))
STATES = Spec(rate=100, channels=("p0", "p1", "p2", "state"))

CASES: dict[str, list[tuple[dict[str, Any], tuple[Spec, ...]]]] = {
    "alarm": [({"level": 1, "hold": 0.003, "side": "either"}, (X,))],
    "averages": [({"over": (3, 20), "age": True}, (X,))],
    "bandpass": [({"low": 20, "high": 200}, (X,))],
    "baseline": [({"over": 0.01}, (X,)), ({"over": 0.05, "size": True}, (X.replace(rate=0),))],
    "bins": [({"width": 0.005}, (X,)), ({"width": 0.007, "how": "mean"}, (X,))],
    "car": [({"exclude": ("b",)}, (X,))],
    "channel_swap": [({"p": 0.2, "truth": True}, (X,))],
    "deltas": [({}, (X,))],
    "drop_missing": [({}, (X,))],
    "dropout": [({"p": 0.3, "length": 3, "share": 0.6, "fill": "hold"}, (X,))],
    "gain_step": [({"p": 0.2}, (X,))],
    "gravity": [({}, (POSE,)), ({"frame": "world"}, (POSE,))],
    "fleet": [
        (
            {"chain": ({"type": "averages", "over": [2, 9]}, "car"), "units": 3, "gone": 0.05},
            (X.replace(rate=0, channels=("unit", "b", "c")),),
        ),
    ],
    "hippo_memory": [
        ({"memory": 0.02, "features": 6}, (X,)),
        ({"memory": 0.02, "features": 6, "basis": "legt"}, (X.replace(dtype="int16"),)),
    ],
    "integral": [({"tau": 0.05}, (X,))],
    "jitter": [({"p": 0.5}, (X,))],
    "lags": [({"k": 3}, (X,)), ({"k": 1}, (X.replace(rate=0),))],
    "lowpass": [({"corner": 40, "order": 3}, (X,))],
    "markov_rates": [
        ({"states": 3, "every": 60, "half_life": 1, "longest": 5}, (STATES,)),
        ({"of": "posterior", "every": 60, "lag": 3, "longest": 5}, (STATES,)),
    ],
    "merge": [({}, (X, SLOW)), ({}, (X.replace(rate=0), SLOW, X.replace(dtype="int16")))],
    "moving": [({"speed": 0.2, "over": 0.01}, (X,))],
    "notch": [({"harmonics": 2}, (X,))],
    "orientation": [({"tau_acc": 0.01}, (IMU,))],
    "pick": [({"channels": ("c", "a")}, (X,))],
    "regime": [({"every": 0.03}, (X,))],
    "resample": [
        ({"rate": 170}, (X,)),
        ({"rate": 1300, "how": "linear"}, (X.replace(dtype="int16"),)),
        ({"rate": 150, "how": "linear", "gap": 0.03}, (X.replace(rate=0),)),
        ({"rate": 100, "how": "mean"}, (X.replace(rate=0),)),
    ],
    "rotate": [({"to": "body"}, (POSE,)), ({"to": "world"}, (POSE,))],
    "session_alignment": [({}, (X,))],
    "task": [({"hold": 0.005}, (X.replace(unit="m/s"),)), ({"task": "grid", "control": False, "hold": 0.02}, (X,))],
    "threshold": [({"rms": -1, "learn": 0.05}, (X,)), ({"level": 0.5, "refractory": 0.005}, (X,))],
    "velocity": [({"over": 0.01}, (POSE,)), ({"over": 0.02}, (X,))],
    "zscore": [({"window": 0.05}, (X,)), ({"freeze": 0.1, "clip": 2}, (X,)), ({"block": 0.05}, (X,))],
}
"""Every node that is not learnt: parameters, and Specs of its inputs."""

WORDS = {"state_markers", "task_markers"}
"""Nodes that give text: the contract compares numbers, so their own tests hold them to it."""

SMALL = {"width": 4, "layers": 1, "states": 4}
LSTM = {"type": "lstm", "width": 4, "layers": 1}

LEARNT: dict[str, list[dict[str, Any]]] = {
    "arphmm": [
        {"states": 3, "order": 1, "width": 10, "phases": 2, "horizon": 60, "pool": 0.3},
        {"states": 3, "order": 1, "knowledge": "none", "left_right": False, "restarts": 1, "posterior": True},
    ],
    "dkf": [
        {"f": "ridge"},
        {"f": "nadaraya_watson", "nonpd": "robust"},
        {"f": "ridge", "Q": "nadaraya_watson", "nonpd": "clip", "scale": None, "covariance": True},
        {"f": "ridge", "dynamics": "nadaraya_watson", "covariance": True},
        {"f": "ridge", "steady": True},
    ],
    "gaussian_process": [{}, {"kernel": "multi", "directions": 8}],
    "gru": [{"hidden": 4, "epochs": 2}],
    "hiss": [
        {"low": LSTM, "high": SMALL, "k": 2, "chunks": 4, "epochs": 1},
        {"low": SMALL, "high": LSTM, "k": 2, "chunks": 4, "epochs": 1, "emit": "sample"},
    ],
    "hmm_glm": [
        {"states": 2, "restarts": 1, "iterations": 3, "lag": 2, "rates": True},
        {"states": 2, "restarts": 1, "iterations": 3, "emission": "gaussian", "covariates": 1, "adapt": 10.0},
    ],
    "health": [{"smooth": 4}],
    "kalman": [{}],
    "logistic": [{}, {"lags": 3, "alpha": 0.1}],
    "mlp": [{"hidden": 6, "epochs": 20}, {"hidden": 4, "layers": 1, "activation": "tanh", "members": 3, "epochs": 2}],
    "nadaraya_watson": [{}],
    "place_bayes": [{"lags": 2}, {"walk": 0.3, "directional": True, "give": "mean", "points": 200}],
    "refit": [{"memory": 20}],
    "regime_scale": [{"conditions": 1, "regimes": 2, "least": 0}],
    "ridge": [{}, {"lags": 3}],
    "sequence": [{"net": SMALL | {"type": "mamba"}, "chunks": 8, "epochs": 1}],
    "unscented_kalman": [{}, {"h": "ridge", "R": "diagonal"}],
}
"""Every decoder: parameters."""


@functools.cache
def learnt(name: str, which: int) -> Any:
    """A decoder fitted on a noisy view of a two-dimensional walk."""
    if name in ("gru", "hiss", "mlp", "sequence"):
        pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    Z = np.zeros((60, 2))
    for t in range(1, len(Z)):
        Z[t] = 0.9 * Z[t - 1] + 0.3 * rng.standard_normal(2)
    seen = Z @ rng.standard_normal((2, 3)) + 0.5 * rng.standard_normal((len(Z), 3))
    if name in ("hmm_glm", "place_bayes"):
        seen = np.round(3 * np.abs(seen))  # counts
    if name == "logistic":
        Z = (Z > 0).astype(float)
    if name in ("arphmm", "health"):
        Z = np.arange(len(Z))[::-1, None] * 1.0  # remaining life
    return load(name).make(**LEARNT[name][which]).fit(seen, Z)


def makers() -> Iterator[tuple[str, Callable[[], Node], tuple[Spec, ...]]]:
    for name, cases in CASES.items():
        for values, specs in cases:
            yield name, functools.partial(load(name).make, **values), specs
    for name, given in LEARNT.items():
        for which in range(len(given)):
            yield name, lambda name=name, which=which: copy.deepcopy(learnt(name, which)), (SLOW,)


def params() -> Iterator[Any]:
    counted = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="allocations are counted in compiled code only")
    for name, make, specs in makers():
        kind = load(name)
        for check in [*CHECKS, *(KERNEL_CHECKS if issubclass(kind, Kernel) else [])]:
            marks = [pytest.mark.jit, counted] if check.__name__ == "allocates_nothing" else []
            yield pytest.param(make, specs, check.__name__, marks=marks, id=f"{name}-{check.__name__}")


@pytest.mark.parametrize("make, specs, name", list(params()))
def test_every_node_keeps_the_contract(make: Callable[[], Node], specs: tuple[Spec, ...], name: str) -> None:
    dict(contract(make, *specs))[name]()


def test_no_node_is_left_out() -> None:
    there = {name for name, module in types().items() if module.startswith("rheobase.nodes.")}
    assert there == set(CASES) | set(LEARNT) | WORDS, "a node is missing from CASES, LEARNT or WORDS, or has gone"


class Gain(Kernel):
    """y = 2 x: keeps the contract."""

    def start(self, x: Spec) -> Spec:
        return x

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for i in range(x.shape[0]):
            y[i] = 2 * x[i]
        return True


class Doubled(Kernel):
    """Says that it gives twice as many samples as it does."""

    def start(self, x: Spec) -> Spec:
        return x.replace(rate=2 * x.rate)

    step = staticmethod(Gain.step)


class Centred(Node):
    """Less the mean of its block: of the future, and of how the stream was cut."""

    def process(self, x: Block) -> Block:
        return x.replace(data=x.data - x.data.mean(axis=0))


class Counting(Node):
    """Goes on counting after start()."""

    seen: int = 0
    """Samples so far."""

    def process(self, x: Block) -> Block:
        self.seen += len(x)
        return x.replace(data=x.data + np.arange(self.seen - len(x), self.seen)[:, None])


class Greedy(Node):
    """Works on what belongs to others."""

    def process(self, x: Block) -> Block:
        x.data[:] *= 2
        return x


class Meddling(Kernel):
    """Turns up its own factor. Compiled code is refused that before it runs."""

    def start(self, x: Spec) -> Spec:
        self.params = Total(np.ones(1))
        return x

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        params.total[0] *= 1.5
        for i in range(x.shape[0]):
            y[i] = params.total[0] * x[i]
        return True


class Total(NamedTuple):
    total: NDArray[np.float64]


class Poisoned(Kernel):
    """A sum that a NaN never leaves."""

    def start(self, x: Spec) -> Spec:
        self.state = Total(np.zeros(x.n))
        return x

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for i in range(x.shape[0]):
            state.total[i] += x[i]
            y[i] = state.total[i]
        return True


class Bound(Node):
    """Holds on to what cannot travel."""

    def start(self, x: Spec) -> Spec:
        self.by: Any = lambda block: block
        return x

    def process(self, x: Block) -> Block:
        return x


class Meeting(Node):
    """Keeps its sum in the class."""

    total: ClassVar[list[float]] = [0.0]

    def start(self, x: Spec) -> Spec:
        self.total[0] = 0.0
        return x

    def process(self, x: Block) -> Block:
        y = self.total[0] + np.cumsum(x.data, axis=0)
        self.total[0] = float(y[-1, 0])
        return x.replace(data=y)


class Mute(Node):
    """Has a parameter without a word."""

    width: float = 1.0

    def process(self, x: Block) -> Block:
        return x


class Wasteful(Kernel):
    """Takes memory for each sample."""

    def start(self, x: Spec) -> Spec:
        return x

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        room = np.zeros(x.shape[0])
        for i in range(x.shape[0]):
            room[i] = x[i]
        y[:] = room
        return True


class Leaning(Kernel):
    """Keeps its sum in the output, as if nobody else wrote there."""

    def start(self, x: Spec) -> Spec:
        return x

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for i in range(x.shape[0]):
            y[i] += x[i]
        return True


class Drawn(NamedTuple):
    factor: float


class Restless(Kernel):
    """Is another one at each start."""

    draws: ClassVar[Iterator[int]] = itertools.count(1)

    def start(self, x: Spec) -> Spec:
        self.params = Drawn(float(next(self.draws)))
        return x

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for i in range(x.shape[0]):
            y[i] = params.factor * x[i]
        return True


class Fickle(Kernel):
    """Has a number in its step that each start draws anew."""

    draws: ClassVar[Iterator[int]] = itertools.count(1)

    def start(self, x: Spec) -> Spec:
        factor = float(next(self.draws))

        @kernel
        def step(params, state, t, x, y):
            for i in range(x.shape[0]):
                y[i] = factor * x[i]
            return True

        self.step = step  # type: ignore[method-assign]
        return x


BROKEN: list[tuple[str, type[Node], str]] = [
    ("declares_what_it_gives", Doubled, "gave 240 samples for 240, its rate says 480"),
    ("takes_any_cut", Centred, "another output when cut"),
    ("starts_afresh", Counting, "after it was started again"),
    ("starts_afresh", Restless, "after it was started again"),
    ("knows_no_future", Centred, "depends on later ones"),
    ("leaves_its_inputs", Greedy, "changed its input"),
    ("leaves_its_inputs", Meddling, "changed its params|Cannot modify readonly array"),
    ("outlives_missing_samples", Poisoned, "still not finite"),
    ("pickles", Bound, "does not pickle after start"),
    ("pickles", Restless, "another output from one pickled before start"),
    ("shares_nothing", Meeting, "while a second one runs"),
    ("says_what_it_is", Mute, "says nothing of width"),
    ("resumes_from_a_checkpoint", Restless, "after its state was put into a new one"),
    ("is_compiled_once", Fickle, "compiled again when it is started again"),
    ("is_the_same_fused", Leaning, "between two other kernels"),
    ("allocates_nothing", Wasteful, "1 allocations a sample"),
]


@pytest.mark.parametrize("name, kind, words", BROKEN)
def test_each_check_catches_what_breaks_it(name: str, kind: type[Node], words: str) -> None:
    if name == "allocates_nothing" and numba.config.DISABLE_JIT:
        pytest.skip("allocations are counted in compiled code only")
    with pytest.raises((AssertionError, numba.TypingError), match=words):
        dict(contract(kind, X))[name]()


def test_each_check_is_put_to_the_test() -> None:
    assert {name for name, _, _ in BROKEN} == {check.__name__ for check in [*CHECKS, *KERNEL_CHECKS]}


@pytest.mark.parametrize("name, check", [c for c in contract(Gain, X) if c[0] != "allocates_nothing"])
def test_a_good_node_passes(name: str, check: Callable[[], None]) -> None:
    check()


def test_sources_and_sinks_are_not_held_to_it() -> None:
    with pytest.raises(TypeError, match="is a source or a sink"):
        contract(Sink, X)
