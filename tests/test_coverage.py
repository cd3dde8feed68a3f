"""Coverage of ellipses: against draws from the very Gaussian, and where it is known by hand."""

import numpy as np
import pytest

from rheobase.tools.coverage import coverage, distance, nees


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_right_covariance_covers_what_it_says(d: int) -> None:
    rng = np.random.default_rng(d)
    T = 20000
    half = rng.standard_normal((T, d, d))
    Sigma = half @ half.transpose(0, 2, 1) + 0.1 * np.eye(d)
    mu = rng.standard_normal((T, d))
    Z = mu + (np.linalg.cholesky(Sigma) @ rng.standard_normal((T, d, 1)))[:, :, 0]
    for p, share in coverage(Z, mu, Sigma).items():
        assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / T)
    assert nees(Z, mu, Sigma) == pytest.approx(1, abs=4 * np.sqrt(2 / (d * T)))
    assert coverage(Z, mu, Sigma / 4)[0.9] < 0.8 and coverage(Z, mu, Sigma * 4)[0.5] > 0.7
    assert nees(Z, mu, Sigma / 4) == pytest.approx(4 * nees(Z, mu, Sigma))


def test_by_hand() -> None:
    """In two dimensions the chi^2 of level p is -2 log(1 - p)."""
    Sigma = np.array([[4.0, 0.0], [0.0, 1.0]])
    edge = np.sqrt(-2 * np.log(0.5))
    Z = np.array([[2 * edge, 0.0], [0.0, edge]]) * np.array([[0.999], [1.001]])
    assert coverage(Z, np.zeros((2, 2)), np.stack([Sigma, Sigma]), [0.5]) == {0.5: 0.5}


def test_what_is_missing_is_left_out() -> None:
    Z = np.array([[0.0, 0.0], [np.nan, 0.0], [9.0, 9.0]])
    mu, Sigma = np.zeros((3, 2)), np.stack([np.eye(2)] * 3)
    assert coverage(Z, mu, Sigma)[0.95] == 0.5
    mu[2, 0] = np.nan
    assert coverage(Z, mu, Sigma)[0.5] == 1.0
    assert np.isnan(distance(Z, mu, Sigma)[1:]).all()
    assert np.isnan(coverage(Z[1:2], mu[1:2], Sigma[1:2])[0.5])


def test_shapes() -> None:
    with pytest.raises(ValueError, match=r"Sigma \(3, 2\) are not"):
        coverage(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2)))
