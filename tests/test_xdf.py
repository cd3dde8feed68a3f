"""XDF files that others recorded, and files of any origin cut short or damaged."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyxdf
from hypothesis import given, settings
from hypothesis import strategies as st

from rheobase.devices.record import Record
from rheobase.devices.replay import Replay, streams
from rheobase.stream.block import Block, Spec, StreamError

Data = Callable[[str], Path]


def replay(file: Path, stream: str, **parameters: Any) -> tuple[Spec, list[Block]]:
    node = Replay.make(file=str(file), stream=stream, **parameters)
    spec = node.start()
    blocks = list(node.blocks())
    assert [b.seq for b in blocks] == np.cumsum([0, *map(len, blocks)])[:-1].tolist()
    assert all(b.data.shape == (len(b), spec.n) and len(b) for b in blocks)
    return spec, blocks


def raw(file: Path) -> dict[str, Any]:
    """What pyxdf reads with all its corrections off."""
    found, _ = pyxdf.load_xdf(str(file), synchronize_clocks=False, dejitter_timestamps=False)
    return {s["info"]["name"][0]: s for s in found}


def test_a_clock_reset_gives_two_segments_and_no_invented_samples(data: Data) -> None:
    """The amplifier's host was restarted: stamps fall from 653153 s to 260 s, offsets jump from -652340 to 1121 s."""
    file = data("xdf/clock_resets.xdf")
    stamped = raw(file)
    for name, n, first in ("BioSemi", 27815, 12876), ("MyMarkerStream", 175, 91):
        spec, blocks = replay(file, name)
        assert {b.segment: b.seq for b in reversed(blocks)} == {0: 0, 1: first}
        x = np.concatenate([b.data for b in blocks])
        times = np.concatenate([b.times for b in blocks])
        there, stamps = stamped[name]["time_series"], stamped[name]["time_stamps"]
        assert len(x) == len(times) == n and x.tolist() == np.array(there).tolist()
        assert spec.dtype == ("float32" if name == "BioSemi" else "str")
        offsets = np.array(stamped[name]["clock_values"])
        for part, measured in (slice(0, first), offsets[:82]), (slice(first, n), offsets[82:]):
            # the stamps and an offset within what was measured, that drifts and does not step: nothing else
            added = times[part] - stamps[part]
            assert measured.min() - 2e-5 < added.min() and added.max() < measured.max() + 2e-5
            assert (np.abs(np.diff(added)) <= 1e-5 * np.diff(times[part]) + 1e-9).all()
        assert (np.diff(times) > 0).all()


def test_an_amplifier_that_stamps_packets_is_one_segment(data: Data) -> None:
    """72 channels at 1024 Hz that arrive in packets of 32, and two irregular streams of a host 6095 s behind."""
    file = data("xdf/short_test.xdf")
    stamped = raw(file)
    specs = streams(str(file))
    assert {k: (s.rate, s.n, s.dtype) for k, s in specs.items()} == {
        "openvibeSignal": (1024, 72, "float32"),
        "Audio": (0, 3, "float32"),
        "Diode": (0, 3, "float32"),
    }
    channels = specs["openvibeSignal"].channels
    assert channels[:2] == ("ExG1", "ExG2") and channels[-2:] == ("AUX71", "ch71"), "the last has no label"
    for name, n, offset in ("openvibeSignal", 3104, 4.34999947e-06), ("Audio", 271, 6095.2432847):
        _, blocks = replay(file, name)
        assert {b.segment for b in blocks} == {0}
        assert np.array_equal(np.concatenate([b.data for b in blocks]), stamped[name]["time_series"])
        times = np.concatenate([b.times for b in blocks])
        assert len(times) == n and np.allclose(times, stamped[name]["time_stamps"] + offset, rtol=0, atol=1e-9)
        assert max(map(len, blocks)) <= 1024
    _, blocks = replay(file, "openvibeSignal", channels=["ExG2", "ExG1"], chunk=100)
    assert np.array_equal(np.concatenate([b.data for b in blocks]), stamped["openvibeSignal"]["time_series"][:, [1, 0]])
    with pytest.raises(StreamError, match=r"channels: .*short_test\.xdf has no channel 'ExG99'; did you mean 'ExG"):
        replay(file, "openvibeSignal", channels=["ExG99"])


