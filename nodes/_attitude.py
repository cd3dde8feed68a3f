"""The steps of the orientation filter: integrate the rate, find up, find its bias, find north.

Laidig & Seel, Information Fusion 91:187, 2023; `orientation.py` says what it is.
"""

from __future__ import annotations

import math

from rheobase.nodes._quaternion import multiply, to_world
from rheobase.stream.node import kernel

DEGREE = math.pi / 180

# As the authors of the filter chose.
REST_TAU, REST_GYR, REST_ACC, REST_AFTER = 0.5, 2 * DEGREE, 0.5, 1.5  # s, rad/s, m/s^2, s
BIAS_START, BIAS_MOTION, BIAS_REST, BIAS_MOST = (k * DEGREE for k in (0.5, 0.1, 0.03, 2.0))  # rad/s
BIAS_GROWS, BIAS_FORGET, BIAS_VERTICAL = 0.1 * DEGREE, 100.0, 1e4  # rad/s within s; how much less the vertical says
FIELD_NOW, FIELD_TAU, FIELD_NORM, FIELD_DIP = 0.05, 20.0, 0.1, 10 * DEGREE  # s, s, share, rad
FIELD_SURE, FIELD_MOST, FIELD_SLOWER = 0.5, 60.0, 2.0  # s, s, factor
FIELD_FIRST, FIELD_NEW, FIELD_TURNS = 5.0, 20.0, 20 * DEGREE  # s, s, rad/s

GROUPS = (0, 3, 6, 9, 20, 22)
"""Where each filter's channels begin: gyroscope and acceleration for rest; acceleration; R and R b; the field."""
BLAND = 1e-6
"""Below this a quotient is not taken."""


@kernel
def integrate(params, state, x):
    """q_gyr <- q_gyr * exp(w dt), w = rate - bias; and whether the gyroscope is still."""
    s, turn, q = smooth(params, state, 0, x), state.work[0], state.work[1]
    off = 0.0
    fast = False
    for c in range(3):
        off += (x[c] - s[c]) ** 2
        fast |= abs(s[c]) > BIAS_MOST
    if fast or off >= REST_GYR**2:
        state.clock[0] = 0.0
    a, b, c = x[0] - state.bias[0], x[1] - state.bias[1], x[2] - state.bias[2]
    rate = math.sqrt(a * a + b * b + c * c)
    k = math.sin(0.5 * rate * params.dt) / rate if rate * params.dt > BLAND**2 else 0.5 * params.dt
    turn[0], turn[1], turn[2], turn[3] = math.cos(0.5 * rate * params.dt), k * a, k * b, k * c
    multiply(state.gyr, turn, q)
    unit(q, state.gyr)


@kernel
def find_up(params, state, x):
    """q_acc turns so that the low-passed acceleration points up; then the bias."""
    s, up, turn, q = smooth(params, state, 1, x[3:6]), state.work[2], state.work[0], state.work[1]
    off = (x[3] - s[0]) ** 2 + (x[4] - s[1]) ** 2 + (x[5] - s[2]) ** 2
    state.clock[0] = 0.0 if off >= REST_ACC**2 else state.clock[0] + params.dt
    for c in range(3):
        up[c] = x[3 + c]
    to_world(state.gyr, up)
    s = smooth(params, state, 2, up)
    for c in range(3):
        up[c] = s[c]
    to_world(state.acc, up)
    length = math.sqrt(up[0] * up[0] + up[1] * up[1] + up[2] * up[2])
    if not length > 0.0:
        return
    for c in range(3):
        up[c] /= length
    w = math.sqrt(max(0.0, 0.5 * (up[2] + 1.0)))
    if w > BLAND:
        turn[0], turn[1], turn[2], turn[3] = w, 0.5 * up[1] / w, -0.5 * up[0] / w, 0.0
    else:
        turn[0], turn[1], turn[2], turn[3] = 0.0, 1.0, 0.0, 0.0
    multiply(turn, state.acc, q)
    unit(q, state.acc)
    if params.bias:
        find_bias(params, state, up)


