"""Rotations by quaternions q = (w, x, y, z), which take the axes of a body into those of the world."""

from __future__ import annotations

import math

from rheobase.stream.node import kernel


@kernel
def to_body(q, v):
    """v <- R(q)' v, for q of any length but 0. Returns False, and leaves v, where q or v is not finite.

    R(q)' v = v - 2 w u x v + 2 u x (u x v), u = (x, y, z)
    """
    return turn(q, v, -1.0)


@kernel
def to_world(q, v):
    """v <- R(q) v, as `to_body`."""
    return turn(q, v, 1.0)


@kernel
def turn(q, v, sign):
    """v <- R(q) v (sign 1) or R(q)' v (sign -1)."""
    length = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]
    if not (length > 0.0 and math.isfinite(length) and math.isfinite(v[0] + v[1] + v[2])):
        return False
    s = 1.0 / math.sqrt(length)
    w, a, b, c = sign * s * q[0], s * q[1], s * q[2], s * q[3]
    i, j, k = b * v[2] - c * v[1], c * v[0] - a * v[2], a * v[1] - b * v[0]
    v[0] += 2.0 * (w * i + b * k - c * j)
    v[1] += 2.0 * (w * j + c * i - a * k)
    v[2] += 2.0 * (w * k + a * j - b * i)
    return True


@kernel
def multiply(p, q, into):
    """into <- p q"""
    into[0] = p[0] * q[0] - p[1] * q[1] - p[2] * q[2] - p[3] * q[3]
    into[1] = p[0] * q[1] + p[1] * q[0] + p[2] * q[3] - p[3] * q[2]
    into[2] = p[0] * q[2] - p[1] * q[3] + p[2] * q[0] + p[3] * q[1]
    into[3] = p[0] * q[3] + p[1] * q[2] - p[2] * q[1] + p[3] * q[0]
