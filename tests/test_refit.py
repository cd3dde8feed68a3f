"""ReFIT Kalman filter: the filter of [p, v, 1] whose place is made certain, written out; what the place is good for."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes.kalman import Kalman
from rheobase.nodes.refit import ReFIT, places
from rheobase.stream.block import Block, Spec
from rheobase.stream.fuse import Loop

F = NDArray[np.float64]


def reaches(T: int = 2000, n: int = 8, place: float = 0.05, seed: int = 0) -> tuple[F, F]:
    """Velocities (T, 2) of a cursor that goes out and back, and units (T, n) that tell of velocity and place."""
    rng = np.random.default_rng(seed)
    V = np.zeros((T, 2))
    for t in range(0, T, 40):
        way = rng.standard_normal(2)
        V[t : t + 20], V[t + 20 : t + 40] = way, -way
    V += 0.2 * rng.standard_normal((T, 2))
    p = places(V, np.zeros(T, np.int64), 0.99)
    H_v, H_p = rng.standard_normal((2, 2, n))
    return 3 + V @ H_v + place * p @ H_p + rng.standard_normal((T, n)), V


def twin(a: dict[str, F], X: F, keep: float) -> F:
    """All of [p, v, 1] (5,) in gain form: after each prediction the place is known."""
    A, G, H = np.zeros((5, 5)), np.zeros((5, 5)), np.column_stack([a["H_p"], a["H_v"], a["c"]])
    A[:2, :2], A[:2, 2:4], A[2:4, 2:4], A[4, 4] = keep * np.eye(2), np.eye(2), a["A"], 1
    G[2:4, 2:4] = a["Gamma"]
    mu, P = np.array([0, 0, 0, 0, 1.0]), np.zeros((5, 5))
    P[2:4, 2:4] = a["S"]
    found = []
    for t, x in enumerate(X):
        if t:
            mu, P = A @ mu, A @ P @ A.T + G
            P[:2], P[:, :2] = 0, 0
        if np.isfinite(x).all():
            K = P @ H.T @ np.linalg.inv(H @ P @ H.T + a["Lambda"])
            mu, P = mu + K @ (x - H @ mu), P - K @ H @ P
        found.append(mu[2:4])
    return np.array(found)


def test_equals_the_whole_state_with_a_certain_place() -> None:
    X, V = reaches()
    d = ReFIT(memory=50).fit(X, V)
    X = X[:300]
    X[[0, 20, 21], 3] = np.nan
    np.testing.assert_allclose(d.predict(X), twin(d.arrays, X, 0.98), rtol=0, atol=1e-9)


def test_learns_what_it_was_drawn_from() -> None:
    X, V = reaches(20000)
    a, rng = ReFIT(memory=100).fit(X, V).arrays, np.random.default_rng(0)
    for _ in range(0, 20000, 40):
        rng.standard_normal(2)
    rng.standard_normal((20000, 2))
    H_v, H_p = rng.standard_normal((2, 2, 8))
    np.testing.assert_allclose(a["H_v"], H_v.T, atol=0.06)
    np.testing.assert_allclose(a["H_p"], 0.05 * a["share"] * H_p.T, atol=0.01)
    np.testing.assert_allclose(a["c"], 3, atol=0.1)
    np.testing.assert_allclose(a["Lambda"], np.eye(8), atol=0.05)


def closed(d: ReFIT | Kalman, H_v: F, H_p: F, wanted: F, seed: int) -> F:
    """The velocities that come out when the decoder's own cursor is the one whose place the units tell of."""
    rng, loop, p, found = np.random.default_rng(seed), Loop([d], [-1], [0]), np.zeros(2), []
    loop.start(Spec(rate=50, channels=tuple("abcdefgh")))
    for v in wanted:
        x = 3 + v @ H_v + p @ H_p + rng.standard_normal(8)
        y = loop.process(Block(x[None], np.zeros(1)))[0][1].data[0]
        p = 0.99 * p + y
        found.append(y)
    return np.array(found)


def test_in_the_loop_the_place_does_not_push_the_cursor() -> None:
    """Errors about what was wanted, against those of the velocity filter, which takes the place for velocity."""
    rng = np.random.default_rng(0)
    H_v = rng.standard_normal((2, 8))
    H_p = 0.05 * H_v  # as if the place were a pull outwards
    wanted = reaches(400)[1]
    _, V = reaches()
    p = places(V, np.zeros(len(V), np.int64), 0.99)
    X = 3 + V @ H_v + p @ H_p + rng.standard_normal((len(V), 8))
    knows, other = ReFIT().fit(X, V), Kalman().fit(X, V)
    a, b = (np.mean((closed(d, H_v, H_p, wanted, 1) - wanted) ** 2) for d in (knows, other))
    assert a < 0.5 * b, (a, b, knows.arrays["share"])


@pytest.mark.parametrize("seed", range(6))
def test_on_a_recording_it_does_not_run_away(seed: int) -> None:
    """However the place acts on the units; without the share some of these do."""
    X, V = reaches(place=0.3, seed=seed)
    d = ReFIT().fit(X, V)
    assert 0 <= d.arrays["share"] <= 1
    Y = d.predict(np.tile(X, (5, 1)))
    assert np.abs(Y).max() < 100 * np.abs(V).max()


def test_units_that_tell_of_velocity_only() -> None:
    X, V = reaches(place=0.0)
    errors = [np.mean((d.fit(X[:1500], V[:1500]).predict(X[1500:]) - V[1500:]) ** 2) for d in (ReFIT(), Kalman())]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_places_begin_anew_in_each_segment() -> None:
    V = np.ones((6, 1))
    V[1] = np.nan
    assert places(V, np.array([0, 0, 0, 1, 1, 1]), 0.5)[:, 0].tolist() == [0, 1, 0.5, 0, 1, 1.5]
    X, V = reaches(400)
    d = ReFIT().fit(X, V, segment=np.arange(400) // 200)
    loop = Loop([d], [-1], [0])
    loop.start(Spec(rate=50, channels=tuple("abcdefgh")))
    for k, x in enumerate((X[:200], X[200:])):
        loop.process(Block(x[:100], np.arange(100.0), 0, k))
    again = d.predict(X[200:300])
    np.testing.assert_array_equal(d.predict(X, np.arange(400) // 200)[200:300], again)