@kernel
def find_bias(params, state, up):
    """A step of the Kalman filter of the bias: of the rate at rest (H = 1), else of the correction rate (H = R)."""
    q, R, b, P = state.work[0], state.work[3:6], state.bias, state.P
    multiply(state.acc, state.gyr, q)
    for c in range(3):
        for i in range(3):
            R[c, i] = 1.0 if i == c else 0.0
        to_world(q, R[c])  # of column c
    flat = state.out[GROUPS[3] : GROUPS[4]]
    for i in range(3):
        for c in range(3):
            flat[3 * i + c] = R[c, i]
    for i in range(2):
        flat[9 + i] = R[0, i] * b[0] + R[1, i] * b[1] + R[2, i] * b[2]
    s = smooth(params, state, 3, flat)
    rest = state.clock[0] >= REST_AFTER
    d0, d1, d2 = 0.0, 0.0, 0.0
    for i in range(3):
        if P[i, i] < BIAS_START**2:
            P[i, i] += params.grow
    for i in range(3):
        if rest:
            h0, h1, h2 = 1.0 * (i == 0), 1.0 * (i == 1), 1.0 * (i == 2)
            e, r = state.out[i], params.rest
        else:
            h0, h1, h2 = s[3 * i], s[3 * i + 1], s[3 * i + 2]
            e, r = 0.0, params.vertical
            if i < 2:
                e = s[9 + i] + (-up[1] if i == 0 else up[0]) / params.dt
                r = params.motion
        e -= h0 * b[0] + h1 * b[1] + h2 * b[2]
        e = min(max(e, -BIAS_MOST), BIAS_MOST) - (h0 * d0 + h1 * d1 + h2 * d2)
        k0 = P[0, 0] * h0 + P[0, 1] * h1 + P[0, 2] * h2
        k1 = P[1, 0] * h0 + P[1, 1] * h1 + P[1, 2] * h2
        k2 = P[2, 0] * h0 + P[2, 1] * h1 + P[2, 2] * h2
        var = h0 * k0 + h1 * k1 + h2 * k2 + r
        d0, d1, d2 = d0 + k0 * e / var, d1 + k1 * e / var, d2 + k2 * e / var
        q[0], q[1], q[2] = k0, k1, k2
        for j in range(3):
            for c in range(3):
                P[j, c] -= q[j] * q[c] / var
    q[0], q[1], q[2] = d0, d1, d2
    for c in range(3):
        b[c] = min(max(b[c] + q[c], -BIAS_MOST), BIAS_MOST)


@kernel
def find_north(params, state, x):
    """d turns the field to the north, unless it is disturbed."""
    q, m = state.work[0], state.work[2]
    multiply(state.acc, state.gyr, q)
    for c in range(3):
        m[c] = x[6 + c]
    to_world(q, m)
    if params.reject:
        judge_field(params, state, m)
    off = wrapped(math.atan2(m[0], m[1]) - state.heading[0])
    k = params.k_mag
    if params.reject:
        if not state.disturbed[0]:
            state.clock[2] = max(0.0, state.clock[2] - FIELD_SLOWER * params.dt)
        elif state.clock[2] <= FIELD_MOST:
            state.clock[2] += params.dt
            k = 0.0
        else:
            k /= FIELD_SLOWER
    first = state.heading[1]
    if first > 0.0:
        k = max(k, first)
        first = first / (first + 1.0)
        state.heading[1] = first if first * params.tau_mag >= params.dt else 0.0
    state.heading[0] = wrapped(state.heading[0] + k * off)


@kernel
def judge_field(params, state, m):
    """Whether norm and dip of the field are those of the place; one that stays as it is while the body turns is taken
    for that of a new place."""
    field, clock, norm = state.field, state.clock, math.sqrt(m[0] * m[0] + m[1] * m[1] + m[2] * m[2])
    now = state.work[1]
    now[0], now[1] = norm, -math.asin(min(max(m[2] / norm, -1.0), 1.0))
    s = smooth(params, state, 4, now)
    near = abs(s[0] - field[0]) < FIELD_NORM * field[0] and abs(s[1] - field[1]) < FIELD_DIP
    clock[1] = clock[1] + params.dt if near else 0.0
    if not near:
        state.disturbed[0] = 1
    elif clock[1] >= FIELD_SURE:
        state.disturbed[0] = 0
        follow(params.k_ref, s, field[:2])
    if abs(s[0] - field[2]) < FIELD_NORM * field[2] and abs(s[1] - field[3]) < FIELD_DIP:
        turning = math.sqrt(state.out[0] ** 2 + state.out[1] ** 2 + state.out[2] ** 2) >= FIELD_TURNS
        clock[3] += params.dt * turning
        follow(params.k_ref, s, field[2:])
    else:
        clock[3] = 0.0
        follow(1.0, s, field[2:])
    need = FIELD_FIRST if field[0] == 0.0 else FIELD_NEW
    if state.disturbed[0] and clock[3] >= need:
        field[0], field[1] = field[2], field[3]
        state.disturbed[0], clock[1] = 0, FIELD_SURE


@kernel
def follow(k, s, field):
    """A low-pass of order 1."""
    for c in range(2):
        field[c] += k * (s[c] - field[c])


@kernel
def smooth(params, state, g, x):
    """Filter number g on x: the mean of all until there are `warm`, then a low-pass that starts from it."""
    first, last, b, a = GROUPS[g], GROUPS[g + 1], params.b[g], params.a[g]
    out = state.out[first:last]
    starts = state.seen[g] < params.warm[g]
    state.seen[g] += starts
    for i in range(last - first):
        c = first + i
        if starts:
            state.mean[c] += x[i]
            out[i] = state.mean[c] / state.seen[g]
            state.z[c, 0], state.z[c, 1] = out[i] * (1.0 - b[0]), out[i] * (b[2] - a[1])
        else:
            u = x[i]
            v = b[0] * u + state.z[c, 0]
            state.z[c, 0] = b[1] * u - a[0] * v + state.z[c, 1]
            state.z[c, 1] = b[2] * u - a[1] * v
            out[i] = v
    return out


@kernel
def unit(q, into):
    """into <- q / |q|"""
    length = math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    for c in range(4):
        into[c] = q[c] / length


@kernel
def wrapped(angle):
    """The same angle within -pi to pi."""
    if angle > math.pi:
        return angle - 2.0 * math.pi
    return angle + 2.0 * math.pi if angle < -math.pi else angle
