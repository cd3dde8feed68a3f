"""Many units in one stream: each as if it were alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes.arphmm import ARPHMM
from rheobase.nodes.averages import Averages
from rheobase.nodes.fleet import Fleet
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.fuse import Loop, apply

F = NDArray[np.float64]
KEYED = Spec(rate=0, channels=("unit", "a", "b"))
SMOOTH: tuple[Any, ...] = ({"type": "averages", "over": [3, 10]}, {"type": "averages", "over": [2], "age": True})


def mixed(units: list[int], n: int = 40, seed: int = 0) -> F:
    """n samples (n, 2) of each unit, in an order drawn at random: (units n, 3)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.repeat(units, n))
    return np.column_stack([order, rng.standard_normal((len(order), 2))])


def ran(node: Fleet, x: F, times: F | None = None, spec: Spec = KEYED) -> F:
    return apply(node, x, spec, np.arange(len(x)) * 1.0 if times is None else times).data


def alone(x: F) -> F:
    """The two nodes of SMOOTH, one unit."""
    return apply(Averages(over=(2,), age=True), apply(Averages(over=(3, 10)), x).data).data


def test_each_unit_is_followed_as_if_it_were_alone() -> None:
    units = [7, -3, 10**15, 0, 8192, 16384, 7 + 2**40]
    x = mixed(units)
    y = ran(Fleet(chain=SMOOTH, units=8), x)
    for u in units:
        rows = x[:, 0] == u
        assert y[rows, 1:].tobytes() == alone(x[rows, 1:]).tobytes()
    np.testing.assert_array_equal(y[:, 0], x[:, 0])


@pytest.mark.slow
def test_a_learnt_chain_is_followed_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    life = np.tile(np.arange(60)[::-1], 5) * 1.0
    X = (np.minimum(life, 30) / 30 + 0.1 * rng.standard_normal(300))[:, None]
    given = {"states": 3, "order": 1, "width": 10.0, "phases": 1, "horizon": 100}
    node = ARPHMM(**given).fit(X, life[:, None], segment=np.repeat(np.arange(5), 60))
    node.save(tmp_path / "a.npz")
    fleet = Fleet(chain=({"type": "arphmm", "model": str(tmp_path / "a.npz"), **given},), units=5)
    order = rng.permutation(np.repeat(np.arange(5), 60))
    x = np.column_stack([order, X[np.argsort(np.argsort(order, kind="stable"))]])
    y = ran(fleet, x, spec=Spec(rate=0, channels=("unit", "health")))
    for u in range(5):
        assert y[order == u, 1:].tobytes() == node.predict(x[order == u, 1:]).tobytes()


def test_units_come_and_go() -> None:
    """Two rows, three units: the third waits until one has been silent for more than 10 s, and takes its row."""
    when = [(0, 1), (1, 2), (2, 3), (9, 2), (10.5, 3), (11, 3), (12, 1), (25, 2), (26, 1), (27, 3)]
    times, units = np.array([t for t, _ in when]), np.array([u for _, u in when])
    x = np.column_stack([units, np.ones((len(when), 2))])
    node = Fleet(chain=({"type": "averages", "over": [5], "age": True},), units=2, gone=10)
    y = ran(node, x, times)
    ages = [None if np.isnan(a) else round(100 * a) for a in y[:, -1]]
    #  1  2  3 refused  2 again  3 takes the row of 1, which comes too late; 2 is silent for 16 s, and begins afresh
    assert ages == [1, 1, None, 2, 1, 2, None, 1, 1, None]
    assert node.health == {"units": 2, "refused": 3, "afresh": 1, "gave_up": 2}


