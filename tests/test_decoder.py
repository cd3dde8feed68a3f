"""What all decoders share: fitting, model files, and the errors of both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training
from rheobase.nodes.dkf import DKF
from rheobase.nodes.kalman import Kalman
from rheobase.nodes.mlp import MLP
from rheobase.nodes.ridge import Ridge
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.files import load_model, save_model
from rheobase.stream.fuse import apply
from rheobase.stream.node import load

F = NDArray[np.float64]
IN = Spec(rate=50, channels=tuple("abcdef"), unit="count")
OUT = Spec(rate=50, channels=("vx", "vy"), unit="m/s")


def world(T: int = 120) -> tuple[F, F]:
    rng = np.random.default_rng(0)
    Z = np.cumsum(rng.standard_normal((T, 2)), axis=0) * 0.1
    return Z @ rng.standard_normal((2, 6)) + rng.standard_normal((T, 6)), Z


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A DKF over ridge regression, as a file."""
    X, Z = world()
    return DKF(f="ridge").fit(X, Z, inputs=IN, outputs=OUT).save(tmp_path / "m.npz", graph="test")


@pytest.mark.parametrize("name", ["kalman", "ridge", "nadaraya_watson", "mlp", "dkf"])
def test_a_model_file_decodes_as_what_was_fitted(name: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {"mlp": {"hidden": 4, "epochs": 2}}.get(name, {})
    if name == "mlp":
        pytest.importorskip("torch")
    X, Z = world()
    fitted = load(name).make(**values)
    assert isinstance(fitted, Decoder)
    fitted.fit(X, Z, inputs=IN, outputs=OUT)
    path = fitted.save(tmp_path / "m.npz", graph="test")
    read = load(name).make(model=str(path), **values)
    read.check()
    assert np.array_equal(apply(read, X, IN).data, fitted.predict(X))
    _, header = load_model(path)
    assert header["graph"] == "test" and header["node"] == name
    assert (header["in"]["channels"], header["out"]["unit"]) == (list("abcdef"), "m/s")


@pytest.mark.parametrize(
    "spec, message",
    [
        (IN.replace(channels=tuple("abcde")), r"was fitted on 6 channels, the input has 5 \(missing here: f\)"),
        (IN.replace(channels=tuple("abcdfe")), "was fitted on other channels: channel 4 was 'e', here it is 'f'"),
        (IN.replace(rate=100), "was fitted at 50 Hz, the input has 100 Hz"),
    ],
)
def test_another_input(model: Path, spec: Spec, message: str) -> None:
    with pytest.raises(StreamError, match=rf"model .*m\.npz: {message}"):
        DKF(f="ridge", model=str(model)).start(spec)


@pytest.mark.parametrize(
    "node, message",
    [
        (Kalman(), "is of a 'dkf', this node is a 'kalman'"),
        (DKF(f="nadaraya_watson"), "was fitted with f 'ridge', here it is 'nadaraya_watson': fit it again"),
        (DKF(f="ridge", seed=3), "was fitted with seed 0, here it is 3"),
    ],
)
def test_another_node(model: Path, node: Decoder, message: str) -> None:
    node.model = str(model)
    for ask in (node.check, lambda: node.start(IN)):
        with pytest.raises(StreamError, match=message):
            ask()


def test_what_may_change_after_the_fit(model: Path) -> None:
    for node in (DKF(f="ridge", nonpd="clip"), DKF(f={"type": "ridge"})):
        node.model = str(model)
        node.start(IN)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"A": np.zeros((3, 3))}, r"array A is \(3, 3\), expected \(d d\) = \(2, 2\)"),
        ({"f.W": np.zeros((5, 2))}, r"array W is \(5, 2\), expected \(l d\) = \(6, 2\)"),
        ({"Gamma": None}, "has no array 'Gamma'"),
        ({"Q": np.zeros((2, 2))}, "Q is not positive definite"),
        ({"S": np.zeros((2, 2))}, "S is not positive definite"),
    ],
)
def test_arrays_that_do_not_fit(model: Path, change: dict[str, Any], message: str) -> None:
    arrays, header = load_model(model)
    changed: dict[str, Any] = {k: a for k, a in (arrays | change).items() if a is not None}
    save_model(model, changed, header)
    with pytest.raises(StreamError, match=message):
        DKF(f="ridge", model=str(model)).start(IN)


