"""How far off `orientation` is on recorded trials: python -m rheobase.tools.orientation

The six trials of BROAD that come with optical truth, where they are marked as movement and tracking was not lost. With
the error e = q q_truth^-1 = (w, x, y, z) in the axes of the world: heading 2 atan(z / w), inclination 2 acos |(w, z)|,
total 2 acos |w|, as their authors define them; root mean square, degrees. The truth's axes are the world's already (z
up, y magnetic north): nothing is aligned, so an error of north in the truth counts as ours.

Settings are chosen, for each trial, by the mean total error on the five others. The rival is an error-state Kalman
filter (rotation, bias, acceleration and field as coloured noise, and rest as a measurement of the bias), set as well as
could be by the same rule. What `orientation` has as default was chosen by its authors on data that include these.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import rich.console
import rich.table
from numpy.typing import NDArray

from rheobase.devices import _tables
from rheobase.nodes.orientation import Orientation
from rheobase.stream.block import StreamError
from rheobase.stream.files import find
from rheobase.stream.fuse import apply

F = NDArray[np.float64]
DEGREE = math.pi / 180

TRIALS = {
    "02": "02_undisturbed_slow_rotation_B",
    "10": "10_undisturbed_slow_translation_A",
    "11": "11_undisturbed_slow_translation_B",
    "12": "12_undisturbed_slow_translation_C",
    "15": "15_undisturbed_fast_translation_A",
    "18": "18_undisturbed_fast_translation_with_breaks_B",
}


class Trial(NamedTuple):
    """rate: Hz; x (T, 9): rate, specific force, field; truth (T, 4); used (T,): what is scored."""

    rate: float
    x: F
    truth: F
    used: NDArray[np.bool_]


def trial(name: str) -> Trial:
    """One of BROAD."""
    m = _tables.matlab(find(f"data:broad/{TRIALS[name]}.mat"))
    used = (m["movement"].ravel() > 0) & np.isfinite(m["opt_quat"]).all(axis=1)
    return Trial(
        float(m["sampling_rate"][0, 0]), np.hstack([m["imu_gyr"], m["imu_acc"], m["imu_mag"]]), m["opt_quat"], used
    )


def errors(q: F, truth: F) -> F:
    """Root mean square of heading, inclination and total error of q (T, 4), degrees (3,)."""
    w, z = (q * truth).sum(axis=1), _vector(q, truth)[:, 2]
    heading = 2 * np.arctan2(z, w)
    heading = (heading + np.pi) % (2 * np.pi) - np.pi
    inclination = 2 * np.arccos(np.clip(np.hypot(w, z), 0, 1))
    total = 2 * np.arccos(np.clip(np.abs(w), 0, 1))
    return np.asarray(np.degrees(np.sqrt(np.mean(np.square([heading, inclination, total]), axis=1))))


def _vector(q: F, p: F) -> F:
    """The vector part of q p^-1."""
    u, v = q[:, 1:], p[:, 1:]
    return np.asarray(p[:, :1] * u - q[:, :1] * v - np.cross(u, v))


class Setting(NamedTuple):
    """Of the rival. gyr: rad/s/sqrt(Hz); bias: rad/s/sqrt(s); acc, tau_acc: m/s^2 and s of the acceleration; field,
    tau_field: rad and s of the field's own turning; north: rad; rest: rad/s."""

    gyr: float
    bias: float
    acc: float
    tau_acc: float
    field: float
    tau_field: float
    north: float
    rest: float


@numba.njit  # type: ignore[untyped-decorator]
def rival(x: F, rate: float, s: Setting) -> F:
    """q (T, 4) of an error-state Kalman filter: q_true = exp(theta) q, theta in the axes of the world, with

    theta' = -R db,   a' = -a / tau_acc + noise,   d' = -d / tau_field + noise
    R f = a + (0, 0, g) + (0, 0, g) x theta,   atan2(m_x, m_y) = theta_z + d,   rate at rest = bias
    """
    n, dt, g = 10, 1 / rate, 9.81
    P, A, Q = np.zeros((n, n)), np.eye(n), np.zeros((n, n))
    fade, fade_field = math.exp(-dt / s.tau_acc), math.exp(-dt / s.tau_field)
    for i in range(3):
        P[i, i], P[3 + i, 3 + i], P[6 + i, 6 + i] = (0.2 if i < 2 else s.field) ** 2, (0.5 * DEGREE) ** 2, s.acc**2
        Q[i, i], Q[3 + i, 3 + i], Q[6 + i, 6 + i] = s.gyr**2 * dt, s.bias**2 * dt, s.acc**2 * (1 - fade**2)
        A[6 + i, 6 + i] = fade
    P[9, 9], Q[9, 9], A[9, 9] = s.field**2, s.field**2 * (1 - fade_field**2), fade_field
    still_gyr, still_acc, still = x[0, :3].copy(), x[0, 3:6].copy(), 0.0
    b, a, d = np.zeros(3), np.zeros(3), 0.0
    q = np.array([1.0, 0.0, 0.0, 0.0])
    out = np.empty((len(x), 4))
    for k in range(len(x)):
        q = _product(q, _exp((x[k, :3] - b) * dt)) if k else _upright(x[0])
        R = _matrix(q)
        A[:3, 3:6] = -dt * R
        P = A @ P @ A.T + Q
        a *= fade
        d *= fade_field
        still_gyr += dt / 0.5 * (x[k, :3] - still_gyr)
        still_acc += dt / 0.5 * (x[k, 3:6] - still_acc)
        off = max(np.abs(x[k, :3] - still_gyr).max() / (2 * DEGREE), np.abs(x[k, 3:6] - still_acc).max() / 0.5)
        still = still + dt if off < 1 and np.abs(still_gyr).max() < 2 * DEGREE else 0.0
        f, m, e = R @ x[k, 3:6].copy(), R @ x[k, 6:9].copy(), np.zeros(n)
        for j in range(7 if still > 1.5 else 4):
            H, r, y = np.zeros(n), 0.05**2, 0.0
            if j < 3:
                H[6 + j], y = 1.0, f[j] - a[j] - (g if j == 2 else 0.0)
                if j < 2:
                    H[1 - j] = -g if j == 0 else g
            elif j == 3:
                H[2], H[9], r = 1.0, 1.0, s.north**2
                y = (math.atan2(m[0], m[1]) - d + math.pi) % (2 * math.pi) - math.pi
            else:
                H[j - 1], r, y = 1.0, s.rest**2, still_gyr[j - 4] - b[j - 4]
            PH = P @ H
            K = PH / (H @ PH + r)
            e += K * (y - H @ e)
            P -= np.outer(K, PH)
        P = 0.5 * (P + P.T)
        q = _product(_exp(e[:3]), q)
        b += e[3:6]
        a += e[6:9]
        d += e[9]
        out[k] = q
    return out


