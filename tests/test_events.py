"""Event times counted into samples, and the file of a video tracker: numbers, times, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from rheobase.devices._events import counts
from rheobase.devices.replay import Replay
from rheobase.stream.block import StreamError


def replay(file: Path | str, **parameters: Any) -> tuple[Any, Any, Any]:
    """Spec, data and times of all blocks."""
    node = Replay.make(file=str(file), **parameters)
    spec, blocks = node.start(), list(node.blocks())
    assert [b.seq for b in blocks] == np.cumsum([0, *map(len, blocks)])[:-1].tolist()
    assert {b.segment for b in blocks} <= {0} and all(b.data.dtype == spec.dtype for b in blocks)
    return spec, np.concatenate([b.data for b in blocks]), np.concatenate([b.times for b in blocks])


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Two tetrodes: one of two units and an empty cell, as structs in cells; and plain vectors in cells."""
    nest, inner, flat = np.empty((1, 3), object), np.empty((1, 3), object), np.empty((1, 2), object)
    inner[0] = [{"time": [[0.5], [0.0105]]}, np.zeros((1, 0)), {"time": 0.0121}]
    nest[0] = [inner, np.zeros((1, 0)), {"time": [0.02, 0.0305]}]
    flat[0] = [[0.011, 0.5], [0.25]]
    file = tmp_path / "spikes.mat"
    bad = np.empty((1, 1), object)
    bad[0, 0] = "text"
    scipy.io.savemat(file, {"spikes": nest, "flat": flat, "bad": bad, "empty": np.empty((1, 0), object), "t": [[0.1]]})
    return file


def test_a_nest_of_cells(cells: Path) -> None:
    spec, x, t = replay(cells, events="spikes", rate=100)
    assert (spec.channels, spec.rate, spec.unit) == (("unit1.1", "unit1.3", "unit3"), 100, "count")
    assert np.array_equal(t, np.arange(2, 51) / 100), "from the first event to the last"
    events = {0: [0.0105, 0.5], 1: [0.0121], 2: [0.02, 0.0305]}
    for unit, times in events.items():
        expected = [sum(now - 0.01 < e <= now for e in times) for now in t + 1e-9]
        assert x[:, unit].tolist() == expected
    spec, chosen, t = replay(cells, events="spikes", rate=100, channels=["unit3", "unit1.1"])
    assert spec.channels == ("unit3", "unit1.1") and np.array_equal(chosen, x[:, [2, 0]]) and len(t) == 49
    assert replay(cells, events="flat", rate=100)[0].channels == ("unit1", "unit2")


def test_a_table(tmp_path: Path) -> None:
    file = tmp_path / "spikes.csv"
    file.write_text("unit,time\n7,0.25\n3,0.1\n7,0.1\n7,0.100001\n")
    spec, x, t = replay(file, events="unit", times="time", rate=10)
    assert spec.channels == ("unit3", "unit7")
    assert np.array_equal(t, [0.1, 0.2, 0.3]) and x.tolist() == [[1, 1], [0, 1], [0, 1]]
    file.write_text("7 0.25\n3 0.1\n")
    assert replay(file, events="0", times="1", rate=10)[1].tolist() == [[1, 0], [0, 0], [0, 1]]


@given(
    times=st.lists(st.floats(-1, 3), min_size=1, max_size=60),
    rate=st.sampled_from([1.0, 7.0, 30.0, 1000.0]),
    chunk=st.integers(1, 500),
)
def test_every_event_is_counted_once_and_never_early(times: list[float], rate: float, chunk: int) -> None:
    s = counts({"a": np.sort(times), "b": np.array([1.0])}, rate)
    assert s.times is not None
    x = np.concatenate([s.data(a, min(a + chunk, s.n)) for a in range(0, s.n, chunk)])
    t = s.times(0, s.n)
    assert x.sum(axis=0).tolist() == [len(times), 1] and x[0].any() and x[-1].any()
    sofar = np.cumsum(x[:, 0])
    slack = 1e-6 / rate + 1e-12
    for k, now in enumerate(t):
        assert (np.array(times) <= now - slack).sum() <= sofar[k] <= (np.array(times) <= now + slack).sum()


