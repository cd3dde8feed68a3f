"""The fused loop: the same bits fused or not, for any cut; swap, checkpoint, segments, and a cache never stale."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from parts import Decay, First, Ramp, Sum, SumParams

from rheobase.nodes.bins import Bins
from rheobase.nodes.car import Car
from rheobase.nodes.lags import Lags
from rheobase.nodes.lowpass import Lowpass
from rheobase.nodes.zscore import Zscore
from rheobase.stream import fuse
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.engine import Engine
from rheobase.stream.fuse import Loop, apply
from rheobase.stream.graph import Graph
from rheobase.stream.node import Kernel, kernel

RATE = 100.0
MAKERS = [
    lambda: Decay(),
    lambda: Sum(every=3),
    lambda: First(),
    lambda: Lowpass(corner=2.0, order=2),
    lambda: Bins(width=2 / RATE),
    lambda: Zscore(window=0.5),
    lambda: Lags(k=2),
    lambda: Car(),
]


@st.composite
def trees(draw: Any) -> tuple[list[int], list[int]]:
    """Kinds and parents of up to five kernels."""
    n = draw(st.integers(1, 5))
    kinds = [draw(st.integers(0, len(MAKERS) - 1)) for _ in range(n)]
    parents = [-1] + [draw(st.integers(0, i - 1)) for i in range(1, n)]
    return kinds, parents


def graph_of(kinds: list[int], parents: list[int]) -> Graph:
    graph = Graph("random")
    graph.add("x", Ramp(n=0, c=3, rate=RATE))
    for i, (kind, parent) in enumerate(zip(kinds, parents, strict=True)):
        graph.add(f"k{i}", MAKERS[kind](), f"k{parent}" if parent >= 0 else "x")
    return graph


def outputs(
    graph: Graph, data: np.ndarray, times: np.ndarray, segments: np.ndarray, cuts: list[int]
) -> dict[str, bytes]:
    """Bytes of everything that every node gives, whatever its blocks."""
    got: dict[str, list[Block]] = {name: [] for name in graph}
    engine = Engine(graph, taps={name: got[name].append for name in graph})
    engine.start()
    edges = sorted({0, len(data), *cuts, *(np.flatnonzero(np.diff(segments)) + 1)})
    for a, b in itertools.pairwise(edges):
        engine.push("x", Block(data[a:b], times[a:b], a, int(segments[a])))
    return {name: packed(blocks) for name, blocks in got.items()}


def packed(blocks: list[Block]) -> bytes:
    rows = [
        (int(b.seq) + i, int(b.segment), b.times[i].tobytes(), b.data[i].tobytes())
        for b in blocks
        for i in range(len(b))
    ]
    return repr(rows).encode()


def alone(graph: Graph, data: np.ndarray, times: np.ndarray, segments: np.ndarray) -> dict[str, bytes]:
    """The same without fusing: each kernel in a loop of its own, fed with what its parent gave."""
    engine_specs: dict[str, Spec] = {"x": graph["x"].start()}  # type: ignore[dict-item]
    edges = [0, *(np.flatnonzero(np.diff(segments)) + 1), len(data)]
    got = {"x": [Block(data[a:b], times[a:b], a, int(segments[a])) for a, b in itertools.pairwise(edges)]}
    for name, place in graph.places.items():
        if isinstance(place.node, Kernel):
            loop = Loop([place.node], [-1], [0])
            source = place.edges[0].source
            engine_specs[name] = loop.start(engine_specs[source])[0]
            got[name] = [b for x in got[source] for _, b in loop.process(x)]
    return {name: packed(blocks) for name, blocks in got.items()}


# shrinking would compile hundreds of loops; the same trees each time find theirs in the cache
@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate])
@given(trees(), st.lists(st.integers(1, 59), max_size=6), st.integers(0, 2**31), st.booleans())
def test_fused_and_cut_equals_alone_and_whole(
    tree: tuple[list[int], list[int]], cuts: list[int], seed: int, gap: bool
) -> None:
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((60, 3)).astype(np.float32)
    data[rng.random((60, 3)) < 0.02] = np.nan
    times = np.arange(60) / RATE
    segments = (np.arange(60) >= 37) * int(gap)
    whole = outputs(graph_of(*tree), data, times, segments, [])
    assert outputs(graph_of(*tree), data, times, segments, cuts) == whole
    assert alone(graph_of(*tree), data, times, segments) == whole
    assert len(whole["k0"]) > 2


def test_only_what_is_heard_is_stored() -> None:
    loop = Loop([Decay(), Sum(), First()], [-1, 0, 0], [1, 2])
    loop.start(Spec(rate=10, channels=("a", "b")))
    given_ = loop.process(Block(np.ones((4, 2)), np.arange(4.0)))
    assert [i for i, _ in given_] == [1, 2]
    assert given_[1][1].data.shape == (4, 1)


def test_new_segment_resets_only_who_wants_it() -> None:
    X, t = np.ones((3, 1)), np.arange(3.0)
    loop = Loop([Sum(), Decay()], [-1, 0], [0, 1])
    loop.start(Spec(rate=1, channels=("a",)))
    first = loop.process(Block(X, t, 0, 0))
    again = loop.process(Block(X, t + 9, 3, 1))
    assert np.array_equal(first[0][1].data, again[0][1].data)
    assert again[1][1].data[0, 0] > first[1][1].data[0, 0]
    assert (again[0][1].seq, again[0][1].segment) == (3, 1)


def test_checkpoint_and_restore() -> None:
    X, t = np.random.default_rng(0).standard_normal((20, 2)), np.arange(20.0)
    loop = Loop([Sum(), Decay()], [-1, 0], [1])
    loop.start(Spec(rate=1, channels=("a", "b")))
    loop.process(Block(X[:10], t[:10]))
    saved = loop.checkpoint()
    one = loop.process(Block(X[10:], t[10:]))[0][1]
    loop.restore(saved)
    two = loop.process(Block(X[10:], t[10:]))[0][1]
    assert one.data.tobytes() == two.data.tobytes()


def test_state_of_a_kernel_is_the_loops_own_memory() -> None:
    node = Sum()
    loop = Loop([Decay(), node], [-1, 0], [1])
    loop.start(Spec(rate=1, channels=("a", "b")))
    out = loop.process(Block(np.ones((5, 2)), np.arange(5.0)))[0][1]
    assert np.array_equal(node.state.total, out.data[-1])
    assert node.state.seen[0] == 5


def test_swap_takes_effect_at_the_next_sample_and_touches_nobody_else() -> None:
    a, b = Sum(), Sum()
    loop = Loop([a, b], [-1, 0], [0, 1])
    loop.start(Spec(rate=1, channels=("a",)))
    loop.process(Block(np.ones((1, 1)), np.zeros(1)))
    loop.swap(0, SumParams(1, np.array([10.0])), loop.kernels[0].state)
    out = loop.process(Block(np.ones((1, 1)), np.ones(1)))
    assert out[0][1].data[0, 0] == 11.0
    assert a.params.gain[0] == 10.0
    assert b.params.gain[0] == 1.0
    with pytest.raises(StreamError, match="another shape"):
        loop.swap(0, SumParams(1, np.ones(2)), loop.kernels[0].state)


def test_text_is_refused_by_name() -> None:
    node = Sum()
    node.name = "total"
    with pytest.raises(StreamError, match=r"node 'total' \(parts:Sum\): takes numbers"):
        Loop([node], [-1], [0]).start(Spec(rate=0, channels=("m",), dtype="str"))


def test_apply_is_the_same_for_any_block() -> None:
    X = np.random.default_rng(1).standard_normal((50, 2))
    whole = apply(Zscore(window=1.0), X, rate=10)
    assert all(apply(Zscore(window=1.0), X, rate=10, block=k).data.tobytes() == whole.data.tobytes() for k in (1, 7))


class OneState(NamedTuple):
    z: np.ndarray


def test_a_changed_helper_is_another_loop() -> None:
    """Numba's own cache sees the file of a function only; the loop's name must see what it reaches."""

    def made(factor: float) -> Any:
        @kernel
        def helper(v: float) -> float:
            return factor * v

        class K(Kernel):
            @staticmethod
            @kernel
            def step(params: Any, state: Any, t: float, x: Any, y: Any) -> bool:
                y[0] = helper(x[0])
                return True

        return K

    results = [apply(made(f)(), np.ones((1, 1))).data[0, 0] for f in (2.0, 3.0, 2.0)]
    assert results == [2.0, 3.0, 2.0]
    texts = ["|".join(fuse.reach(made(f).step, set())) for f in (2.0, 3.0)]
    assert texts[0] != texts[1]
    assert texts[0] == "|".join(fuse.reach(made(2.0).step, set()))


SEEN = """
import types
from typing import Any
import numba
import numpy as np
from rheobase.stream.node import kernel