@numba.njit  # type: ignore[untyped-decorator]
def _product(p: F, q: F) -> F:
    made = np.empty(4)
    made[0] = p[0] * q[0] - p[1] * q[1] - p[2] * q[2] - p[3] * q[3]
    made[1:] = p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:])
    made /= np.sqrt(np.sum(made**2))
    return made


@numba.njit  # type: ignore[untyped-decorator]
def _exp(v: F) -> F:
    angle = np.sqrt(np.sum(v**2))
    made = np.empty(4)
    made[0] = math.cos(angle / 2)
    made[1:] = v * (math.sin(angle / 2) / angle if angle > 1e-9 else 0.5)
    return made


@numba.njit  # type: ignore[untyped-decorator]
def _matrix(q: F) -> F:
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@numba.njit  # type: ignore[untyped-decorator]
def _upright(x: F) -> F:
    """From one sample: up is along the force, north along the field."""
    up = x[3:6] / np.sqrt(np.sum(x[3:6] ** 2))
    q = _product(np.array([1.0, 0.0, 0.0, 0.0]), np.array([1 + up[2], up[1], -up[0], 0.0]))
    m = _matrix(q) @ x[6:9].copy()
    turn = _exp(np.array([0.0, 0.0, math.atan2(m[0], m[1])]))
    made: F = _product(turn, q)
    return made


def chosen(scores: F) -> NDArray[np.int64]:
    """For each trial, the setting with the least mean total error on the others; scores (settings, trials, 3)."""
    total = scores[:, :, 2]
    rest = (total.sum(axis=1, keepdims=True) - total) / (total.shape[1] - 1)
    return np.asarray(rest.argmin(axis=0))


def ours(t: Trial, **values: float | bool) -> F:
    """Errors of `orientation` with these parameters."""
    q = apply(Orientation.make(**values), t.x, rate=t.rate).data
    return errors(q[t.used], t.truth[t.used])


def study(trials: Sequence[Trial]) -> dict[str, F]:
    """What was tried -> heading, inclination and total error on each trial (trials, 3)."""
    each = np.arange(len(trials))
    grid = [dict(tau_acc=a, tau_mag=m) for a, m in itertools.product((1.0, 2.0, 3.0, 5.0, 8.0), (3.0, 9.0, 20.0))]
    found = {"as it comes": np.array([ours(t) for t in trials])}
    scores = np.array([[ours(t, **values) for t in trials] for values in grid])
    found["chosen"] = scores[chosen(scores), each]
    found["no bias estimated"] = np.array([ours(t, bias=False) for t in trials])
    found["every field believed"] = np.array([ours(t, reject=False) for t in trials])
    settings = [
        Setting(g * DEGREE, 0.002 * DEGREE, a, tau, 5 * DEGREE, field, north * DEGREE, 0.05 * DEGREE)
        for g, a, tau, (field, north) in itertools.product(
            (0.1, 0.3, 0.8), (1.0, 3.0), (0.05, 0.1, 0.3), ((5.0, 5.0), (20.0, 1.0))
        )
    ]
    scores = np.array([[errors(rival(t.x, t.rate, s)[t.used], t.truth[t.used]) for t in trials] for s in settings])
    found["error-state Kalman filter, chosen"] = scores[chosen(scores), each]
    return found


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    argparse.ArgumentParser(prog="orientation", description="How far off the orientation is.").parse_args(argv)
    try:
        trials = [trial(name) for name in TRIALS]
    except StreamError as e:
        print(f"orientation: {e}", file=sys.stderr)
        return 1
    table = rich.table.Table(title="heading / inclination, degrees (root mean square)")
    table.add_column("trial")
    for name in (*TRIALS, "mean", "total"):
        table.add_column(name, justify="right")
    for what, scores in study(trials).items():
        cells = [f"{h:.2f} / {i:.2f}" for h, i, _ in [*scores, scores.mean(axis=0)]]
        table.add_row(what, *cells, f"{scores[:, 2].mean():.2f}")
    rich.console.Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
