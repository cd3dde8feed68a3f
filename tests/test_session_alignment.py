"""Session alignment: the formula, what it repairs of a decoder, what it cannot, and its files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from rheobase.nodes.ridge import Ridge
from rheobase.nodes.session_alignment import SessionAlignment
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.check import contract
from rheobase.stream.fuse import apply
from rheobase.tools.scores import r2

F = NDArray[np.float64]
RATE = 50


def session(T: int, seed: int, n: int = 8) -> tuple[F, F]:
    """Features (T, n), correlated and unlike in size, that tell of z (T, 2); the tuning is the same for every seed."""
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    H, mix = world.standard_normal((2, n)), np.eye(n) + 0.4 * world.standard_normal((n, n))
    z = rng.standard_normal((T, 2))
    return 4 + 2 * z @ H + rng.standard_normal((T, n)) @ mix * np.linspace(0.5, 2, n), z


def spec(n: int = 8) -> Spec:
    return Spec(rate=RATE, channels=tuple(f"x{i}" for i in range(n)))


def aligned(reference: F, X: F, seconds: float, **more: Any) -> F:
    node = SessionAlignment(seconds=seconds, **more).fit(reference)
    return np.asarray(apply(node, X, spec(X.shape[1])).data)


@pytest.mark.parametrize("shrink", [0.0, 0.05])
@pytest.mark.parametrize("n", [1, 8, 40])
def test_is_the_formula(n: int, shrink: float) -> None:
    rng = np.random.default_rng(1)
    A, B = rng.standard_normal((2, n, n))
    reference, X = 3 + rng.standard_normal((500, n)) @ A, rng.standard_normal((1000, n)) @ B
    y = aligned(reference, X, 400 / RATE, shrink=shrink)

    def shrunk(x: F) -> F:
        C = np.cov(x.T, bias=True).reshape(n, n)
        return (1 - shrink) * C + (shrink + 1e-9) * np.trace(C) / n * np.eye(n)

    C, C_ref = shrunk(X[:400]), shrunk(reference)
    root = scipy.linalg.sqrtm(C).real
    W = np.linalg.inv(root) @ scipy.linalg.sqrtm(root @ C_ref @ root).real @ np.linalg.inv(root)
    assert np.array_equal(y[:399], X[:399]), "as it is, until today is known"
    late = slice(430, None)
    expected = reference.mean(axis=0) + (X - X[:400].mean(axis=0)) @ W.T
    np.testing.assert_allclose(y[late], expected[late], rtol=1e-6, atol=1e-6)


def test_the_decoder_of_yesterday_works_again() -> None:
    """After offsets, gains, and a common mode: R2 near what it was, and the features near what they were."""
    X, Z = session(3000, seed=1)
    today, Z_today = session(6000, seed=2)
    rng = np.random.default_rng(3)
    gain = np.diag(rng.uniform(0.4, 2.0, 8))
    B = gain + 0.3  # symmetric, positive definite
    assert np.linalg.eigvalsh(B).min() > 0
    broken = today @ B + rng.uniform(-20, 20, 8)
    decoder = Ridge().fit(X, Z)
    repaired = aligned(X, broken, 60, shrink=0.0)
    late = slice(3100, None)
    before, spoilt, after = (r2(decoder.predict(x)[late], Z_today[late]) for x in (today, broken, repaired))
    assert before > 0.7 and spoilt < 0 and after > before - 0.03, (before, spoilt, after)
    off = np.sqrt(np.mean((repaired - today)[late] ** 2, axis=0)) / today.std(axis=0)
    assert off.max() < 5 / np.sqrt(3000), off  # sampling error of a mean is 1 / sqrt(3000) sd, of an sd 0.7 of it


def test_a_turn_it_only_makes_look_right() -> None:
    """Electrodes that have changed places: the moments are those of the reference, the decoder is lost all the same."""
    X, Z = session(3000, seed=1)
    today, Z_today = session(6000, seed=2)
    turned = aligned(X, np.roll(today, 3, axis=1), 60, shrink=0.0)[3100:]
    np.testing.assert_allclose(np.cov(turned.T), np.cov(X.T), rtol=0.2, atol=0.5)
    decoder = Ridge().fit(X, Z)
    assert r2(decoder.predict(turned), Z_today[3100:]) < 0.5 < r2(decoder.predict(today[3100:]), Z_today[3100:])


def test_missing_channels() -> None:
    X, _ = session(2000, seed=1)
    clean = aligned(X, X, 20)
    holed = X.copy()
    holed[100, 2], holed[1500, 3] = np.nan, np.inf
    y = aligned(X, holed, 20)
    assert np.isnan(y[100, 2]) and np.isnan(y[1500, 3]) and np.isfinite(np.delete(y[1500], 3)).all()
    assert np.isnan(y).sum() == 2 and np.isfinite(clean).all()


def test_health_says_whether_it_aligns() -> None:
    """A channel that is dead all day leaves no sample to learn from."""
    X, _ = session(1000, seed=1)
    node = SessionAlignment(seconds=10).fit(X)
    assert node.health == {}
    apply(node, X, spec())
    assert node.health == {"learnt": 500, "lacks": 0, "aligns": 1}
    X[20:, 2] = np.nan
    apply(node, X, spec())
    assert node.health == {"learnt": 20, "lacks": 480, "aligns": 0}


def test_without_a_model_nothing_changes_and_a_run_writes_one(tmp_path: Path) -> None:
    X, _ = session(1500, seed=1)
    file = tmp_path / "session.npz"
    node = SessionAlignment(write=str(file), seconds=5)
    holed = X.copy()
    holed[7, 1] = np.nan
    assert np.array_equal(apply(node, holed, spec()).data, holed, equal_nan=True)
    node.stop()
    read = SessionAlignment(model=str(file), seconds=20)
    read.check()
    other = SessionAlignment(seconds=20).fit(np.delete(X, 7, axis=0))
    ours, theirs = (apply(k, X, spec()).data for k in (read, other))
    np.testing.assert_allclose(ours, theirs, atol=1e-8)
    with pytest.raises(StreamError, match="was fitted on 8 channels, the input has 7"):
        SessionAlignment(model=str(file)).start(spec(7))


def known() -> SessionAlignment:
    return SessionAlignment(seconds=1).fit(session(300, seed=1, n=3)[0])


@pytest.mark.parametrize("name, check", contract(known, spec(3)))
def test_contract_with_a_session_known(name: str, check: Any) -> None:
    check()


@pytest.mark.parametrize(
    "values, rate, message",
    [
        ({}, 0, "its input is irregular"),
        ({"seconds": 0.1}, 50, "seconds: 0.1 s are 5 samples, too few for 8 channels"),
        ({"model": "nowhere.npz"}, 50, "no file 'nowhere.npz'"),
    ],
)
def test_what_a_user_gets_wrong(values: dict[str, Any], rate: float, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        SessionAlignment(**values).start(spec().replace(rate=rate))