def test_the_smallest_file_of_the_standard(data: Data) -> None:
    file = data("xdf/minimal.xdf")
    spec, blocks = replay(file, "SendDataC")
    assert (spec.rate, spec.n, spec.dtype) == (10, 3, "int16")
    x = np.concatenate([b.data for b in blocks])
    assert x.tolist() == [[192, 255, 238], [12, 22, 32], [13, 23, 33], [14, 24, 34], [15, 25, 35], [12, 22, 32],
                          [13, 23, 33], [14, 24, 34], [15, 25, 35]]  # fmt: skip
    times = np.concatenate([b.times for b in blocks])
    assert np.abs(times - (5 + np.arange(9) / 10)).max() < 1e-9, "its offset of -0.1 s is added"
    spec, blocks = replay(file, "SendDataString")
    assert (spec.rate, spec.dtype) == (10, "str") and len(blocks) == 1
    assert blocks[0].data[1:, 0].tolist() == ["Hello", "World", "from", "LSL", "Hello", "World", "from", "LSL"]
    assert blocks[0].data[0, 0].startswith("<?xml")


def test_empty_streams_replay_as_nothing(data: Data) -> None:
    file = data("xdf/empty_streams.xdf")
    counts = {name: sum(map(len, replay(file, name)[1])) for name in streams(str(file))}
    assert sorted(counts.values()) == [0, 0, 1, 10]
    assert counts["Data stream: test stream 0 counter"] == 10
    with pytest.raises(StreamError, match=r"stream: .* has no stream 'ctr'; did you mean 'ctrl'"):
        replay(file, "ctr")
    with pytest.raises(StreamError, match=r"stream: .* has 4 streams, name one; there is"):
        replay(file, "")


# ---- cut short, damaged