TRACK = np.dtype([("t", "<u4"), ("x", "<u2"), ("y", "<u2"), ("x2", "<u2"), ("y2", "<u2")])
HEADER = b"<Start settings>\nthreshold: 199\nclockrate: 30000\nFields: <time uint32><xloc uint16><yloc uint16>"
HEADER += b"<xloc2 uint16><yloc2 uint16>\n<End settings>\n"


def test_a_video_tracker(tmp_path: Path) -> None:
    rows = np.zeros(40, TRACK)
    rows["t"] = 90000 + 500 * np.arange(40) + np.random.default_rng(0).integers(-20, 20, 40)
    rows["x"], rows["y"] = np.arange(40) + 1, 200
    rows["x"][7], rows["y"][7], rows["x"][9] = 0, 0, 0
    file = tmp_path / "rat.videoPositionTracking"
    file.write_bytes(HEADER + rows.tobytes())
    spec, x, t = replay(file)
    assert (spec.channels, spec.unit) == (("xloc", "yloc", "xloc2", "yloc2"), "px")
    assert spec.rate == pytest.approx(60, rel=0.05) and np.array_equal(t, rows["t"] / 30000)
    lost = np.isnan(x)
    assert lost[:, 2:].all() and lost[7, :2].all() and lost[:, :2].sum() == 2, "x = 0 at a y is a place"
    assert np.array_equal(x[~lost[:, 0], 0], rows["x"][~lost[:, 0]])
    assert replay(file, channels=["yloc"], rate=60)[0].channels == ("yloc",)
    file.write_bytes(HEADER + rows.tobytes()[:-5])
    with pytest.raises(StreamError, match=r"cut short; 39 samples before that are whole \(`salvage: true`"):
        replay(file)
    assert len(replay(file, salvage=True)[1]) == 39
    for header in (b"", HEADER.replace(b"clockrate", b"clock"), HEADER.replace(b"uint32", b"string")):
        file.write_bytes(header + rows.tobytes())
        with pytest.raises(StreamError, match="its header is not that of a video tracker"):
            replay(file)


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"events": "spike", "rate": 10}, r"events: .*spikes\.mat has no array 'spike'; did you mean 'spikes'"),
        ({"events": "spikes"}, r"rate: say into how many samples a second"),
        ({"events": "spikes", "rate": 10, "times": "tine"}, r"times: .*has no field 'tine'; did you mean 'time'"),
        ({"events": "spikes", "rate": 10, "channels": ["unit1.2"]}, r"has no channel 'unit1.2'; did you mean"),
        ({"events": "bad", "rate": 10}, r"'bad' holds .*: times of a unit are a vector"),
        ({"events": "empty", "rate": 10}, r"'empty' holds no event"),
    ],
)
def test_what_a_user_gets_wrong(cells: Path, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(StreamError, match=message) as e:
        Replay.make(file=str(cells), **parameters).check()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("time,unit\n1,2.5\n", "column 'unit' is to hold the number of a unit"),
        ("time,unit\n,2\n", "unit2 holds what is not a time"),
        ("time,unit\n1,\n", "column 'unit' is to hold the number of a unit"),
        ("time,cell\n1,2\n", "has no column 'unit'; there is cell, time"),
        ("time,unit\n" + "".join(f"{k},{k}\n" for k in range(1001)), "holds 1001 units, more than 1000"),
    ],
)
def test_what_a_table_gets_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text(text)
    with pytest.raises(StreamError, match=message):
        Replay(file=str(file), events="unit", times="time", rate=1).check()


def test_the_rat(data: Callable[[str], Path]) -> None:
    """31 units, and as many spikes as the file's own mean rates say."""
    file = data("nelpy_ca1_linear_track/spikes.mat")
    spec, x, t = replay(file, events="spikes", rate=100)
    assert spec.n == 31 and spec.channels[0] == "unit1.1"
    assert x[:, 0].sum() == 1748 == round(0.8880881 * (6365.2707 - 4396.9975))
    spec, place, when = replay(data("nelpy_ca1_linear_track/trajectory.videoPositionTracking"))
    assert len(place) == 118965 and spec.rate == pytest.approx(60, abs=1) and when[0] == 131910951 / 30000
    assert abs(when[0] - t[0]) < 0.1, "one clock"
