"""The contract that every node must pass.

    @pytest.mark.parametrize("name, check", contract(lambda: Gain(factor=2), Spec(rate=100, channels=("a", "b"))))
    def test_contract(name, check):
        check()

Each check is a function of a `Case`; its docstring says what it holds a node to, and it raises AssertionError where
the node breaks it. Outputs are compared by their bytes: what is only close would drift apart in a replay.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from rheobase.stream.block import Array, Block, Spec
from rheobase.stream.fuse import Loop, reach
from rheobase.stream.node import Kernel, Node, Sink, Source, kernel

Samples = Callable[[np.random.Generator, int, Spec], Array]


def noise(rng: np.random.Generator, n: int, spec: Spec) -> Array:
    """White noise, (n, c)."""
    return rng.standard_normal((n, spec.n))


@dataclass(frozen=True)
class Case:
    """What is checked: a way to make the node, the Specs of its inputs, and samples that suit it."""

    make: Callable[[], Node]
    specs: tuple[Spec, ...]
    samples: Samples
    n: int

    def inputs(self, seed: int = 0) -> list[Block]:
        """A block of n samples for each input, all at the same times."""
        rng = np.random.default_rng(seed)
        rate = self.specs[0].rate
        steps = np.full(self.n, 1 / rate) if rate else rng.exponential(0.01, self.n)
        times = 100.0 + np.cumsum(steps)
        return [Block(np.ascontiguousarray(self.samples(rng, self.n, s)), times) for s in self.specs]

    def alone(self, node: Node | None = None) -> Alone:
        """A node (default: a new one), started."""
        return Alone(self.make() if node is None else node, self.specs)


class Same(Kernel):
    """y = x."""

    def start(self, *inputs: Spec) -> Spec:
        return inputs[0]

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for i in range(x.shape[0]):
            y[i] = x[i]
        return True


class Alone:
    """A node that runs by itself, started afresh."""

    def __init__(self, node: Node, specs: Sequence[Spec]) -> None:
        self.node = node
        if not node.inputs:
            node.inputs = tuple(f"input{i}" for i in range(len(specs)))
        self.loop: Loop | None = None
        if isinstance(node, Kernel):
            self.loop = Loop([node], [-1], [0])
            self.out = self.loop.start(specs[0])[0]
        else:
            out = node.start(*specs)
            assert out is not None, "start() must return the Spec of what comes out"
            self.out = out

    def feed(self, inputs: Sequence[Block], cuts: Sequence[int] = ()) -> list[Block]:
        """What it gives for the inputs, which come in one piece or cut before each sample of `cuts`."""
        given = []
        edges = [0, *sorted(set(cuts) - {0, len(inputs[0])}), len(inputs[0])]
        for a, b in pairwise(edges):
            parts = [x.cut(a, b) for x in inputs]
            if self.loop:
                given += [y for _, y in self.loop.process(parts[0])]
            else:
                y = self.node.process(*parts)
                given += [y] if y is not None and len(y) else []
        return given

    def run(self, inputs: Sequence[Block], cuts: Sequence[int] = ()) -> tuple[bytes, bytes]:
        """Times and samples that it gives, as bytes."""
        given = self.feed(inputs, cuts)
        return b"".join(y.times.tobytes() for y in given), b"".join(y.data.tobytes() for y in given)


def declares_what_it_gives(case: Case) -> None:
    """Width, type, rate and times of the output are those that its Spec and its inputs say."""
    alone, inputs = case.alone(), case.inputs()
    given = alone.feed(inputs, range(0, case.n, 7))
    assert given, f"gave nothing for {case.n} samples"
    seq = 0
    for y in given:
        assert y.data.shape == (len(y.times), alone.out.n), f"gave {y.data.shape} for {alone.out.n} channels"
        assert y.data.dtype == np.dtype(alone.out.dtype), f"gave {y.data.dtype}, its Spec says {alone.out.dtype}"
        assert y.seq == seq, f"gave seq {y.seq} after {seq} samples"
        seq += len(y)
    times = np.concatenate([y.times for y in given])
    known = alone.node.own_times or np.isin(times, inputs[0].times).all()
    assert known, "gave times that its first input does not have"
    assert (np.diff(times) > 0).all(), "gave times that do not grow"
    if alone.out.rate and case.specs[0].rate:
        expected = case.n * alone.out.rate / case.specs[0].rate
        assert abs(seq - expected) <= 1, f"gave {seq} samples for {case.n}, its rate says {expected:g}"


def takes_any_cut(case: Case) -> None:
    """However the stream is cut into blocks, the output is the same."""
    inputs = case.inputs()
    whole = case.alone().run(inputs)
    rng = np.random.default_rng(1)
    some = [rng.choice(case.n, k, replace=False) for k in (1, 2, 5, 20, case.n // 2)]
    for cuts in (range(case.n), range(0, case.n, 3), *(c.tolist() for c in some)):
        assert case.alone().run(inputs, cuts) == whole, f"another output when cut into {len(cuts)} blocks or so"


def starts_afresh(case: Case) -> None:
    """start() forgets all that was: the same node started again gives what a new one gives."""
    alone = case.alone()
    first = alone.run(case.inputs())
    alone.run(case.inputs(seed=1))
    assert case.alone(alone.node).run(case.inputs()) == first, "another output after it was started again"
    assert case.alone().run(case.inputs()) == first, "another output from a new one"


def knows_no_future(case: Case) -> None:
    """What is given for the samples up to one does not depend on those after it."""
    inputs, others = case.inputs(), case.inputs(seed=1)
    for k in (1, case.n // 3, case.n - 1):
        mixed = [x.replace(data=np.concatenate([x.data[:k], u.data[k:]])) for x, u in zip(inputs, others, strict=True)]
        until = inputs[0].times[k - 1]
        seen = []
        for stream in (inputs, mixed):
            given = case.alone().feed(stream)
            seen.append([(y.data[y.times <= until].tobytes(), y.times[y.times <= until].tobytes()) for y in given])
        assert seen[0] == seen[1], f"what it gives for the first {k} samples depends on later ones"


def leaves_its_inputs(case: Case) -> None:
    """Neither the samples it is given nor its parameters change."""
    inputs, alone = case.inputs(), case.alone()
    params = [p.tobytes() for p in alone.loop.p] if alone.loop else []
    before = [(x.data.tobytes(), x.times.tobytes()) for x in inputs]
    alone.feed(inputs, range(0, case.n, 5))
    assert [(x.data.tobytes(), x.times.tobytes()) for x in inputs] == before, "changed its input"
    assert not alone.loop or [p.tobytes() for p in alone.loop.p] == params, "changed its params"


def outlives_missing_samples(case: Case) -> None:
    """NaN and Inf pass: a while after them (here half the stream), the output is finite again where it was without."""
    clean = case.alone().feed(case.inputs())
    finite = np.concatenate([np.isfinite(y.data) for y in clean])
    times = np.concatenate([y.times for y in clean])
    late = times >= case.inputs()[0].times[case.n // 2]
    for a, b in ((0, 3), (case.n // 4, case.n // 4 + 1), (case.n // 4, case.n // 3)):
        for channels in (slice(0, 1), slice(None)):
            for value in (np.nan, np.inf, -np.inf):
                inputs = case.inputs()
                for x in inputs:
                    x.data[a:b, channels] = value
                given = case.alone().feed(inputs)
                there = np.isin(times, np.concatenate([y.times for y in given]))  # it may drop what is missing
                lost = finite.copy()
                lost[there] &= ~np.isfinite(np.concatenate([y.data for y in given]))
                assert not lost[late].any(), f"still not finite long after samples {a} to {b} were {value}"


def allocates_nothing(case: Case) -> None:
    """`step` takes no memory: as much is taken for one sample as for all. Counted by numba, so only with jit on."""
    from numba.core.runtime import _nrt_python, rtsys

    alone, inputs = case.alone(), case.inputs()
    taken = []
    was = _nrt_python.memsys_stats_enabled()
    _nrt_python.memsys_enable_stats()
    try:
        for n in (1, 1, case.n):
            before = rtsys.get_allocation_stats()
            alone.feed([x.cut(0, n) for x in inputs])
            after = rtsys.get_allocation_stats()
            taken.append(after.alloc - before.alloc)
    finally:
        if not was:
            _nrt_python.memsys_disable_stats()
    assert taken[1] == taken[2], f"{(taken[2] - taken[1]) / (case.n - 1):g} allocations a sample"


def resumes_from_a_checkpoint(case: Case) -> None:
    """`state` is all there is: put into a new node halfway, that one goes on as the first does."""
    inputs, k = case.inputs(), case.n // 2 + 1
    first, second = case.alone(), case.alone()
    assert first.loop and second.loop
    first.feed([x.cut(0, k) for x in inputs])
    saved = first.loop.checkpoint()
    rest = [x.cut(k, case.n) for x in inputs]
    expected = first.run(rest)
    second.loop.restore(saved)
    assert second.run(rest) == expected, "another output after its state was put into a new one"


def is_compiled_once(case: Case) -> None:
    """Started again, in this process or another, it is the loop that was compiled before."""
    first, again = case.alone(), case.alone()
    assert first.loop and again.loop
    assert first.loop.run is again.loop.run, "is compiled again when it is started again"
    assert isinstance(first.node, Kernel)
    placed = [text for text in reach(first.node.step, set()) if " at 0x" in text]  # the repr of some object
    assert not placed, f"is compiled again in every process: step reaches {placed[0]}"


def is_the_same_fused(case: Case) -> None:
    """Between two other kernels in one loop, where its output is never stored, it gives what it gives alone."""
    [x] = case.inputs()
    times, data = case.alone().run([x])
    node = case.make()
    assert isinstance(node, Kernel)
    loop = Loop([Same(), node, Same()], [-1, 0, 1], [2])
    loop.start(case.specs[0])
    [(_, y)] = loop.process(x)
    assert (y.times.tobytes(), y.data.tobytes()) == (times, data), "another output between two other kernels"


def pickles(case: Case) -> None:
    """A node travels to another process: there and back by pickle it is the same node, before and after start()."""
    node = case.make()
    expected = case.alone().run(case.inputs())
    for when in ("before", "after"):
        try:
            back = pickle.loads(pickle.dumps(node))  # noqa: S301 our own bytes
        except Exception as e:
            raise AssertionError(f"does not pickle {when} start(): {type(e).__name__}: {e}") from e
        assert case.alone(back).run(case.inputs()) == expected, f"another output from one pickled {when} start()"
        case.alone(node)


def shares_nothing(case: Case) -> None:
    """Two nodes of one kind that run in turns do not meet."""
    a, b = case.inputs(), case.inputs(seed=1)
    expected = case.alone().run(a)
    first, other = case.alone(), case.alone()
    given = []
    for k in range(0, case.n, 9):
        end = min(k + 9, case.n)
        given.append(first.run([x.cut(k, end) for x in a]))
        other.run([x.cut(k, end) for x in b])
    times, data = zip(*given, strict=True)
    assert (b"".join(times), b"".join(data)) == expected, "another output while a second one runs"


def says_what_it_is(case: Case) -> None:
    """The class has a docstring, and there is a string under each parameter."""
    node = case.make()
    text = type(node).__doc__ or ""
    assert text and not text.startswith(f"{type(node).__name__}("), "has no docstring"  # such a one dataclass makes
    silent = [k for k, text in node.meanings().items() if not text]
    assert not silent, f"says nothing of {', '.join(silent)}"


CHECKS: list[Callable[[Case], None]] = [
    declares_what_it_gives,
    takes_any_cut,
    starts_afresh,
    knows_no_future,
    leaves_its_inputs,
    outlives_missing_samples,
    pickles,
    shares_nothing,
    says_what_it_is,
]
"""What every node is held to."""

KERNEL_CHECKS: list[Callable[[Case], None]] = [
    allocates_nothing,
    is_compiled_once,
    resumes_from_a_checkpoint,
    is_the_same_fused,
]
"""What kernels are held to besides."""


def contract(
    make: Callable[[], Node], *specs: Spec, samples: Samples = noise, n: int = 240
) -> list[tuple[str, Callable[[], None]]]:
    """The checks of a node, each with its name.

    make     a new node, not started
    specs    of its inputs
    samples  (generator, n, spec) -> (n, c) samples that suit it
    n        number of samples; the node must get over missing ones within half of them

    Sources and sinks are not held to it: they meet the world, not blocks alone.
    """
    node = make()
    if isinstance(node, Source | Sink):
        raise TypeError(f"{type(node).__name__} is a source or a sink")
    case = Case(make, specs, samples, n)
    checks = CHECKS + (KERNEL_CHECKS if isinstance(node, Kernel) else [])
    return [(check.__name__, partial(check, case)) for check in checks]
