"""Memory that the kernel is asked to lay on large pages, of 2 MB: an array of megabytes then has one entry in the
processor's tables for 512, and its lines do not fall on one another in the cache by the chance of where pages lie.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

PAGE = 2 << 20
LEAST = 256 << 10
"""Bytes from which on it is worth a page."""


def zeros(n: int, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """n zeros; as numpy would lay them where they are few, or the system knows no large pages."""
    size = n * np.dtype(dtype).itemsize
    if size < LEAST or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.zeros(n, dtype)
    whole = mmap.mmap(-1, size + 2 * PAGE)
    with contextlib.suppress(OSError):  # a kernel built without them
        whole.madvise(mmap.MADV_HUGEPAGE)
    flat = np.frombuffer(whole, np.uint8)
    first = -flat.ctypes.data % PAGE
    return flat[first : first + size].view(dtype)
