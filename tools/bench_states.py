"""`rheo bench states`: following brain states, beside the same as a C loop, and how long their fit takes."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from rheobase.nodes.hmm_glm import HmmGlm
from rheobase.stream.block import Block, Spec, numbered
from rheobase.stream.fuse import Loop
from rheobase.tools import bench
from rheobase.tools.states import network


def states(scale: float = 1.0) -> list[bench.Row]:
    """A bin of 20 neurons and 5 states (sigmoid, filtered history, no lag), against C; the same with a lag of 10; and
    the fit of 10 sequences of 5000 bins, s of CPU.
    """
    sequences, bins = (20, 5000) if scale >= 1 else (2, max(200, int(5000 * scale)))
    X, _, _ = network(bins=bins, sequences=sequences)
    half = len(X) // 2
    began = time.process_time()
    node = HmmGlm(states=5, link="sigmoid").fit(X[:half].reshape(-1, 20), segment=np.repeat(np.arange(half), bins))
    rows = [bench.Row("fit, 5 states, 20 neurons: CPU", time.process_time() - began, "s", goal=10.0, judged="ours")]
    x = np.ascontiguousarray(X[half:].reshape(-1, 20)[:20000])
    t, times = len(x), np.arange(len(x)) / 50.0
    floor = bench.floors().hmm_glm_5_20
    y, y_times = np.empty((t, 7)), np.empty(t)
    for lag in (0, 10):
        node.lag = lag
        loop = Loop([node], [-1], [0])
        loop.start(Spec(rate=50, channels=numbered("x", 20)))
        [(_, out)] = loop.process(Block(x, times))
        p = node.params
        given = (p.W, p.Pi, p.log_Pi, p.p0, p.log_p0, np.ascontiguousarray(p.phi[0]), np.array([p.enter]), y)
        bench.call_c(floor, t, x, *given)
        if lag == 0:
            bench.same(out.data, y)
        run = partial(loop.run, *loop.p, *loop.s, times, x, loop.n_out, y_times, out.data)
        ours, c = bench.turns(run, partial(bench.call_c, floor, t, x, *given), scale)
        row = bench.pair("HMM-GLM, S=5, N=20, a bin", ours, c, 1e6 / t, "us", goal=2.0)
        rows.append(row if lag == 0 else bench.Row("the same, smoothed by 10 bins", row.ours, "us"))
    return rows
