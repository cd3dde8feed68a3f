"""From samples to pixels, in numpy: what a line covers, what holds in a column of pixels, stacked shares.

A line that a graphics library draws costs about a microsecond for each of its pieces, smoothed more. Here the share
of each pixel that lies within a channel's lowest and highest value is summed up for all channels at once, so that edges
are as smooth, and a picture of 128 channels takes some ms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F = NDArray[np.float64]
FEW = 24
"""Samples to a column of pixels, at most, that are gone through one after the other."""


def spans(times: F, low: NDArray[np.float32], high: NDArray[np.float32], edges: F) -> tuple[F, F]:
    """Lowest and highest value, (w, n) each, of a line through samples in each column of pixels.

    times  (m,) that grow; low, high (m, n), NaN: nothing is drawn there
    edges  (w + 1,) times at the edges of the columns
    """
    w, n = len(edges) - 1, low.shape[1]
    if len(times) < 2:
        return np.full((w, n), np.nan), np.full((w, n), np.nan)
    at = np.searchsorted(times, edges)
    i = np.clip(at, 1, len(times) - 1)
    step = times[i] - times[i - 1]
    share = ((edges - times[i - 1]) / np.where(step > 0, step, 1.0)).astype(np.float32)[:, None]
    share[(edges < times[0]) | (edges > times[-1])] = np.nan
    middle = low if low is high else (low + high) * np.float32(0.5)
    e = middle[i - 1] * (1 - share) + middle[i] * share
    lo, hi = np.fmin(e[:-1], e[1:]), np.fmax(e[:-1], e[1:])
    some, inner = grouped(np.fmin, low, at)
    lo[some] = np.fmin(lo[some], inner)
    some, inner = grouped(np.fmax, high, at)
    hi[some] = np.fmax(hi[some], inner)
    return lo, hi


def grouped(
    f: np.ufunc, x: NDArray[np.float32], at: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of rows at[k] to at[k + 1] of x: which k have any, and f over the rows of each.

    Row by row where there are few to each: `reduceat` along the first axis takes ten times as long.
    """
    some = np.flatnonzero(at[1:] > at[:-1])
    if not len(some):
        return some, x[:0]
    first, last = at[some], at[some + 1] - 1
    most = int((last - first).max()) + 1
    if most > FEW:
        return some, f.reduceat(x[: at[-1]], first)
    y = x[first]
    for j in range(1, most):
        y = f(y, x[np.minimum(first + j, last)])
    return some, y


def cover(top: F, bottom: F, height: int, thick: float = 1.3) -> NDArray[np.uint8]:
    """How much of each pixel lies between `top` and `bottom` of any channel: (height, w), 0 to 255.

    top, bottom  (w, n) in pixels from the upper edge; what is thinner than `thick` pixels is made as thick
    """
    w = top.shape[0]
    known = np.isfinite(top) & np.isfinite(bottom)
    x = np.broadcast_to(np.arange(w)[:, None], top.shape)[known]
    a, b = top[known].astype(np.float32), bottom[known].astype(np.float32)
    middle, half = (a + b) * np.float32(0.5), np.maximum((b - a) * np.float32(0.5), np.float32(thick / 2))
    size = (height + 2) * w
    total = np.zeros(size)
    for edge, sign in ((middle - half, 1.0), (middle + half, -1.0)):  # covered below it, and then no more
        p = np.clip(edge, 0, height)
        k = p.astype(np.int32)
        f = p - k
        flat = k * w + x
        total += np.bincount(flat, sign * (1 - f), size)
        total += np.bincount(flat + w, sign * f, size)
    inside = np.cumsum(total.reshape(height + 2, w)[:height], axis=0)
    image: NDArray[np.uint8] = (np.clip(inside, 0, 1) * 255).astype(np.uint8)
    return image


def held(times: F, values: NDArray[np.float32], edges: F, step: float) -> NDArray[np.float32]:
    """What holds in each column of pixels, (w, n): the highest of its samples, or the last one before it, if that is
    not older than 2.5 steps. NaN: nothing.
    """
    w, n = len(edges) - 1, values.shape[1]
    image = np.full((w, n), np.nan, np.float32)
    if not len(times):
        return image
    times = np.maximum.accumulate(times)  # a clock that was set back
    at = np.searchsorted(times, edges, side="right")
    last = at[1:] - 1
    there = (last >= 0) & (edges[1:] - times[np.maximum(last, 0)] <= 2.5 * step + (edges[1] - edges[0]))
    image[there] = values[last[there]]
    some, most = grouped(np.fmax, values, at)
    image[some] = most
    return image


def stacked(shares: NDArray[np.float32], height: int) -> NDArray[np.uint8]:
    """Shares (w, k), one upon the other from below: (height, w) number of the share that a pixel lies in, k: none."""
    k = shares.shape[1]
    known = np.isfinite(shares).all(axis=1)
    total = np.nansum(shares, axis=1, keepdims=True)
    upper = np.cumsum(np.nan_to_num(shares) / np.where(total > 0, total, 1), axis=1)
    y = (height - 0.5 - np.arange(height)) / height
    image = np.zeros((height, len(shares)), np.uint8)
    for j in range(k - 1):
        image += y[:, None] > upper[None, :, j]
    image[:, ~known | (total[:, 0] <= 0)] = k
    return image
