"""The LSL inlet against real outlets, in this process and in others that are killed, restarted and moved in time."""

from __future__ import annotations

import itertools
import logging
import platform
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pylsl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rheobase.devices._offset import Offset
from rheobase.devices.lsl import Lsl
from rheobase.stream.block import Block, StreamError
from rheobase.stream.clock import now

PATIENCE = 30.0
"""s that a test waits for what must come; reached only where it fails."""


@pytest.fixture
def name() -> str:
    """A name that no other test on this host uses."""
    return f"test {uuid.uuid4().hex[:12]}"


@pytest.fixture
def opened() -> Iterator[Callable[..., Lsl]]:
    """Makes and starts an inlet that is stopped at the end."""
    nodes: list[Lsl] = []

    def make(name: str, **parameters: Any) -> Lsl:
        node = Lsl.make(**({"stream": {"name": name}, "wait": 20} | parameters))
        node.name = "in"
        nodes.append(node)
        node.start()
        return node

    yield make
    for node in nodes:
        node.stop()


def outlet(name: str, channels: int = 2, rate: float = 1000, form: str = "float32", source_id: str = "here") -> Any:
    return pylsl.StreamOutlet(pylsl.StreamInfo(name, "Test", channels, rate, form, source_id))


def take(blocks: Iterator[Block | None], done: Callable[[list[Block]], bool]) -> list[Block]:
    """What comes until it is enough. The generator must give a sign at least every 0.1 s or so."""
    got: list[Block] = []
    end = now() + PATIENCE
    while not done(got):
        assert now() < end, f"only {got} came"
        before = now()
        block = next(blocks)
        assert now() - before < 5
        if block is not None:
            got.append(block)
    return got


def count(got: list[Block]) -> int:
    return sum(map(len, got))


SENDER = """
import sys, time, numpy as np, pylsl
name, channels, first, n, rate, source_id = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5]), sys.argv[6]
info = pylsl.StreamInfo(name, "Test", channels, rate, "double64", source_id)
info.set_channel_labels([f"{sys.argv[7]}{i}" for i in range(channels)])
out = pylsl.StreamOutlet(info)
assert out.wait_for_consumers(30)
begin = time.monotonic()
for k in range(n):
    out.push_sample([first + k] + [time.monotonic()] * (channels - 1), begin + k / 200)
    time.sleep(max(0, begin + (k + 1) / 200 - time.monotonic()))
print("sent", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sender(name: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts an outlet of 200 Hz in another process: channel 0 counts from `first`, the others are its clock."""
    children = []

    def start(
        first: int = 0,
        n: int = 100,
        channels: int = 2,
        rate: float = 200,
        source_id: str = "there",
        label: str = "ch",
        ahead: int = 0,
    ) -> subprocess.Popen[str]:
        about = [name, channels, first, n, rate, source_id, label]
        argv = [sys.executable, "-c", SENDER, *map(str, about)]
        if ahead:
            argv = ["unshare", "--time", "--monotonic", str(ahead), *argv]
        p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        children.append(p)
        return p

    yield start
    for p in children:
        p.kill()
        p.wait()


def sent(p: subprocess.Popen[str]) -> None:
    assert p.stdout and p.stdout.readline() == "sent\n"


# ---- samples and times


def test_samples_come_as_they_were_sent_with_their_own_times(name: str, opened: Any) -> None:
    """On one host, times are the sender's to the bit."""
    out = outlet(name, 3)
    blocks = opened(name).blocks()
    assert next(blocks) is None, "nothing yet, said within 0.1 s"
    assert out.wait_for_consumers(10)
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    times = now() + np.arange(500) / 1000 + 1e-9
    for a, b in itertools.pairwise([0, 1, 2, 30, 31, 400, 500]):
        out.push_chunk(x[a:b], times[a:b])
    got = take(blocks, lambda g: count(g) == 500)
    assert np.concatenate([b.data for b in got]).tobytes() == x.tobytes()
    assert np.concatenate([b.times for b in got]).tobytes() == times.tobytes()
    assert [b.seq for b in got] == [0, *itertools.accumulate(len(b) for b in got)][:-1]
    assert {b.segment for b in got} == {0}


def test_a_gap_in_a_regular_stream_starts_a_segment_where_it_is(name: str, opened: Any) -> None:
    out = outlet(name, 1)
    node = opened(name, gap=0.05)
    blocks = node.blocks()
    next(blocks)
    assert out.wait_for_consumers(10)
    times = now() + np.arange(60) / 1000
    times[20:] += 0.049  # not yet
    times[30:] += 0.051
    times[40:] -= 2
    out.push_chunk(np.arange(60.0, dtype=np.float32)[:, None], times)
    got = take(blocks, lambda g: count(g) == 60)
    starts = {}
    for b in got:
        starts.setdefault(b.segment, b.seq)
    assert starts == {0: 0, 1: 30, 2: 40}
    assert node.health == {"lost": 0, "segments": 3, "nonfinite": 0}


