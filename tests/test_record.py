"""The recorder: what pyxdf and our own replay read back, whatever happened to the process or the disk."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyxdf
from hypothesis import given, settings
from hypothesis import strategies as st

from rheobase.devices._xdf import Chunks
from rheobase.devices.record import Record
from rheobase.devices.replay import Replay, streams
from rheobase.stream.block import DTYPES, Block, Spec, StreamError


def recorder(folder: Path, *names: str, **parameters: Any) -> Record:
    node = Record.make(**parameters)
    node.name, node.inputs, node.folder = "rec", names, folder
    return node


def replay(file: Path, stream: str, **parameters: Any) -> tuple[Spec, list[Block]]:
    node = Replay.make(file=str(file), stream=stream, **parameters)
    return node.start(), list(node.blocks())


def joined(blocks: list[Block]) -> tuple[Any, Any, list[int], list[int]]:
    """data, times, seq and segment of every sample."""
    seq = [b.seq + k for b in blocks for k in range(len(b))]
    segment = [b.segment for b in blocks for _ in range(len(b))]
    return np.concatenate([b.data for b in blocks]), np.concatenate([b.times for b in blocks]), seq, segment


def samples(dtype: str, n: int, c: int, seed: int) -> Any:
    """Any bits: NaN with payloads, infinities, the largest integers."""
    rng = np.random.default_rng(seed)
    if dtype == "str":
        words = ["", "go", "ligne\nà ligne", "a\0b", "\N{GREEK SMALL LETTER GAMMA}" * 300]
        return rng.choice(np.array(words, object), (n, c))
    return rng.integers(0, 256, n * c * np.dtype(dtype).itemsize, np.uint8).view(dtype).reshape(n, c)


@st.composite
def cuts(draw: st.DrawFn, n: int = 40) -> list[tuple[int, int, int, int]]:
    """(a, b, seq, segment) of blocks that cover n samples, some after a loss or in a new segment."""
    edges = sorted({0, n, *draw(st.lists(st.integers(1, n - 1), max_size=8))})
    found, lost, segment = [], 0, 0
    for a, b in itertools.pairwise(edges):
        lost += draw(st.sampled_from([0, 0, 7]))
        segment += draw(st.sampled_from([0, 0, 1]))
        found.append((a, b, a + lost, segment))
    return found


@settings(max_examples=40, deadline=None)
@given(data=st.data(), chunk=st.integers(1, 50))
def test_what_was_recorded_comes_back_to_the_bit(tmp_path_factory: Any, data: st.DataObject, chunk: int) -> None:
    """Every dtype, any cut into blocks, any loss and segment, any cut on the way back."""
    folder = tmp_path_factory.mktemp("record")
    specs = [
        Spec(rate=r, channels=("ä<&>\x01", " b ")[:c], unit="µV", delay=0.1 + 0.2, dtype=d)
        for d, r, c in zip(DTYPES, (1000.0, 0.0, 1 / 3, 1e-9, 1e9, 2048.0, 0.0), (2, 1, 2, 1, 2, 1, 2), strict=True)
    ]
    sent = []
    node = recorder(folder, *DTYPES)
    node.start(*specs)
    for i, spec in enumerate(specs):
        x = samples(spec.dtype, 40, spec.n, i)
        times = np.cumsum(np.random.default_rng(i).uniform(0, 1e-3, 40)) + 1e5
        blocks = [Block(x[a:b], times[a:b], seq, segment) for a, b, seq, segment in data.draw(cuts())]
        sent.append(blocks)
        for b in blocks:
            node.take(i, b)
    node.stop()
    assert streams(str(node.path)) == dict(zip(DTYPES, specs, strict=True))
    for spec, blocks in zip(specs, sent, strict=True):
        found, back = replay(node.path, spec.dtype, chunk=chunk)
        assert found == spec
        x, times, seq, segment = joined(blocks)
        y, back_times, back_seq, back_segment = joined(back)
        assert y.dtype == x.dtype
        assert y.tolist() == x.tolist() if spec.dtype == "str" else y.tobytes() == x.tobytes()
        assert back_times.tobytes() == times.tobytes()
        assert (back_seq, back_segment) == (seq, segment)


def test_other_tools_read_the_same_with_their_defaults(tmp_path: Path) -> None:
    """pyxdf with its synchronisation and de-jittering on, over times that are anything but straight."""
    node = recorder(tmp_path, "array", "marks")
    node.start(
        Spec(rate=100, channels=("left", "right"), unit="V", dtype="float32"),
        Spec(rate=0, channels=("mark",), dtype="str"),
    )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1000, 2)).astype(np.float32)
    times = 1000 + np.arange(1000) / 100 + rng.uniform(0, 0.009, 1000)
    times[500:] += 60
    node.take(0, Block(x[:500], times[:500], 0, 0))
    node.take(1, Block(np.array([["start"], ["stop"]], object), times[[0, 499]]))
    node.take(0, Block(x[500:], times[500:], 500, 1))
    node.stop()
    found, head = pyxdf.load_xdf(str(node.path))
    array, marks, events = found
    assert head["info"]["version"] == ["1.0"]
    assert np.array_equal(array["time_series"], x) and array["time_series"].dtype == np.float32
    assert array["time_stamps"].tobytes() == times.tobytes()
    assert marks["time_series"] == [["start"], ["stop"]]
    assert marks["time_stamps"].tolist() == times[[0, 499]].tolist()
    info, footer = array["info"], array["footer"]["info"]
    assert (info["name"], info["nominal_srate"], info["channel_format"]) == (["array"], ["100.0"], ["float32"])
    channels = info["desc"][0]["channels"][0]["channel"]
    assert [(c["label"], c["unit"]) for c in channels] == [(["left"], ["V"]), (["right"], ["V"])]
    assert footer["sample_count"] == ["1000"]
    assert (footer["first_timestamp"], footer["last_timestamp"]) == ([str(times[0])], [str(times[-1])])
    assert array["clock_values"] == [0.0]
    told = [json.loads(row[0]) for row in events["time_series"]]
    assert told == [
        {"stream": "array", "index": 0, "seq": 0, "segment": 0},
        {"stream": "marks", "index": 0, "seq": 0, "segment": 0},
        {"stream": "array", "index": 500, "seq": 500, "segment": 1},
    ]
    assert events["time_stamps"].tolist() == [times[0], times[0], times[500]]


def test_a_run_without_a_sample_leaves_a_recording(tmp_path: Path) -> None:
    node = recorder(tmp_path, "array")
    node.start(Spec(rate=10, channels=("a",)))
    assert not node.path.exists(), "a start alone writes nothing"
    recorder(tmp_path, "array").stop()
    assert not node.path.exists(), "nor does what was never started"
    node.start(Spec(rate=10, channels=("a", "b")))
    node.stop()
    spec, blocks = replay(node.path, "array")
    assert spec.channels == ("a", "b") and blocks == []


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "recording.xdf").write_text("an earlier one")
    node = recorder(tmp_path, "array")
    with pytest.raises(StreamError, match=r"file: .*recording\.xdf exists already"):
        node.start(Spec(rate=10, channels=("a",)))
    late = recorder(tmp_path, "array", file="late.xdf")
    late.start(Spec(rate=10, channels=("a",)))
    (tmp_path / "late.xdf").write_text("it came between")
    with pytest.raises(StreamError, match="exists already"):
        late.take(0, Block(np.zeros((1, 1)), np.zeros(1)))
    late.stop()
    assert (tmp_path / "late.xdf").read_text() == "it came between"


@pytest.mark.parametrize(
    ("names", "parameters", "says"),
    [
        (("rheobase",), {}, "name of the recording's own events"),
        (("a", "a"), {}, "'a': twice"),
        (("a",), {"file": "no/such/folder.xdf"}, "no folder .*no/such"),
        (("a",), {"flush": 0}, "flush: "),
    ],
)
def test_what_cannot_be_recorded(tmp_path: Path, names: Any, parameters: Any, says: str) -> None:
    with pytest.raises(StreamError, match=says):
        recorder(tmp_path, *names, **parameters).start(*[Spec(rate=1, channels=("a",)) for _ in names])


def test_samples_of_another_type_than_announced_are_refused(tmp_path: Path) -> None:
    node = recorder(tmp_path, "a")
    node.start(Spec(rate=1, channels=("a",), dtype="float32"))
    with pytest.raises(StreamError, match="a: samples are float64, announced as float32"):
        node.take(0, Block(np.zeros((1, 1)), np.zeros(1)))
    node.stop()


RECORD = """
import itertools, sys, numpy as np
from pathlib import Path
from rheobase.devices.record import Record
from rheobase.stream.block import Block, Spec, StreamError
node = Record(file="r.xdf", flush=float(sys.argv[2]))
node.name, node.inputs, node.folder = "rec", ("array", "marks"), Path(sys.argv[1])
node.start(Spec(rate=1000, channels=tuple("abcdefgh")), Spec(rate=0, channels=("m",), dtype="str"))
def blocks(n, size=50):
    for k in range(n):
        a = np.arange(k * size, (k + 1) * size)
        yield Block(np.add.outer(a, np.arange(8) / 8), a / 1000, k * size, 0)
