"""State-space layers: against published matrices and kernels, and each form against the other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from rheobase.nodes._ssm import (
    Diagonal,
    convolve,
    diagonal,
    discretised,
    discretised_dense,
    hippo,
    initial,
    normal,
    perturbed,
    recur,
    response,
    step_of,
)
from rheobase.stream.block import StreamError

F = NDArray[Any]
STARTS = ("lin", "inv", "legs", "real", "ptd")


def run(p: Diagonal, u: F) -> F:
    """y (L, H) of u (L, H), sample by sample."""
    x_re, x_im, y = np.zeros_like(p.a_re), np.zeros_like(p.a_re), np.zeros_like(u)
    for k in range(len(u)):
        recur(p, x_re, x_im, u[k], y[k])
    return y


def layers(kind: Any, N: int = 64, H: int = 4, how: Any = "zoh") -> tuple[F, F, F, F]:
    """dA, C dB (H, M), weight (M,), D (H,) with dt spread over what is usual."""
    rng = np.random.default_rng(7)
    Lambda, B, weight = initial(kind, N, seed=1)
    C = (rng.standard_normal((H, len(B))) + 1j * rng.standard_normal((H, len(B)))) / np.sqrt(2)
    dA, dB = discretised(Lambda, B, np.geomspace(1e-3, 0.1, H)[:, None], how)
    return dA, C * dB, weight, rng.standard_normal(H)


@pytest.mark.parametrize("N", [4, 8])
@pytest.mark.parametrize("kind", ["legs", "legt", "fout"])
def test_matrices_equal_the_authors(kind: Any, N: int, golden: Path) -> None:
    with np.load(golden / "hippo_matrices.npz") as z:
        want = {k.removeprefix(f"{kind}_{N}_"): z[k] for k in z.files if k.startswith(f"{kind}_{N}_")}
    A, B, P = hippo(kind, N)
    np.testing.assert_allclose(A, want["A"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(B, want["B"], rtol=0, atol=1e-12)
    rough = 1e-6 if kind == "fout" else 1e-12  # that one was made in float32
    np.testing.assert_allclose(P.T @ P, want["P"].T @ want["P"], rtol=0, atol=rough)
    W, size = normal(kind, N)
    np.testing.assert_allclose(W.conj(), want["W"][::-1], rtol=0, atol=max(rough, 1e-10))
    if kind == "fout":  # its zero pair has no basis of its own
        W, size = W[1:], size[1:]
        want["absVB"] = want["absVB"][:-1]
    np.testing.assert_allclose(size, want["absVB"][::-1], rtol=0, atol=max(rough, 1e-10))


@pytest.mark.parametrize("how", ["zoh", "bilinear"])
@pytest.mark.parametrize("kind", ["lin", "inv", "legs", "real"])
def test_kernels_equal_the_authors(kind: str, how: Any, golden: Path) -> None:
    with np.load(golden / "s4d_diag_kernels.npz") as z:
        want = {k.split("|")[2]: z[k] for k in z.files if k.startswith(f"diag-{kind}|{how}|")}
    dA, dB = discretised(want["A"], want["B"], want["dt"], how)
    CB, L = want["C"] * dB, want["u"].shape[-1]
    assert np.abs(dA - want["dA"]).max() < 1e-10
    assert np.abs(dB - want["dB"]).max() < 1e-10
    K = response(dA, CB, L)
    assert np.abs(K - want["K"]).max() < 1e-10
    assert np.abs(convolve(K, want["u"]) - want["y_conv"]).max() < 1e-10
    p = diagonal(dA, CB, np.zeros(3))
    single = Diagonal(*(part.astype(np.float32) for part in p))
    for u, y, last in zip(want["u"], want["y_rec"], want["state_L"], strict=True):
        x_re, x_im, got = np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((L, 3))
        for k in range(L):
            recur(p, x_re, x_im, u[:, k].copy(), got[k])
        assert np.abs(got - y.T).max() < 1e-10
        assert np.abs((x_re + 1j * x_im).T * dB - last).max() < 1e-10
        rough = run(single, np.ascontiguousarray(u.T, np.float32))
        assert np.abs(rough - y.T).max() < 1e-4 * np.abs(y).max()
    K32 = response(dA.astype(np.complex64), CB.astype(np.complex64), L)
    assert K32.dtype == np.float32
    assert np.abs(K32 - want["K"]).max() < 1e-4 * np.abs(want["K"]).max()


@pytest.mark.parametrize("kind", ["lin", "inv", "legs", "real"])
def test_modes_equal_the_authors(kind: Any, golden: Path) -> None:
    """Their imaginary part is negative and at least 1e-4; the phase of their B is LAPACK's, so its size is not kept."""
    with np.load(golden / "s4d_diag_kernels.npz") as z:
        A = z[f"diag-{kind}|zoh|A"][0].conj()
    Lambda, B, weight = initial(kind, 8)
    np.testing.assert_allclose(Lambda, A[np.lexsort((-A.real, A.imag.round(3)))], rtol=0, atol=1.0001e-4)
    assert (weight == 2).all() and (B.imag == 0).all() and (B.real > 0).all()


