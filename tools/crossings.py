"""How often a stationary Gaussian signal goes above a level, and for how long it stays there.

    nu_u = sqrt(lambda_2) / (2 pi) exp(-u^2 / 2)        upcrossings a second (Rice, Bell Syst Tech J 24:46, 1945)

for a signal of mean 0 and sd 1 with the autocorrelation r(t), lambda_2 = -r''(0). After an upcrossing (a downcrossing)
at 0 it is Slepian's process

    u r(t) -+ R r'(t) / sqrt(lambda_2) + N(0, 1 - r^2 - r'^2 / lambda_2)        R Rayleigh

with P+(t) and P-(t) to be above u at t. Were the stays above and below independent of each other, then in Laplace space

    Psi- = P- / P+      Psi+ = (1 - s P+) / (1 - s P-)

for the densities of how long they last (the independent interval approximation; Bray, Majumdar, Schehr, Adv Phys
62:225, 2013), from which the survival of a stay above, (1 - Psi+) / s, follows by Euler's sum (Abate and Whitt, ORSA J
Comput 7:36, 1995). Where r oscillates this is no law: ask `lawful` first.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

F = NDArray[np.float64]
NODES = 60
"""Of Gauss and Laguerre's rule, for the mean over R."""
ORDER, BINOMIAL = 15, 11
"""Of Euler's sum."""
DAMPING = 18.4
"""A in Abate and Whitt: errors of about exp(-A)."""


def rice(u: float, lambda_2: float) -> float:
    """Upcrossings of the level u a second."""
    return math.sqrt(lambda_2) / (2 * math.pi) * math.exp(-u * u / 2)


def tail(u: float) -> float:
    """P(X > u)."""
    return 0.5 * math.erfc(u / math.sqrt(2))


def curvature(r: F, dt: float) -> float:
    """lambda_2 of an autocorrelation r(0), r(dt), ...: by r(dt) and r(2 dt), to fourth order."""
    return float((2 * (1 - r[1]) * 16 - 2 * (1 - r[2])) / (12 * dt * dt))


def lawful(r: F, rough: float = 1.3, small: float = 0.1) -> str:
    """Why the law does not hold for an autocorrelation; "" where it does.

    A signal has a lambda_2 where 1 - r(t) grows as t^2: four times from dt to 2 dt, twice for one that is rough (as an
    autoregressive one of order 1 is). And r must fall to 0 without swinging below it.
    """
    if not 0 < 1 - r[1] < 0.5:
        return "it changes too fast for its sampling rate"
    if 4 * (1 - r[1]) / (1 - r[2]) > rough:
        return "it is rough: it crosses a level many times at once"
    zero = int(np.argmax(r < small)) if (r < small).any() else len(r)
    if zero == len(r):
        return "it remembers for longer than was looked at"
    if (np.diff(r[:zero]) > 0).any() or r.min() < -small:
        return "its autocorrelation swings"
    return ""


def above(t: F, r: F, slope: F, u: float, lambda_2: float) -> tuple[F, F]:
    """P+(t) and P-(t)."""
    x, w = np.polynomial.laguerre.laggauss(NODES)  # R^2 / 2 is exponential
    R = np.sqrt(2 * x)
    sd = np.sqrt(np.maximum(1 - r**2 - slope**2 / lambda_2, 1e-14))
    made = []
    for sign in (-1.0, 1.0):
        far = (u - u * r - sign * R[:, None] * slope / math.sqrt(lambda_2)) / sd
        p = w @ _upper(far)
        p[t == 0] = 1.0 if sign < 0 else 0.0
        made.append(p)
    return made[0], made[1]


def stays(at: ArrayLike, t: F, r: F, u: float, lambda_2: float, slope: F | None = None) -> F:
    """P(a stay above u lasts longer than each of the times `at`), for r on the even grid t from 0 on."""
    dt = float(t[1] - t[0])
    slope = np.gradient(r, dt, edge_order=2) if slope is None else slope
    up, down = above(t, r, slope, u, lambda_2)
    rest = tail(u)
    weight = np.full(len(t), dt)
    weight[[0, -1]] /= 2
    found = []
    for when in np.ravel(at):
        if when <= 0:
            found.append(1.0)
            continue
        k = np.arange(ORDER + BINOMIAL + 1)
        s = (DAMPING + 2j * math.pi * k) / (2 * when)
        e = np.exp(-s[:, None] * t) * weight
        plus, minus = (e @ (p - rest) + rest / s for p in (up, down))
        value = ((1 - (1 - s * plus) / (1 - s * minus)) / s).real
        terms = np.exp(DAMPING / 2) / when * value * (-1.0) ** k
        terms[0] /= 2
        sums = np.cumsum(terms)[ORDER:]
        found.append(float(sum(math.comb(BINOMIAL, j) * sums[j] for j in range(BINOMIAL + 1)) / 2**BINOMIAL))
    return np.array(found)


def persistence(t: F, r: F, lambda_2: float, slope: F) -> float:
    """theta of P(no zero for t) ~ exp(-theta t): of the stays above 0, sums of a geometric number of the intervals that
    E(t) = -r' / sqrt(lambda_2 (1 - r^2)) is the survival of; theta int e^(theta t) E dt = 1."""
    import scipy.optimize  # late: only this needs it

    E = np.ones(len(t))
    E[1:] = -slope[1:] / np.sqrt(lambda_2 * (1 - r[1:] ** 2))
    dt = float(t[1] - t[0])

    def excess(theta: float) -> float:
        f = np.exp(theta * t) * E
        return theta * dt * float(f.sum() - (f[0] + f[-1]) / 2) - 1

    fall = -math.log(E[-1] / E[len(E) // 2]) / (t[-1] - t[len(E) // 2])
    return float(scipy.optimize.brentq(excess, 1e-9, 0.999 * fall))


def _upper(x: F) -> F:
    from scipy.special import ndtr

    return np.asarray(ndtr(-x))
