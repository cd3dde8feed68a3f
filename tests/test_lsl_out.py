"""The LSL outlet, heard by a plain pylsl inlet and by our own."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pylsl
import pytest

from rheobase.devices.lsl import Lsl
from rheobase.devices.lsl_out import LslOut
from rheobase.stream.block import DTYPES, Block, Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.graph import parse


@pytest.fixture
def name() -> str:
    return f"test {uuid.uuid4().hex[:12]}"


@pytest.fixture
def out(name: str) -> Iterator[LslOut]:
    node = LslOut()
    node.name = name
    yield node
    node.stop()


def inlet(name: str) -> Any:
    found = pylsl.resolve_byprop("name", name, 1, 20)
    assert len(found) == 1
    there = pylsl.StreamInlet(found[0], as_numpy=True)
    there.open_stream(10)
    return there


def pull(there: Any, n: int) -> tuple[Any, Any]:
    end, data, times = now() + 20, [], []
    while sum(map(len, times)) < n and now() < end:
        x, t = there.pull_chunk(0.1)
        data.append(x)
        times.append(t)
    return np.concatenate(data), np.concatenate(times)


def test_others_hear_samples_times_and_what_they_are(name: str, out: LslOut) -> None:
    out.start(Spec(rate=250, channels=("left", "right"), unit="m/s", delay=0.1, dtype="float32"))
    there = inlet(name)
    x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)[:, ::2]
    times = np.cumsum(np.random.default_rng(1).uniform(0, 1, 100)) - 2
    times[3], times[4] = -1.0, 0.0  # LSL's words for "one interval later" and for "now"
    out.take(0, Block(x[:1], times[:1]))
    out.take(0, Block(x[1:], times[1:], 1))
    data, stamps = pull(there, 100)
    assert np.array_equal(data, x)
    plain = [k for k in range(100) if k not in (3, 4)]
    assert stamps[plain].tobytes() == times[plain].tobytes()
    assert np.abs(stamps - times).max() < 1e-15
    info = there.info(5)
    assert (info.type(), info.nominal_srate(), info.channel_format()) == ("Signal", 250, pylsl.cf_float32)
    assert info.get_channel_labels() == ["left", "right"] and info.get_channel_units() == ["m/s", "m/s"]
    assert info.desc().child_value("delay") == "0.1"


def test_a_recording_can_be_sent_as_if_it_were_now(name: str) -> None:
    """The first block leaves now; what lay between the samples stays."""
    out = LslOut(now=True)
    out.name = name
    out.start(Spec(rate=100, channels=("a",)))
    there = inlet(name)
    times = 5.0 + np.arange(20) / 100
    times[10:] += 3.0
    before = now()
    out.take(0, Block(np.zeros((5, 1)), times[:5]))
    after = now()
    out.take(0, Block(np.ones((15, 1)), times[5:], 5))
    _, stamps = pull(there, 20)
    out.stop()
    assert before <= stamps[4] <= after
    np.testing.assert_allclose(stamps - stamps[0], times - times[0], atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back_every_type_is_the_same_to_the_bit(name: str, out: LslOut, dtype: str) -> None:
    spec = Spec(rate=0 if dtype == "str" else 1e3 / 3, channels=("ä", "<&>"), unit="µV", delay=1 / 3, dtype=dtype)
    out.start(spec)
    node = Lsl.make(stream={"name": name}, wait=20)
    assert node.start() == spec
    blocks = node.blocks()
    assert next(blocks) is None
    rng = np.random.default_rng(0)
    if dtype == "str":
        x = rng.choice(np.array(["", "go", "\N{GREEK SMALL LETTER GAMMA}" * 1000, "a\nb"], object), (50, 2))
    else:
        x = rng.integers(0, 256, 100 * np.dtype(dtype).itemsize, np.uint8).view(dtype).reshape(50, 2)
    times = now() + np.arange(50) * 1e-3 / 3
    out.take(0, Block(x, times))
    got: list[Block] = []
    end = now() + 20
    while sum(map(len, got)) < 50 and now() < end:
        if block := next(blocks):
            got.append(block)
    node.stop()
    y = np.concatenate([b.data for b in got])
    assert y.dtype == x.dtype
    assert y.tolist() == x.tolist() if dtype == "str" else y.tobytes() == x.tobytes()
    assert np.concatenate([b.times for b in got]).tobytes() == times.tobytes()


def test_the_last_samples_before_the_end_are_heard(name: str) -> None:
    """In another process, and it ends at once."""
    code = """
import sys, numpy as np
from rheobase.devices.lsl_out import LslOut
from rheobase.stream.block import Block, Spec
node = LslOut(stream=sys.argv[1])
node.start(Spec(rate=1000, channels=("a",)))
assert node.outlet.wait_for_consumers(30)
for k in range(20):
    node.take(0, Block(np.full((1000, 1), float(k)), np.arange(1000) / 1000 + k, k * 1000))
node.stop()
"""
    with subprocess.Popen([sys.executable, "-c", code, name]) as p:
        there = inlet(name)
        data, _ = pull(there, 20_000)
        assert p.wait(20) == 0
    assert np.array_equal(data[:, 0], np.repeat(np.arange(20.0), 1000))


def test_a_second_start_keeps_those_who_listen(name: str, out: LslOut) -> None:
    spec = Spec(rate=100, channels=("a",))
    out.start(spec)
    there = inlet(name)
    out.start(spec)
    out.take(0, Block(np.ones((1, 1)), np.array([7.0])))
    assert pull(there, 1)[1].tolist() == [7.0]
    out.start(Spec(rate=100, channels=("a", "b")))
    assert inlet(name).channel_count == 2


def test_names_and_kinds(name: str, out: LslOut) -> None:
    other = LslOut.make(stream=name + " other", kind="EEG")
    other.name = name
    other.start(Spec(rate=100, channels=("a",)))
    assert inlet(name + " other").info(5).type() == "EEG"
    other.stop()
    out.start(Spec(rate=0, channels=("m",), dtype="str"))
    info = inlet(name).info(5)
    assert info.type() == "Markers" and name in info.source_id()
    with pytest.raises(StreamError, match="in: takes one input, got 2: use a node for each"):
        out.start(Spec(rate=100, channels=("a",)), Spec(rate=100, channels=("a",)))


@pytest.mark.parametrize("other", ["q: {type: lsl_out, in: x, stream: A}", "A: {type: lsl_out, in: x}"])
def test_two_outlets_of_one_name_are_refused(other: str) -> None:
    """They would have one source_id."""
    text = "nodes:\n  x: {type: signal}\n  p: {type: lsl_out, in: x, stream: A}\n  "
    parse(text + other.replace("A", "B")).check()
    with pytest.raises(StreamError, match=rf"node 'p' .*stream: 'A' is that of node '{other[0]}', too"):
        parse(text + other).check()
