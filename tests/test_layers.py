"""The layers of sequence models: against their authors' numbers, and the stream against the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
from levels import KINDS, batch, held, mixer, small, weights

from rheobase.nodes import _mamba, _s4d
from rheobase.nodes._layers import exponentials, gated, gelu
from rheobase.nodes._level import initial, layers, level
from rheobase.nodes._s4 import untied
from rheobase.nodes._ssm import discretised_dense, hippo, recur
from rheobase.nodes.sequence import Sequence
from rheobase.stream.block import Spec, StreamError


def test_exponentials_and_gelu_to_the_last_digits() -> None:
    u = np.linspace(-38, 38, 20001)
    room = np.zeros((3, len(u)))
    e = -18 * np.abs(u)
    want = np.exp(e)
    exponentials(e, room[1], len(e))
    assert np.abs(e / want - 1).max() < 4e-16
    y = u.copy()
    gelu(y, room)
    want = u * scipy.special.ndtr(u)
    assert np.abs(y - want).max() < 2e-15
    assert np.abs(y - want)[u < 0].max() < 1e-12 * np.abs(want[u < 0]).max()
    odd = np.array([np.nan, 1.0])
    gelu(odd, np.zeros((3, 2)))
    assert np.isnan(odd).tolist() == [True, False], "one is not the other's business"


@pytest.mark.parametrize("kind", KINDS)
def test_the_stream_equals_the_whole(kind: str) -> None:
    X = np.random.default_rng(0).standard_normal((40, 3))
    node = held(Sequence(net=small(kind), chunks=40))
    Y = node.predict(X)
    assert np.abs(Y - batch(node, X)).max() < 1e-12
    assert np.abs(Y - batch(node, X, "float32")).max() < 1e-4 * np.abs(Y).max()
    X[25:] += 1.0
    assert np.array_equal(node.predict(X)[:25], Y[:25]), "knows the future"
    assert not np.array_equal(node.predict(X)[25:], Y[25:])


def test_minimal_layer_of_s4d_equals_the_authors(golden: Path) -> None:
    torch = pytest.importorskip("torch")
    w = weights(golden / "s4d_minimal_layer.npz")
    C = w["kernel.C"]
    arrays = {
        "log_dt": w["kernel.log_dt"], "A_re": w["kernel.log_A_real"], "A_im": w["kernel.A_imag"],
        "C_re": C[..., 0], "C_im": C[..., 1], "D": w["D"],
    }  # fmt: skip
    arrays = {k: v[None] for k, v in arrays.items()}
    W, b = w["output_linear.0.weight"][:, :, 0].T.copy(), w["output_linear.0.bias"]
    params, state = _s4d.streamed(arrays | {"g": W, "b": b, "W": W[None], "w": b[None]}, 1.0)
    layer = _s4d.Diagonal(params.a_re[0], params.a_im[0], params.c_re[0], params.c_im[0], params.D[0])
    y, z = np.zeros(4), np.zeros(8)
    for u, want in zip(w["u"], w["y"], strict=True):
        state.x_re[:], state.x_im[:] = 0, 0
        for t in range(u.shape[1]):
            recur(layer, state.x_re[0], state.x_im[0], u[:, t].copy(), y)
            given = np.zeros(4)
            gated(W, b, y, z, given, np.zeros((3, 4)))
            assert np.abs(given - want[:, t]).max() < 1e-10
    u = torch.tensor(w["u"]).transpose(1, 2)
    y = _s4d.convolved(torch.tensor(w["K"]), u) + torch.tensor(w["D"]) * u
    added = _s4d.gate(y, torch.tensor(W), torch.tensor(b), lambda v: v).transpose(1, 2).numpy()
    assert np.abs(added - w["y"]).max() < 1e-10


def test_block_of_mamba_equals_the_authors(golden: Path) -> None:
    torch = pytest.importorskip("torch")
    w = weights(golden / "mamba_block.npz")
    arrays = mixer(w)
    y = _mamba.mixed({k: torch.tensor(v.copy()) for k, v in arrays.items()}, torch.tensor(w["x"])).numpy()
    assert np.abs(y - w["y"]).max() < 1e-10
    none = {"g": np.ones((2, 8)), "b": np.zeros((2, 8))}
    for x, want, conv, ssm in zip(w["x"], w["y_step"], w["conv_state"], w["ssm_state"], strict=True):
        params, state = _mamba.streamed({k: np.ascontiguousarray(v)[None] for k, v in arrays.items()} | none, 1.0)
        for t in range(len(x)):
            state.v[:] = x[t]
            _mamba.mix(params, state, 0)
            assert np.abs(state.y - want[t]).max() < 1e-10
        assert np.abs(state.x[0] - conv.T).max() < 1e-10
        assert np.abs(state.s[0] - ssm.T).max() < 1e-10


def test_selective_scan_equals_the_authors(golden: Path) -> None:
    torch = pytest.importorskip("torch")
    w = {k: torch.tensor(v) for k, v in weights(golden / "selective_scan_ref.npz").items()}
    for dtype, tolerance, name in ((torch.float64, 1e-10, "out_f64"), (torch.float32, 1e-5, "out_f32")):
        v = {k: x.to(dtype) for k, x in w.items()}
        u, dt, B, C = (v[k].transpose(1, 2) for k in ("u", "delta", "B", "C"))
        dt = torch.nn.functional.softplus(dt + v["delta_bias"])
        y = _mamba.scan(dt, v["A"].T, B, C, u) + v["D"] * u
        if dtype is torch.float64:
            assert (y.transpose(1, 2) - w["out_f64_noz"]).abs().max() < tolerance
        y = (y * torch.nn.functional.silu(v["z"].transpose(1, 2))).transpose(1, 2)
        assert (y - v[name]).abs().max() < tolerance * w[name].abs().max()


def test_the_compiled_scan_has_the_gradient_of_the_plain_one() -> None:
    torch = pytest.importorskip("torch")
    g = torch.Generator().manual_seed(0)
    sizes = ((2, 7, 3, 5), (2, 7, 5), (2, 7, 3), (2, 7, 3))
    given = [torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in sizes]
    w = torch.randn(2, 7, 5, generator=g, dtype=torch.float64)
    found = []
    for scan in (_mamba.plain_scan, _mamba._compiled_scan().apply):
        y = scan(*given)
        found.append([y.detach(), *torch.autograd.grad((y * w).sum(), given)])
    for plain, compiled in zip(*found, strict=True):
        assert (plain - compiled).abs().max() < 1e-12


def test_s4_starts_as_legs_itself() -> None:
    """Its response, learnt from C~ of 16 samples, is that of the dense matrix: of LegS, not of its diagonal."""
    torch = pytest.importorskip("torch")
    s4, N, L, dt = layers("s4"), 8, 16, 0.05
    a = s4.initial(np.random.default_rng(0), level("net", small("s4", width=1, layers=1)), (dt, dt))
    z = {k: torch.complex(torch.tensor(a[f"{k}_re"][0]), torch.tensor(a[f"{k}_im"][0])) for k in ("P", "B", "C")}
    Lambda = torch.complex(-torch.tensor(a["A_re"][0]).exp(), torch.tensor(a["A_im"][0]))
    K = s4.response(Lambda, z["P"], z["B"], z["C"], torch.tensor([dt], dtype=torch.float64), L)[0].numpy()
    A, B, P = hippo("legs", N)
    S = (A + P.T @ P - (A + P.T @ P).T) / 2
    V = np.linalg.eigh(-1j * S)[1]
    V = np.hstack([V[:, N // 2 :], V[:, N // 2 :].conj()])  # the basis that C is written in
    C = untied(Lambda.numpy(), z["P"].numpy(), z["C"].numpy(), np.array([dt]), L)[0]
    c = (np.concatenate([C, C.conj()]) @ V.conj().T).real
    dA, dB = discretised_dense(A, B, dt, "bilinear")
    want = [c @ np.linalg.matrix_power(dA, t) @ dB for t in range(L)]
    assert np.abs(K - want).max() < 1e-10 * np.abs(want).max()


@pytest.mark.parametrize("kind", ["s4d", "s4"])
def test_another_rate_is_another_step(kind: str) -> None:
    """Learnt at 50 Hz, run at 100 Hz on the same waves: nearly the same at the same times."""
    t = np.arange(400) / 100
    X = np.column_stack([np.sin(2 * np.pi * f * t) for f in (0.5, 0.8, 1.1)])
    node = held(Sequence(net=small(kind, memory=[0.2, 2.0]), chunks=200))
    slow = node.predict(X[::2])
    node.header["in"]["rate"] = 50.0
    from rheobase.stream.fuse import apply

    fast = apply(node, X, Spec(rate=100, channels=("a", "b", "c"))).data
    settled = slice(50, None)
    error = np.abs(fast[::2] - slow)[settled].max() / np.ptp(slow[settled])
    assert error < 0.05
    same = held(Sequence(net=small(kind, memory=[0.2, 2.0]), chunks=200), like=node.arrays, rate=100.0)
    unscaled = same.predict(X)[::2]
    assert np.abs(unscaled - slow)[settled].max() > 4 * error * np.ptp(slow[settled])


def test_memory_sets_the_step() -> None:
    a = initial("net", np.random.default_rng(0), level("net", {"memory": [0.1, 10.0], "width": 200}), 50.0, 3, 2)
    spans = 1 / np.exp(a["log_dt"]) / 50.0
    assert spans.min() >= 0.1
    assert spans.max() <= 10.0
    assert np.quantile(spans, 0.5) == pytest.approx(1.0, rel=0.3)


@pytest.mark.parametrize(
    "given, message",
    [
        ("s4x", r"low: type: unknown value 's4x'; did you mean 's4'\?"),
        ({"type": "lstm", "wdith": 3}, r"low: unknown key 'wdith'; did you mean 'width'\?"),
        ({"type": "lstm", "width": 0}, "low: expected `int` >= 1"),
        ({"type": "transformer", "width": 5}, "low: width: 5 features cannot be shared among 2 heads"),
        ({"type": "s4d", "states": 7}, "low: states: 7: conjugate pairs need an even number"),
        ({"type": "s4d", "init": "leg"}, r"low: init: unknown value 'leg'; did you mean 'legs'\?"),
        ({"type": "s4", "init": "lin"}, "low: init: s4 starts from 'legs'"),
        ({"memory": [3.0, 1.0]}, r"low: memory: \[3.0, 1.0\] is \[shortest, longest\]"),
        ({"memory": [3.0, np.inf]}, r"low: memory: \[3.0, inf\] is \[shortest, longest\]"),
        ({"type": "lstm", "init": "ptd"}, "low: init: means nothing to 'lstm'"),
        ({"type": "mamba", "context": 3}, "low: context: means nothing to 'mamba'"),
    ],
)
def test_what_is_wrong_with_a_level(given: Any, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        level("low", given)


def test_memory_needs_a_rate() -> None:
    with pytest.raises(StreamError, match="net: memory: is in s, and the rate of the input is not known"):
        initial("net", np.random.default_rng(0), level("net", {"memory": [0.1, 1.0]}), 0.0, 3, 2)
    with pytest.raises(StreamError, match=r"net: memory: 0.01 s at most, and 0.02 s from sample to sample"):
        initial("net", np.random.default_rng(0), level("net", {"memory": [0.001, 0.01]}), 50.0, 3, 2)


def test_a_transformer_looks_back_no_further_than_it_did_in_learning() -> None:
    assert level("high", "transformer", 40).context == 40
    assert level("high", "transformer", 400).context == level("low", "transformer").context == 64
    with pytest.raises(StreamError, match="high: context: 41 is more than the 40 that a window of learning has"):
        level("high", {"type": "transformer", "context": 41}, 40)


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_of_another_shape_is_refused(kind: str) -> None:
    for key in layers(kind).SHAPES:
        node = held(Sequence(net=small(kind), chunks=40))
        if node.arrays[f"net.{key}"].ndim:
            node.arrays[f"net.{key}"] = node.arrays[f"net.{key}"][..., :-1]
        elif key != "L":
            node.arrays[f"net.{key}"] = np.array(99.0)
        else:
            del node.arrays[f"net.{key}"]
        with pytest.raises(StreamError, match="array "):
            node.start(Spec(rate=50, channels=("a", "b", "c")))


def test_starts_of_a_state_space() -> None:
    """Every start of S4D decays, and a start by perturbation has its real modes."""
    for init in ("lin", "inv", "legs", "real", "ptd"):
        a = layers("s4d").initial(np.random.default_rng(3), level("net", small("s4d", init=init)), (1e-3, 0.1))
        assert np.isfinite(np.concatenate([v.ravel() for v in a.values()])).all()
        assert (np.exp(a["A_re"]) >= 0.3).all(), "a mode that hardly decays"
