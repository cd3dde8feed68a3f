"""Velocity from an inertial sensor: the graph that learns it and the one that runs it live agree, and it is learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from rheobase.nodes.ridge import Ridge
from rheobase.stream.cli import find_graph
from rheobase.tools.fit import aligned, gather
from rheobase.tools.scores import r2


def test_what_is_learnt_is_what_runs() -> None:
    """The model that one writes, the other reads: their features are made alike, from sensors named alike."""
    learnt, live = (find_graph(name).to_dict()["nodes"] for name in ("imu_velocity", "imu_live"))
    for name in ("attitude", "felt", "moved", "rate", "gained", "gained_at", "speed", "reckoned", "reckoned_features"):
        assert learnt[name] == live[name], name
    assert learnt["reckoning"] == live["decoded"]
    for name in ("motion", "fast", "inputs"):
        assert learnt[name] == live[name], name
    assert learnt["hiss"] | {"emit": "sample"} == live["hiss"]
    sensors = [k for name in ("gyr", "acc", "mag") for k in learnt[name]["channels"]]
    assert sensors == live["imu"]["channels"]
    for name in ("gyr", "acc", "mag", "position", "turned"):
        same = ("channels", "rate", "stream", "unit")
        assert [learnt[name][k] for k in same] == [live[name][k] for k in same]
        assert live[name]["file"] in learnt[name]["file"][4:], "a trial that was not learnt from"
    assert learnt["velocity"] | {"in": 0, "process": 0} == live["truth"] | {"in": 0, "process": 0}


def test_motion_tells_velocity(data: Callable[[str], Path]) -> None:
    """Two trials, each told by the other: from what physics has summed up, a ridge tells more than nine tenths."""
    data("broad/10_undisturbed_slow_translation_A.mat")
    graph = find_graph("imu_velocity")
    for name in ("gyr", "acc", "mag", "position", "turned"):
        slow = [
            f'"data:broad/{t}.mat"' for t in ("10_undisturbed_slow_translation_A", "12_undisturbed_slow_translation_C")
        ]
        graph.set(f"{name}.file=[{', '.join(slow)}]")
    given = gather(graph, ["reckoned_features", "velocity"])
    x = given["reckoned_features"]
    Z = aligned(given["velocity"], x.times)
    assert set(x.segment) == {0, 1} and x.times[x.segment == 1][0] > 200
    assert np.isfinite(x.data).all() and 0.9 < np.isfinite(Z).all(axis=1).mean() < 1
    learn = x.segment == 0
    node = Ridge(alpha=10).fit(x.data[learn], Z[learn])
    Y, Z = node.predict(x.data[~learn]), Z[~learn]
    there = np.isfinite(Z).all(axis=1)
    assert r2(Y[there], Z[there]) > 0.9