def test_without_a_model() -> None:
    with pytest.raises(StreamError, match="not fitted yet"):
        Ridge().start(IN)
    with pytest.raises(StreamError, match=r"no file 'nothing\.npz'"):
        Ridge(model="nothing.npz").start(IN)
    with pytest.raises(StreamError, match="nothing to save"):
        Ridge().save("m.npz")


def test_a_fit_counts_more_than_the_file(model: Path) -> None:
    X, Z = world()
    d = DKF(f="ridge", model=str(model)).fit(X, 2 * Z, inputs=IN, outputs=OUT)
    assert np.array_equal(d.predict(X), DKF(f="ridge").fit(X, 2 * Z).predict(X))


@pytest.mark.parametrize(
    "X, Z, message",
    [
        (np.zeros((50, 3)), np.zeros((40, 2)), "X has 50 rows, Z 40"),
        (np.zeros(50), np.zeros((50, 2)), r"X must be \(rows, channels\), has shape \(50,\)"),
        (np.full((50, 3), np.nan), np.zeros((50, 2)), "0 rows to learn from, 7 are the least for 3 channels"),
        (np.zeros((50, 3)) * [1, np.nan, 1], np.zeros((50, 2)), "channel 1 of X has no value"),
    ],
)
def test_what_cannot_be_learnt_from(X: F, Z: F, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        Ridge().fit(X, Z)


@pytest.mark.parametrize("name", ["kalman", "ridge", "nadaraya_watson", "dkf"])
def test_rows_that_are_not_finite_teach_nothing(name: str) -> None:
    """Where lags are 1, to leave rows out and to mark them as missing is the same."""
    X, Z = world()
    holed = X.copy()
    holed[50:60, 2], wrong = np.nan, Z.copy()
    wrong[50:60] = 1e9
    rows = np.delete(np.arange(120), np.s_[50:60])
    first = load(name).make().fit(holed, wrong).arrays  # type: ignore[attr-defined]
    segment = (rows >= 60).astype(int)
    second = load(name).make().fit(X[rows], Z[rows], segment=segment).arrays  # type: ignore[attr-defined]
    if name == "dkf":  # the draw of held-out rows is by place, and so differs
        first, second = ({k: a[k] for k in ("A", "Gamma", "S", "z_mean")} for a in (first, second))
    for k in first:
        np.testing.assert_allclose(first[k], second[k], rtol=1e-9, atol=1e-12)


def test_windows_and_pairs_stay_within_a_segment() -> None:
    X = np.arange(1.0, 7)[:, None]
    t = Training(X, X, np.array([1, 1, 0, 1, 1, 1], bool), np.array([0, 0, 0, 0, 1, 1]))
    assert t.pairs().tolist() == [1, 5]
    expected = [[1, 0, 0], [2, 1, 0], [3, 2, 1], [4, 3, 2], [5, 0, 0], [6, 5, 0]]
    np.testing.assert_array_equal(t.windows(3, np.zeros(1)), expected)


def test_what_is_decoded_must_be_as_wide_as_what_was_learnt() -> None:
    """A loop that was told of more channels than there are would read memory of others."""
    X, Z = world()
    node = Ridge().fit(X, Z, inputs=IN)
    for wrong in (X[:, :-1], np.hstack([X, X])):
        with pytest.raises(StreamError, match=f"was fitted on {X.shape[1]} channels, X has {wrong.shape[1]}"):
            node.predict(wrong)
    for more in ({"segment": np.zeros(len(X) - 1, int)}, {"rows": np.ones(3, bool)}):
        with pytest.raises(StreamError, match=rf"{next(iter(more))} must be \({len(X)},\), one for each row"):
            Ridge().fit(X, Z, **more)
    with pytest.raises(StreamError, match="segment must be"):
        node.predict(X, np.zeros(len(X) + 1, int))


def test_what_diverged_is_not_given_out_as_learnt() -> None:
    pytest.importorskip("torch")
    X, Z = world()
    with pytest.raises(StreamError, match="learning ended in no numbers"):
        MLP(learning_rate=1e30, epochs=5).fit(X, Z)