def test_the_table_of_units_never_forgets_one_or_keeps_one_twice() -> None:
    """Against a dictionary, with many more units than rows and numbers that collide."""
    rng = np.random.default_rng(0)
    n, U, gone = 4000, 10, 12.0
    numbers = np.concatenate([np.arange(20) * 64, rng.integers(-(10**12), 10**12, 20)])
    units, times = rng.choice(numbers, n, p=rng.dirichlet(np.full(40, 0.3))), np.cumsum(rng.exponential(1.0, n))
    node = Fleet(chain=({"type": "averages", "over": [1], "age": True},), units=U, gone=gone)
    y = ran(node, np.column_stack([units, np.zeros(n)]), times, Spec(rate=0, channels=("unit", "a")))
    seen: dict[int, tuple[float, int]] = {}
    for k, (u, t) in enumerate(zip(units, times, strict=True)):
        if u in seen:
            last, age = seen[u]
            seen[u] = (t, 1 if t - last > gone else age + 1)
        else:
            oldest = min(seen, key=lambda v: seen[v][0]) if len(seen) == U else None
            if oldest is not None and t - seen[oldest][0] > gone:
                del seen[oldest]
            if len(seen) < U:
                seen[u] = (t, 1)
        assert (u in seen) == np.isfinite(y[k, -1])
        assert u not in seen or round(100 * y[k, -1]) == seen[u][1]
    assert min(node.health[k] for k in ("gave_up", "refused", "afresh")) > 50


def test_a_checkpoint_is_a_copy_of_its_state() -> None:
    x = mixed([1, 2, 3])
    times = np.arange(len(x)) * 1.0
    first, second = (Loop([Fleet(chain=SMOOTH, units=8)], [-1], [0]) for _ in range(2))
    for loop in (first, second):
        loop.start(KEYED)
    first.process(Block(x[:50], times[:50]))
    second.restore(first.checkpoint())
    rest = [loop.process(Block(x[50:], times[50:], 50))[0][1].data.tobytes() for loop in (first, second)]
    assert rest[0] == rest[1]


def test_scratch_is_shared_and_the_rest_is_not() -> None:
    node = ARPHMM(states=3, order=1, width=10.0, phases=1)
    life = np.arange(60.0)[::-1]
    node.fit(life[:, None] / 60 + 0.1 * np.sin(life)[:, None], life[:, None])
    node.start(Spec(rate=0, channels=("x",)))
    own = sum(a.size for k, a in node.state._asdict().items() if k != "room")
    fleet = Fleet(chain=SMOOTH, units=3)
    fleet.start(KEYED)
    assert fleet.state.f.shape == (3, 1 + 4 + 4) and fleet.state.g.shape == (3, 1 + 3 + 5)
    assert own < 30, "what a unit takes"


@pytest.mark.parametrize(
    "node, spec, words",
    [
        (Fleet(chain=SMOOTH), KEYED.replace(channels=("a", "unit", "b")), "first channel must be 'unit'"),
        (Fleet(chain=SMOOTH), KEYED.replace(channels=("unit",)), "another follow"),
        (Fleet(chain=("averagess",)), KEYED, "chain: node 0 .averagess.: unknown type .*did you mean 'averages'"),
        (Fleet(chain=("view",)), KEYED, "it is no kernel"),
        (Fleet(chain=({"type": "fleet", "chain": ["car"]},)), KEYED, "it is no kernel"),
        (Fleet(chain=({"over": 3},)), KEYED, "needs a type"),
        (Fleet(chain=()), KEYED, "chain: of 1 to 8 nodes"),
        (Fleet(chain=({"type": "averages", "over": [0]},)), KEYED, "over: spans are of at least one"),
        (Fleet(chain=({"type": "averages", "ove": [0]},)), KEYED, "unknown key 'ove'; did you mean 'over'"),
        (Fleet(chain=("zscore",)), KEYED, "needs a regular rate"),
    ],
)
def test_what_is_refused(node: Fleet, spec: Spec, words: str) -> None:
    with pytest.raises(StreamError, match=words):
        node.start(spec)


def test_a_missing_model_is_said_before_it_runs() -> None:
    with pytest.raises(StreamError, match="no file"):
        Fleet(chain=({"type": "arphmm", "model": "nowhere.npz"},)).check()


def test_a_gap_in_the_stream_is_a_silence_of_each_unit() -> None:
    """A sender that was started anew does not make a worn fleet new."""
    node = Fleet(chain=({"type": "averages", "over": [5], "age": True},), units=2)
    loop = Loop([node], [-1], [0])
    loop.start(KEYED)
    x = np.array([[1.0, 0, 0], [2.0, 0, 0], [1.0, 0, 0]])
    ages = [loop.process(Block(x, 100.0 * k + np.arange(3.0), 0, k))[0][1].data[:, -1] for k in range(2)]
    assert ages[1][0] > ages[0][2] > ages[0][0]