def test_markers_may_be_silent(name: str, opened: Any, caplog: Any) -> None:
    """An irregular stream that says nothing for long is neither lost nor cut."""
    out = outlet(name, 2, 0, "string")
    node = opened(name, lost=1.5)
    blocks = node.blocks()
    next(blocks)
    assert out.wait_for_consumers(10)
    out.push_sample(["go", "links \N{GREEK SMALL LETTER GAMMA}"], 5.0)
    got = take(blocks, lambda g: count(g) == 1)
    end = now() + 4
    while now() < end:
        assert next(blocks) is None
    out.push_sample(["", "stop"], 9.0)
    got += take(blocks, lambda g: count(g) == 1)
    assert [b.data.tolist() for b in got] == [[["go", "links \N{GREEK SMALL LETTER GAMMA}"]], [["", "stop"]]]
    assert [(b.times.tolist(), b.seq, b.segment) for b in got] == [([5.0], 0, 0), ([9.0], 1, 0)]
    assert node.health == {"lost": 0, "segments": 1, "nonfinite": 0}
    assert not caplog.records


def test_samples_that_are_not_finite_are_counted_and_passed_on(name: str, opened: Any) -> None:
    out = outlet(name, 3)
    node = opened(name)
    blocks = node.blocks()
    next(blocks)
    assert out.wait_for_consumers(10)
    x = np.zeros((10, 3), np.float32)
    x[2, 0], x[5] = np.nan, np.inf
    out.push_chunk(x, now())
    got = take(blocks, lambda g: count(g) == 10)
    assert np.array_equal(np.concatenate([b.data for b in got]), x, equal_nan=True)
    assert node.health["nonfinite"] == 2


def test_what_was_sent_before_the_run_began_is_not_delivered(name: str, opened: Any) -> None:
    out = outlet(name)
    node = opened(name)
    out.push_chunk(np.zeros((100, 2), np.float32), now())
    blocks = node.blocks()
    next(blocks)
    assert out.wait_for_consumers(10)
    out.push_chunk(np.ones((5, 2), np.float32), now())
    got = take(blocks, lambda g: count(g) >= 5)
    assert np.array_equal(np.concatenate([b.data for b in got]), np.ones((5, 2)))


# ---- outlets that come and go


def test_an_outlet_that_restarts_goes_on_in_a_new_segment(name: str, opened: Any, sender: Any, caplog: Any) -> None:
    """Killed and started again: nothing that was received is thrown away, and it is told."""
    first = sender(n=100)
    node = opened(name, lost=20)
    blocks = node.blocks()
    got = take(blocks, lambda g: count(g) == 100)
    first.kill()
    first.wait()
    with caplog.at_level(logging.WARNING):
        end = now() + 3
        while now() < end:
            assert next(blocks) is None
    assert [r.getMessage() for r in caplog.records if r.name == "rheobase"] == [
        f"in: LSL stream with name {name!r} is stale",
        f"in: nothing comes from LSL stream with name {name!r}; waiting for it",
    ]
    assert node.state == "lost"
    sender(first=1000, n=100)
    later = take(blocks, lambda g: count(g) == 100)
    assert np.concatenate([b.data[:, 0] for b in got]).tolist() == list(range(100))
    assert np.concatenate([b.data[:, 0] for b in later]).tolist() == list(range(1000, 1100))
    assert {b.segment for b in got} == {0} and {b.segment for b in later} == {1}
    assert later[0].seq == 100
    assert node.health == {"lost": 1, "segments": 2, "nonfinite": 0}


def test_what_had_arrived_before_the_outlet_died_is_delivered(name: str, opened: Any, sender: Any) -> None:
    p = sender(n=100)
    blocks = opened(name).blocks()
    got = take(blocks, lambda g: count(g) >= 1)
    sent(p)
    pylsl.resolve_byprop("name", name, 1, 0.3)  # let what is under way arrive
    p.kill()
    p.wait()
    got += take(blocks, lambda g: count(g) == 100 - count(got))
    assert np.concatenate([b.data[:, 0] for b in got]).tolist() == list(range(100))


@pytest.mark.parametrize("ids", [("", ""), ("one", "another")])
def test_liblsl_cannot_recover_it_but_the_name_is_the_same(name: str, opened: Any, sender: Any, ids: Any) -> None:
    """Without a source_id, or with another, only what the config says tells that it is the same stream."""
    p = sender(source_id=ids[0])
    blocks = opened(name).blocks()
    take(blocks, lambda g: count(g) == 100)
    p.kill()
    p.wait()
    sender(first=1000, source_id=ids[1])
    later = take(blocks, lambda g: count(g) == 100)
    assert np.concatenate([b.data[:, 0] for b in later]).tolist() == list(range(1000, 1100))
    assert (later[0].seq, later[0].segment) == (100, 1)


