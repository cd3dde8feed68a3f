"""Memory on large pages is memory like any other."""

import mmap

import numpy as np
import pytest

from rheobase.stream.pages import LEAST, PAGE, zeros


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("size", [8, LEAST - 8, LEAST, PAGE + 8, 3 * PAGE])
def test_it_is_as_long_as_asked_for_zero_and_can_be_written(dtype, size):
    n = size // np.dtype(dtype).itemsize
    a = zeros(n, dtype)
    assert a.shape == (n,) and a.dtype == dtype and not a.any()
    assert size < LEAST or a.ctypes.data % PAGE == 0
    a[:] = np.arange(n)
    b = zeros(n, dtype)
    assert not b.any() and np.array_equal(a, np.arange(n).astype(dtype))


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="a system without large pages")
def test_a_system_without_large_pages(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    assert zeros(PAGE // 8).base is None