many = numba.vectorize(["float64(float64)"])(lambda v: {k} * v)
scalar = np.int64({k})

@kernel
def helper(v: float) -> float:
    return {k} * v

@kernel
def default(v: float, factor: float = {k}) -> float:
    return factor * v

@numba.njit(fastmath={k} == 3)
def fast(v: float) -> float:
    return (v + 1e16) - 1e16

other = types.ModuleType("other")
other.helper, other.deep = helper, types.ModuleType("deep")
other.deep.scalar = {k}

def step(params: Any, state: Any, t: float, x: Any, y: Any) -> bool:
    y[0] = {use}
    return True
"""


@pytest.mark.parametrize(
    "use",
    [
        "scalar * x[0]",
        "default(x[0])",
        "many(x[0])",
        "other.helper(x[0])",
        "other.deep.scalar * x[0]",
        pytest.param("fast(x[0])", marks=pytest.mark.jit),  # an option of the compiler
    ],
)
def test_whatever_a_step_reaches_is_in_the_loops_name(use: str) -> None:
    def made(k: int) -> Kernel:
        space: dict[str, Any] = {}
        exec(SEEN.format(k=k, use=use), space)
        return type("K", (Kernel,), {"step": staticmethod(kernel(space["step"]))})()

    results = [float(apply(made(k), np.ones((1, 1))).data[0, 0]) for k in (2, 3, 2)]
    assert results == ([0.0, 1.0, 0.0] if "fast" in use else [2.0, 3.0, 2.0])


def test_a_number_of_numpy_that_a_step_encloses_is_in_the_loops_name() -> None:
    class K(Kernel):
        factor: int = 1

        def start(self, x: Spec) -> Spec:  # type: ignore[override]
            factor = np.int64(self.factor)

            @kernel
            def step(params: Any, state: Any, t: float, x: Any, y: Any) -> bool:
                y[0] = factor * x[0]
                return True

            self.step = step  # type: ignore[misc]
            return x

    assert [apply(K(factor=k), np.ones((1, 1))).data[0, 0] for k in (2, 3)] == [2.0, 3.0]


def test_loops_compile_in_several_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: apply(Sum(), np.ones((2, 11))).data[1, 0], range(4)))
    assert made == [2.0] * 4


@pytest.mark.parametrize("bad", [np.zeros(2, np.float32), np.zeros(2, bool)])
def test_state_of_another_type_is_refused(bad: np.ndarray) -> None:
    class K(Kernel):
        def start(self, x: Spec) -> Spec:  # type: ignore[override]
            self.state = OneState(bad)
            return x

    with pytest.raises(TypeError, match=r"OneState\.z must be float64 or int64"):
        Loop([K()], [-1], [0]).start(Spec(rate=1, channels=numbered("x", 2)))