def test_another_device_is_taken_only_where_its_own_is_not_there_and_it_is_said(
    name: str, opened: Any, sender: Any, caplog: Any
) -> None:
    """Of two of one name the newer one dies and comes back, then it dies for good."""
    one = outlet(name, 2, 200, "double64", "one")
    assert pylsl.resolve_byprop("name", name, 1, 20)
    two = sender(source_id="two")
    assert pylsl.resolve_byprop("source_id", "two", 1, 20)
    node = opened(name)
    host = platform.node()
    blocks = node.blocks()
    got = take(blocks, lambda g: count(g) == 100)
    two.kill()
    two.wait()
    two = sender(first=1000, source_id="two")
    got += take(blocks, lambda g: count(g) == 100)
    assert {float(b.data[0, 0]) // 1000: b.segment for b in got} == {0: 0, 1: 1}
    assert not node.note
    two.kill()
    two.wait()
    while not one.have_consumers():
        next(blocks)
    x = np.full((5, 2), 7.0)
    one.push_chunk(x, now())
    [block] = take(blocks, lambda g: count(g) == 5)
    assert block.segment == 2 and (block.data == 7).all()
    assert node.note == f"from segment 2 on from source_id 'one' on {host}, before from 'two' on {host}"
    assert [r.getMessage() for r in caplog.records if "another" in r.getMessage()] == [
        f"in: LSL stream with name {name!r} goes on from another device: {node.note}"
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"channels": 5}, "came back with 5 channels, it had 2"),
        ({"rate": 100}, "came back with 100 Hz, it had 200"),
        ({"rate": 100, "source_id": "other"}, "came back with 100 Hz, it had 200"),
        ({"label": "other"}, "came back with other0, other1 as channels, it had ch0, ch1"),
    ],
)
def test_an_outlet_that_comes_back_changed_is_an_error(
    name: str, opened: Any, sender: Any, change: Any, says: str
) -> None:
    p = sender()
    blocks = opened(name).blocks()
    take(blocks, lambda g: count(g) == 100)
    p.kill()
    p.wait()
    sender(**change)
    with pytest.raises(StreamError, match=f"LSL stream with name '{name}' {says}"):
        take(blocks, lambda g: False)


def test_an_outlet_that_stays_away_is_an_error(name: str, opened: Any, sender: Any) -> None:
    p = sender()
    blocks = opened(name, lost=1.5).blocks()
    take(blocks, lambda g: count(g) == 100)
    p.kill()
    with pytest.raises(StreamError, match=f"LSL stream with name '{name}' has been gone for 1\\.[5-9] s"):
        take(blocks, lambda g: False)


def test_a_host_that_does_not_tell_its_time_is_an_error(name: str, opened: Any, sender: Any) -> None:
    """Samples have come, and then the sender answers nothing any more (before its clock was measured: that takes
    liblsl half a second)."""
    p = sender(n=1000)
    assert pylsl.resolve_byprop("name", name, 1, 20)
    blocks = opened(name, wait=2).blocks()
    assert next(blocks) is None
    p.send_signal(signal.SIGSTOP)
    with pytest.raises(StreamError, match=f"LSL stream with name '{name}': its host does not answer what time it is"):
        take(blocks, bool)


def may_shift_time() -> bool:
    argv = ["unshare", "--time", "--monotonic", "100", "true"]
    return bool(shutil.which("unshare")) and subprocess.run(argv, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not may_shift_time(), reason="may not start a process with another clock here (unshare --time)")
def test_times_of_another_clock_become_ours(name: str, opened: Any, sender: Any) -> None:
    """An outlet whose clock is an hour ahead; then it restarts on a host that was booted later."""
    p = sender(ahead=3600)
    before = now()
    node = opened(name)
    blocks = node.blocks()
    got = take(blocks, lambda g: count(g) == 100)
    after = now()
    times = np.concatenate([b.times for b in got])
    clock = np.concatenate([b.data[:, 1] for b in got])
    assert clock.min() > after + 3000
    assert before < times[0] and times[-1] < after
    assert np.allclose(np.diff(times), 1 / 200, atol=1e-6), "no step in between"
    p.kill()
    p.wait()
    sender(first=1000, ahead=60)
    before = now()
    later = take(blocks, lambda g: count(g) == 100)
    times = np.concatenate([b.times for b in later])
    assert before - 0.01 < times[0] and times[-1] < now()
    assert {b.segment for b in later} == {1}


