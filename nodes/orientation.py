"""Orientation of a body from its gyroscope, accelerometer and, if there is one, magnetometer."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes import _attitude as of
from rheobase.nodes._attitude import find_north, find_up, integrate
from rheobase.nodes._quaternion import multiply
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.node import Kernel, Positive, kernel


class Settings(NamedTuple):
    """dt: s; b, a (5,), (5, 2): coefficients of each filter; warm (5,): samples that it takes the mean of first;
    grow, motion, vertical, rest: of the bias, (rad/s)^2; k_mag, tau_mag, k_ref: gains of the field and s; has_mag,
    bias, reject: what is on."""

    dt: float
    b: NDArray[np.float64]
    a: NDArray[np.float64]
    warm: NDArray[np.float64]
    grow: float
    motion: float
    vertical: float
    rest: float
    k_mag: float
    tau_mag: float
    k_ref: float
    has_mag: bool
    bias: bool
    reject: bool


class Attitude(NamedTuple):
    """gyr, acc (4,): the two parts of the quaternion; bias (3,) and its covariance P (3, 3); z (22, 2), mean (22,), out
    (22,), seen (5,): the low-pass filters; heading: delta, weight of the first; clock: time at rest, undisturbed,
    rejected, with a new field; field: norm and dip of the reference and of a new one; work (6, 4): room; disturbed."""

    gyr: NDArray[np.float64]
    acc: NDArray[np.float64]
    bias: NDArray[np.float64]
    P: NDArray[np.float64]
    z: NDArray[np.float64]
    mean: NDArray[np.float64]
    out: NDArray[np.float64]
    seen: NDArray[np.int64]
    heading: NDArray[np.float64]
    clock: NDArray[np.float64]
    field: NDArray[np.float64]
    work: NDArray[np.float64]
    disturbed: NDArray[np.int64]


class Orientation(Kernel):
    """The quaternion q (w, x, y, z) that takes the body's axes into the world's: x east, y (magnetic) north, z up.

        q = (cos d/2, 0, 0, sin d/2) * q_acc * q_gyr

    q_gyr is the integral of the rate less its bias. In its axes, which hardly turn, the acceleration is low-passed
    (Butterworth, order 2, tau_acc): what is left of it points up, and q_acc turns so that it does. d turns the field
    to the north, by a low-pass of order 1 (tau_mag) that starts as a plain mean. The bias is a random walk, which a
    Kalman filter knows from the rate at rest (gyroscope and accelerometer still for 1.5 s) and, in motion, from the
    corrections that q_acc needs. A field whose norm or dip is not that of the place is not believed for up to 60 s.

    The input is the rate (3 channels, rad/s), the specific force (3, m/s^2) and, if there is a magnetometer, the field
    (3, any unit), side by side (`merge`) and in the same axes. Without it, d = 0: the heading is that of the start,
    and drifts. Comes out missing where the rate is missing; what else is missing is not corrected for. A gap that opens
    a segment forgets all.

    Errors: neither 6 nor 9 channels; an irregular input.

    Laidig & Seel, Information Fusion 91:187, 2023 (VQF). An error-state Kalman filter with coloured acceleration had
    about the same total error on recorded trials, and half as much again of inclination: `rheobase.tools.orientation`.
    """

    tau_acc: Positive = 3.0
    """How long the acceleration is averaged to find up, s: short for a bad gyroscope, long for a shaken body."""
    tau_mag: Positive = 9.0
    """How long the heading of the field is averaged, s."""
    bias: bool = True
    """Estimate the bias of the gyroscope."""
    reject: bool = True
    """Do not believe a disturbed field."""

    def start(self, x: Spec) -> Spec:
        if x.n not in (6, 9):
            raise StreamError(f"takes rate, acceleration and maybe the field (6 or 9 channels), got {x.n} channels")
        if x.rate == 0:
            raise StreamError("needs a regular rate, its input is irregular")
        dt = 1 / x.rate
        taus = (of.REST_TAU, of.REST_TAU, self.tau_acc, self.tau_acc, of.FIELD_NOW)
        b, a = (np.array(k) for k in zip(*(_butterworth(tau, dt) for tau in taus), strict=True))
        grow = of.BIAS_GROWS**2 * dt / of.BIAS_FORGET
        # the weight that leaves the filter of a random walk with this standard deviation in the end
        motion, rest = (s**4 / grow + s**2 for s in (of.BIAS_MOTION, of.BIAS_REST))
        self.params = Settings(
            dt, b, a, np.array(taus) / dt, grow, motion, motion * of.BIAS_VERTICAL, rest,
            1 - math.exp(-dt / self.tau_mag), float(self.tau_mag), 1 - math.exp(-dt / of.FIELD_TAU),
            x.n == 9, self.bias, self.reject,
        )  # fmt: skip
        one, n = np.array([1.0, 0, 0, 0]), of.GROUPS[-1]
        self.state = Attitude(
            one, one.copy(), np.zeros(3), np.eye(3) * of.BIAS_START**2, np.zeros((n, 2)), np.zeros(n), np.zeros(n),
            np.zeros(5, np.int64), np.array([0.0, 1.0]), np.array([0.0, 0, of.FIELD_MOST, 0]), np.zeros(4),
            np.zeros((6, 4)), np.ones(1, np.int64),
        )  # fmt: skip
        return x.replace(channels=("q_w", "q_x", "q_y", "q_z"), unit="")

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for c in range(3):
            if not math.isfinite(x[c]):
                y[:] = math.nan
                return True
        integrate(params, state, x)
        if math.isfinite(x[3] + x[4] + x[5]) and x[3] * x[3] + x[4] * x[4] + x[5] * x[5] > 0.0:
            find_up(params, state, x)
        if params.has_mag and math.isfinite(x[6] + x[7] + x[8]) and x[6] * x[6] + x[7] * x[7] + x[8] * x[8] > 0.0:
            find_north(params, state, x)
        q, turn = state.work[0], state.work[1]
        multiply(state.acc, state.gyr, q)
        turn[0], turn[1], turn[2] = math.cos(0.5 * state.heading[0]), 0.0, 0.0
        turn[3] = math.sin(0.5 * state.heading[0])
        multiply(turn, q, y)
        return True


def _butterworth(tau: float, dt: float) -> tuple[Array, Array]:
    """b (3,) and a1, a2 of a low-pass of order 2, whose corner is sqrt(2) / (2 pi tau) Hz: its step takes tau s."""
    C = math.tan(math.sqrt(2) / 2 / tau * dt)
    D = C * C + math.sqrt(2) * C + 1
    return C * C / D * np.array([1.0, 2.0, 1.0]), np.array([2 * (C * C - 1), 1 - math.sqrt(2) * C + C * C]) / D