"""


def child(code: str, *argv: str) -> subprocess.Popen[str]:
    code = RECORD + textwrap.dedent(code)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, *argv], stdin=pipe, stdout=pipe, text=True)


@pytest.mark.parametrize("moment", ["idle", "busy"])
def test_readable_after_sigkill_up_to_the_last_flush(tmp_path: Path, moment: str) -> None:
    """Killed while nothing comes (what waited has been flushed all the same), and in the middle of a flood."""
    p = child(
        """
        for b in blocks(10):
            node.take(0, b)
        node.take(1, Block(np.array([["mark"]], object), np.array([0.25])))
        print("taken", flush=True)
        if sys.argv[3] == "busy":
            for b in itertools.islice(blocks(100_000), 10, None):
                node.take(0, b)
        sys.stdin.read()
        """,
        str(tmp_path), "0.05", moment,
    )  # fmt: skip
    try:
        assert p.stdout and p.stdout.readline() == "taken\n"
        path = tmp_path / "r.xdf"
        for _ in range(400):
            time.sleep(0.05)
            if path.exists() and path.stat().st_size > 500 * 73:
                if moment == "idle" or len(Chunks(path.read_bytes()).checks) > 2:  # of the head, and of two flushes
                    break
    finally:
        p.send_signal(signal.SIGKILL)
        p.wait(20)
    found = {s["info"]["name"][0]: s for s in pyxdf.load_xdf(str(path))[0]}
    _, blocks = replay(path, "array", salvage=moment == "busy")
    x, times, seq, segment = joined(blocks)
    n = len(x)
    assert n == 500 if moment == "idle" else n > 500
    assert np.array_equal(x, np.add.outer(np.arange(n), np.arange(8) / 8))
    assert np.array_equal(times, np.arange(n) / 1000)
    assert (seq, set(segment)) == (list(range(n)), {0})
    assert np.array_equal(found["array"]["time_series"][:n], x)
    assert found["marks"]["time_series"] == [["mark"]]


@pytest.mark.parametrize("full", ["limit", "device"])
def test_a_full_disk_says_what_is_safe_and_leaves_it_readable(tmp_path: Path, full: str) -> None:
    """A limit of the file's size (the error comes in the middle of a write), and a file system that is full."""
    folder = tmp_path
    if full == "device":
        folder = tmp_path / "small"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("may not mount a small file system here")
    try:
        p = child(
            """
            import resource
            if sys.argv[3] == "limit":
                resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
            try:
                for k, b in enumerate(blocks(2000)):
                    node.take(0, b)
                    import time; time.sleep(0.0005)
            except StreamError as e:
                print(e, flush=True)
            node.take(0, b)
            node.stop()
            print("closed", flush=True)
            """,
            str(folder), "0.01", full,
        )  # fmt: skip
        out, _ = p.communicate(timeout=60)
        assert p.returncode == 0
        error, closed = out.splitlines()
        assert closed == "closed", "the failure is told once; closing after it is quiet"
        why = "File too large" if full == "limit" else "No space left on device"
        assert error.startswith(f"file: {folder / 'r.xdf'}: {why} after ")
        safe = int(error.split("safe on disk: ")[1].split()[0])
        assert safe > 0 and "samples of 'array', 0 samples of 'marks'" in error
        _, blocks = replay(folder / "r.xdf", "array")
        assert np.array_equal(joined(blocks)[0], np.add.outer(np.arange(safe), np.arange(8) / 8))
        array = pyxdf.load_xdf(str(folder / "r.xdf"))[0][0]
        assert len(array["time_stamps"]) == safe
        streams.__globals__["_parse"].cache_clear()
    finally:
        if full == "device":
            subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_flush_that_fails_while_nothing_comes_is_told_at_the_end(tmp_path: Path) -> None:
    p = child(
        """
        import resource, time
        node.flush = 0.05
        for b in blocks(100):
            node.take(0, b)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        while not node.error:
            time.sleep(0.01)
        try:
            node.stop()
        except StreamError as e:
            print(e)
        """,
        str(tmp_path), "5",
    )  # fmt: skip
    out, _ = p.communicate(timeout=60)
    assert "File too large" in out and p.returncode == 0


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    node = recorder(folder, "a")
    node.start(Spec(rate=1, channels=("a",)))
    folder.rmdir()
    with pytest.raises(StreamError, match=r"file: .*recording\.xdf: No such file or directory"):
        node.take(0, Block(np.zeros((1, 1)), np.zeros(1)))
    node.stop()