# ---- what a config may get wrong


def test_a_stream_that_is_not_there(name: str) -> None:
    out = outlet(name)
    with pytest.raises(StreamError, match=f"no LSL stream with name '{name}s' .*; did you mean '{name}'.*; there is "):
        Lsl(stream={"name": name + "s"}, wait=1).start()
    with pytest.raises(StreamError, match=f"no LSL stream with name '{name}' and type 'EEG' within 1 s"):
        Lsl(stream={"name": name, "type": "EEG"}, wait=1).start()
    del out


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"stream": {"nam": "x"}}, "stream: unknown property 'nam'; did you mean 'name'"),
        ({"stream": {}}, "stream: say which one, by name"),
        ({"channels": 3}, "channels: .* has 2 channels, not 3"),
        ({"channels": ["left"]}, "channels: .* has 2 channels, not 1"),
        ({"channels": ["left", "rigth"]}, "channels: .* no channel 'rigth'; did you mean 'right'"),
        ({"channels": ["right", "left"]}, "channels: .* in this order: left, right"),
        ({"rate": 500}, "rate: .* has 1000 Hz, not 500 Hz"),
        ({"wait": 0}, "wait: "),
    ],
)
def test_a_stream_that_is_not_as_expected(name: str, opened: Any, parameters: Any, says: str) -> None:
    info = pylsl.StreamInfo(name, "Test", 2, 1000, "float32", "here")
    info.set_channel_labels(["left", "right"])
    out = pylsl.StreamOutlet(info)
    with pytest.raises(StreamError, match=says):
        opened(name, **parameters)
    assert opened(name, channels=["left", "right"], rate=1000).spec.channels == ("left", "right")
    del out


# ---- the clock


@settings(deadline=None)
@given(
    drift=st.floats(-1e-4, 1e-4),
    offset=st.floats(-1e6, 1e6),
    base=st.sampled_from([0.0, 1.7e9, -1e6]),
    seed=st.integers(0, 100),
    noise=st.sampled_from([0.0, 2e-5, 3e-4]),
)
def test_the_correction_follows_a_drifting_clock_without_steps(
    drift: float, offset: float, base: float, seed: int, noise: float
) -> None:
    """Estimates every 2 s for 5 minutes, one in eight up to 4 ms off: order is kept; the error ends below the noise.
    Stamps may be of the sender's clock, or of a time of their own (base)."""
    rng = np.random.default_rng(seed)
    clock = Offset()
    stamps, times = [], []
    for k in range(150):
        t = 1000 + 2.0 * k
        s = (t - offset) / (1 + drift)
        wrong = rng.normal() * noise + (rng.random() < 1 / 8) * rng.uniform(-4e-3, 4e-3) * (noise > 0)
        assert not clock.measured(t, t - s + wrong)
        more = s + np.arange(0, 2, 0.25)
        stamps.append(more)
        times.append(clock.times(more + base) - base)
    s, t = np.concatenate(stamps), np.concatenate(times)
    assert (np.diff(t) > 0).all()
    assert np.abs(np.diff(t) - np.diff(s))[8:].max() <= Offset.SLEW * 0.25 + 1e-6
    error = np.abs(t - (s * (1 + drift) + offset))[-80:]
    assert error.max() < 5e-5 + 3 * noise


def test_a_new_clock_is_told_once_and_one_wrong_estimate_is_not() -> None:
    clock = Offset()
    assert not any(clock.measured(t, 5.0 + 1e-5 * (t % 3)) for t in range(10))
    assert not clock.measured(10, 5.5), "one estimate may be wrong"
    assert not clock.measured(11, 5.00003)
    assert not clock.measured(12, 7.0)
    assert not clock.measured(12.5, 7.0), "the same one, asked for again"
    assert clock.measured(13, 7.0001)
    assert clock.times(np.array([10.0])).tolist() == [17.0001]
    assert not clock.measured(14, 7.0)


def test_on_one_host_times_stay_as_they_are() -> None:
    clock = Offset(same_host=True)
    stamps = np.array([0.1, 0.2])
    for t, offset in enumerate([3e-5, -2e-5, 9e-4]):
        clock.measured(t, offset)
        assert clock.times(stamps).tobytes() == stamps.tobytes()
    for t, offset in enumerate([8e-3, 9e-3, 3e-5], 3):
        assert not clock.measured(t, offset), "a machine that is busy is no other clock"
        assert clock.times(stamps).tobytes() == stamps.tobytes()
    other = Offset(same_host=True)  # containers may share a name, and not a clock
    other.measured(0, 100.0)
    assert other.times(stamps).tolist() == [100.1, 100.2]