@pytest.mark.parametrize("how", ["zoh", "bilinear"])
@pytest.mark.parametrize("kind", STARTS)
def test_recurrence_is_convolution(kind: Any, how: Any) -> None:
    dA, CB, weight, D = layers(kind, how=how)
    u = np.random.default_rng(0).standard_normal((400, len(D)))
    by_kernel = convolve(response(dA, CB, len(u), weight), u.T).T + D * u
    error = np.abs(run(diagonal(dA, CB, D, weight), u) - by_kernel).max()
    assert error <= 1e-12 * max(1.0, np.abs(by_kernel).max())


def test_float32_streams_within_1e_4() -> None:
    for kind in ("lin", "legs", "ptd"):
        dA, CB, weight, D = layers(kind)
        p = diagonal(dA, CB, D, weight)
        u = np.random.default_rng(0).standard_normal((2000, len(D)))
        single = run(Diagonal(*(part.astype(np.float32) for part in p)), u.astype(np.float32))
        want = run(p, u)
        assert (np.abs(single - want).max(axis=0) < 1e-4 * np.abs(want).max(axis=0)).all()


def test_the_kernel_of_legs_is_legendre_in_faded_time() -> None:
    A, B, _ = hippo("legs", 8)
    n, t = np.arange(8), 0.7
    whole, _ = discretised_dense(A, B, t)
    want = np.sqrt(2 * n + 1) * scipy.special.eval_legendre(n, 2 * np.exp(-t) - 1) * np.exp(-t)
    np.testing.assert_allclose(whole @ B, want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind, tones, worst", [("legt", (2.3, 4.7), 1e-3), ("fout", (2, 5), 2e-3)])
def test_a_window_holds_the_past(kind: Any, tones: tuple[float, float], worst: float) -> None:
    """Two tones come back from 32 coefficients over the last 2 units of time, those of Fourier's where they fit in."""
    N, L = 32, 1000
    A, B, _ = hippo(kind, N)
    dA, dB = discretised_dense(A, B, step_of(L, 1, 2), "bilinear")
    time = 2 * np.pi * np.arange(3 * L) / L
    u = np.sin(tones[0] * time) + 0.5 * np.cos(tones[1] * time + 1)
    x = np.zeros(N)
    for value in u:
        x = dA @ x + dB * value
    s = (np.arange(L) + 0.5) * 2 / L
    if kind == "legt":
        basis = [np.sqrt(2 * n + 1) * scipy.special.eval_legendre(n, 1 - s) for n in range(N)]
    else:
        m = np.repeat(np.arange(N // 2), 2)
        basis = [np.sqrt(2) * (np.sin if n % 2 else np.cos)(np.pi * m[n] * s) for n in range(N)]
        basis[0] = np.ones(L)
    assert np.sqrt(np.mean((x @ np.array(basis) - u[::-1][:L]) ** 2)) < worst


def test_diagonal_modes_are_the_matrix_they_come_from() -> None:
    """ptd of a tiny perturbation gives LegS itself: all of its states, by some mixing C, to the size of E."""
    A, B, _ = hippo("legs", 8)
    t = np.linspace(0, 3, 40)
    exact = np.array([discretised_dense(A, B, s)[0] @ B for s in t]) @ np.ones(8)
    off = []
    for eps in (1e-2, 1e-3):
        Lambda, size, weight = initial("ptd", 8, eps=eps)
        modes = np.exp(np.outer(t, Lambda)) * size
        basis = np.hstack([modes.real, modes.imag[:, weight == 2]])
        fit = basis @ np.linalg.lstsq(basis, exact, rcond=None)[0]
        off.append(np.abs(fit - exact).max())
    assert off[1] < 0.2 * off[0] < 0.02


@pytest.mark.parametrize("N", [4, 16, 64])
def test_perturbed_modes_are_stable_and_complete(N: int) -> None:
    for seed in range(10):
        Lambda, B, weight = initial("ptd", N, seed)
        assert Lambda.real.max() < -0.3
        assert weight.sum() == N
        assert ((Lambda.imag > 0) == (weight == 2)).all()
        assert np.isfinite(B).all()
    assert np.array_equal(initial("ptd", N, 3).Lambda, initial("ptd", N, 3).Lambda)
    assert not np.array_equal(initial("ptd", N, 3).Lambda, initial("ptd", N, 4).Lambda)


def test_unpaired_modes_count_once() -> None:
    """Where eigenvalues of A + E are real, the sum over modes is still that of the whole matrix."""
    N, L = 8, 50
    rng = np.random.default_rng(0)
    seed = next(s for s in range(100) if (initial("ptd", N, s).weight == 1).any())
    Lambda, _, weight = initial("ptd", N, seed)
    full = np.concatenate([Lambda, Lambda[weight == 2].conj()])
    c = rng.standard_normal(len(Lambda)) + 1j * rng.standard_normal(len(Lambda)) * (weight == 2)
    every = np.concatenate([c, c[weight == 2].conj()])
    dA, dB = discretised(Lambda, np.ones(len(Lambda)), 0.1)
    all_A, all_B = discretised(full, np.ones(N), 0.1)
    want = (every * all_B) @ all_A[:, None] ** np.arange(L)
    assert np.abs(want.imag).max() < 1e-12
    np.testing.assert_allclose(response(dA, c * dB, L, weight), want.real, rtol=0, atol=1e-12)


def test_perturbing_is_nearer_to_legs_than_its_normal_part() -> None:
    """sup |G - G_legs| over frequencies, G = C (i w - A)^-1 B of 64 states, B and C of length 1 (S4D has a spike)."""
    N = 64
    A, B, P = hippo("legs", N)
    B, C = B / np.linalg.norm(B), np.random.default_rng(0).standard_normal(N)
    C /= np.linalg.norm(C)
    w = np.concatenate([np.geomspace(1e-2, 1e4, 400), normal("legs", N)[0].imag])
    exact, normal_part = (
        np.array([C @ np.linalg.solve(1j * f * np.eye(N) - S, B) for f in w]) for S in (A, A + P.T @ P)
    )
    Lambda, V = perturbed(N, eps=0.5)
    diagonalised = (C @ V * np.linalg.solve(V, B) / (1j * w[:, None] - Lambda)).sum(axis=1)
    assert np.linalg.cond(V) < 1e7
    assert np.abs(diagonalised - exact).max() < 0.1 * np.abs(normal_part - exact).max()


def test_a_step_of_zero_and_a_mode_of_zero_are_no_special_case() -> None:
    _, dB = discretised(np.array([-1e-12, -1.0, 0.0]), np.ones(3), 0.1)
    np.testing.assert_allclose(dB, [0.1, 1 - np.exp(-0.1), 0.1], rtol=1e-12)
    _, tiny = discretised(np.array([-0.5 + 3j]), np.ones(1), 1e-6)
    np.testing.assert_allclose(tiny / 1e-6, 1, rtol=1e-5)


def test_dense_rules_are_the_diagonal_ones() -> None:
    for how in ("zoh", "bilinear"):
        dA, dB = discretised_dense(np.diag([-1.0, -3.0]), np.array([1.0, 2.0]), 0.2, how)  # type: ignore[arg-type]
        want = discretised([-1.0, -3.0], [1.0, 2.0], 0.2, how)  # type: ignore[arg-type]
        np.testing.assert_allclose(np.diag(dA), want[0], rtol=1e-14)
        np.testing.assert_allclose(dB, want[1], rtol=1e-14)


def test_another_rate_is_another_step() -> None:
    """A slow signal at half the rate, with dt twice as long, gives the same y within 2 %."""
    Lambda, B, weight = initial("lin", 16)
    rng = np.random.default_rng(2)
    C = rng.standard_normal((1, 8)) + 1j * rng.standard_normal((1, 8))
    t = np.arange(0, 10, 0.005)
    u = np.sin(2 * np.pi * 0.4 * t) + 0.4 * np.sin(2 * np.pi * 1.1 * t + 1)
    found = []
    for every in (1, 2):
        dA, dB = discretised(Lambda, B, step_of(1.0, 200 / every))
        y = run(diagonal(dA[None], C * dB, np.zeros(1), weight), u[::every, None].copy())
        found.append(y[:: 2 // every, 0])
    assert np.abs(found[0] - found[1]).max() < 0.02 * np.abs(found[0]).max()


def test_what_cannot_be() -> None:
    with pytest.raises(StreamError, match="even number"):
        initial("lin", 5)
    with pytest.raises(StreamError, match="no modes 'leg'; did you mean 'legs'"):
        initial("leg", 4)  # type: ignore[arg-type]
    with pytest.raises(StreamError, match="no matrices 'legd'; did you mean"):
        hippo("legd", 4)  # type: ignore[arg-type]
    with pytest.raises(StreamError, match="eps: of 100 perturbations of 1000 none is stable"):
        initial("ptd", 16, eps=1000)