@pytest.fixture(scope="module")
def recording(tmp_path_factory: Any) -> tuple[bytes, Any]:
    """One of ours, of several flushes: its bytes, and its samples."""
    folder = tmp_path_factory.mktemp("recording")
    node = Record.make()
    node.name, node.inputs, node.folder = "rec", ("array", "marks"), folder
    node.start(Spec(rate=100, channels=("a", "b")), Spec(rate=0, channels=("m",), dtype="str"))
    x = np.random.default_rng(0).normal(size=(60, 2))
    for k in range(6):
        a = slice(10 * k, 10 * k + 10)
        node.take(0, Block(x[a], np.arange(60)[a] / 100, 10 * k, k // 3))
        node.take(1, Block(np.array([[f"mark {k}"]], object), np.array([k / 10]), k))
        with node.lock:
            node._write()
    node.stop()
    return node.path.read_bytes(), x


@pytest.fixture(scope="module")
def minimal() -> bytes:
    path = Path(os.environ.get("RHEOBASE_DATA", "")) / "xdf/minimal.xdf"
    if not path.exists():
        pytest.skip("recorded data 'xdf/minimal.xdf' not found: set RHEOBASE_DATA")
    return path.read_bytes()


def salvaged(file: Path, x: Any) -> int:
    """What can be had of a damaged recording is the beginning of it, to the bit."""
    specs = streams(str(file), salvage=True)
    if "array" not in specs:
        return 0
    _, blocks = replay(file, "array", salvage=True)
    n = sum(map(len, blocks))
    if n:
        assert np.concatenate([b.data for b in blocks]).tobytes() == x[:n].tobytes()
        assert np.concatenate([b.times for b in blocks]).tobytes() == (np.arange(n) / 100).tobytes()
        assert [b.segment for b in blocks for _ in range(len(b))] == [k // 30 for k in range(n)]
    return n


def test_ours_cut_at_any_byte(tmp_path: Path, recording: Any) -> None:
    whole, x = recording
    file = tmp_path / "cut.xdf"
    had = 0
    for end in range(0, len(whole), 7):
        file.write_bytes(whole[:end])
        try:
            n = salvaged(file, x)
        except StreamError as e:
            assert str(file) in str(e) and had == 0
            continue
        assert n >= had
        had = n
        try:
            streams(str(file))
        except StreamError as e:
            assert f"{file}: cut short at byte " in str(e)
            assert n == 0 or f"{n} samples of 'array'" in str(e)
    assert had == 60


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_ours_with_bytes_overwritten(tmp_path_factory: Any, recording: Any, data: st.DataObject) -> None:
    """An error of one line or a recording, never a crash, a hang, or memory for what is not there."""
    whole, _ = recording
    broken = bytearray(whole)
    at = data.draw(st.integers(4, len(whole) - 1))
    new = data.draw(st.binary(min_size=1, max_size=8))
    broken[at : at + len(new)] = new
    file = tmp_path_factory.mktemp("broken") / "broken.xdf"
    file.write_bytes(broken)
    for salvage in (False, True):
        try:
            for name in streams(str(file), salvage=salvage):
                _, blocks = replay(file, name, salvage=salvage)
                assert sum(map(len, blocks)) <= 60
        except StreamError as e:
            assert str(file) in str(e) and "\n" not in str(e)


def test_others_cut_at_any_byte(minimal: bytes, tmp_path: Path) -> None:
    whole = minimal
    file = tmp_path / "cut.xdf"
    file.write_bytes(whole)
    x = raw(file)["SendDataC"]["time_series"]
    had = 0
    for end in range(0, len(whole), 13):
        file.write_bytes(whole[:end])
        try:
            specs = streams(str(file), salvage=True)
        except StreamError as e:
            assert str(file) in str(e) and had == 0
            continue
        if "SendDataC" in specs:
            _, blocks = replay(file, "SendDataC", salvage=True)
            n = sum(map(len, blocks))
            assert n >= had
            had = n
            if n:
                assert np.array_equal(np.concatenate([b.data for b in blocks]), x[:n])
    assert had == 9 and n == 9


@settings(max_examples=100, deadline=None)
@given(at=st.integers(4, 1949), new=st.binary(min_size=1, max_size=8))
def test_others_with_bytes_overwritten(minimal: bytes, tmp_path_factory: Any, at: int, new: bytes) -> None:
    broken = bytearray(minimal)
    broken[at : at + len(new)] = new
    file = tmp_path_factory.mktemp("broken") / "broken.xdf"
    file.write_bytes(broken)
    try:
        for name in streams(str(file), salvage=True):
            _, blocks = replay(file, name, salvage=True)
            assert sum(map(len, blocks)) <= 9
    except StreamError as e:
        assert str(file) in str(e) and "\n" not in str(e)


def test_sizes_are_not_believed(tmp_path: Path, recording: Any) -> None:
    """A chunk that claims 2^60 samples, a header that claims 2^40 channels."""
    whole, _ = recording
    at = whole.index(struct.pack("<BB", 1, 10) + b"\x08")  # the first ten samples
    file = tmp_path / "liar.xdf"
    body = struct.pack("<HIBQ", 3, 1, 8, 1 << 60) + bytes(200)
    file.write_bytes(whole[: at - 4 - 2 - 5] + struct.pack("<BB", 1, len(body)) + body)
    with pytest.raises(StreamError, match=r"damaged at byte \d+ of \d+: \d+ samples of stream 1 in 200 bytes"):
        streams(str(file))
    file.write_bytes(whole.replace(b"<channel_count>2</", b"<channel_count>9" + b"9" * 12 + b"</", 1))
    with pytest.raises(StreamError, match=r"liar\.xdf: "):
        streams(str(file))


def test_what_is_no_xdf(tmp_path: Path) -> None:
    file = tmp_path / "no.xdf"
    file.write_bytes(b"XDF")
    with pytest.raises(StreamError, match=r"no\.xdf: not an XDF file"):
        streams(str(file))
    file.write_bytes(b"")
    with pytest.raises(StreamError, match=r"no\.xdf: damaged, nothing in it"):
        streams(str(file))
    file.write_bytes(b"XDF:")
    with pytest.raises(StreamError, match=r"no\.xdf: no stream in it"):
        streams(str(file))
