"""Recordings that were cut short or damaged, and what is taken of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyxdf
import rich.console
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheobase.devices._check import CHECK
from rheobase.devices._xdf import Chunks, length
from rheobase.devices.record import Record
from rheobase.devices.replay import Replay, streams
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.cli import main
from rheobase.tools.repair import repair

QUIET = rich.console.Console(quiet=True)


def recording(folder: Path, parts: int = 6) -> Path:
    """Flushed `parts` times: 20 samples of a, two words; in the fourth part a segment starts and 7 are missing."""
    node = Record(flush=1e6)
    node.name, node.inputs, node.folder = "rec", ("a", "w"), folder
    node.start(Spec(rate=100, channels=("x", "y"), dtype="int16"), Spec(rate=0, channels=("w",), dtype="str"))
    for k in range(parts):
        for i in range(2):
            seq = 20 * k + 10 * i + (7 if k > 3 or (k == 3 and i) else 0)
            values = np.repeat(np.arange(seq, seq + 10), 2).reshape(10, 2)
            node.take(0, Block(values.astype(np.int16), values[:, 0] / 100, seq, int(k > 3 or (k == 3 and i == 1))))
            node.take(1, Block(np.array([[f"{k}.{i}"]], object), np.array([k + i / 2]), 2 * k + i))
        with node.lock:
            node._write()
    node.stop()
    return node.path


def played(file: Path, stream: str) -> tuple[list[int], list[int], list[int]]:
    """Values, seq and segment of every sample."""
    node = Replay(file=str(file), stream=stream)
    node.start()
    blocks = [b for b in node.blocks() if b is not None]
    seq = [b.seq + k for b in blocks for k in range(len(b))]
    return [v for b in blocks for v in b.data[:, 0].tolist()], seq, [b.segment for b in blocks for _ in range(len(b))]


def test_a_changed_bit_is_seen_and_what_is_before_it_is_whole(tmp_path: Path) -> None:
    file = recording(tmp_path)
    checks = Chunks(file.read_bytes()).checks
    assert len(checks) == 8, "the head, six flushes, the footers"
    assert all(c.holds(file.read_bytes()) for c in checks)
    raw = bytearray(file.read_bytes())
    raw[checks[3].end - 20] ^= 1
    file.write_bytes(raw)
    with pytest.raises(
        StreamError, match=rf"damaged behind byte {checks[3].start} of .*`rheo repair`.* 40 samples of 'a'"
    ):
        streams(str(file))
    assert streams(str(file), salvage=True)


def test_what_a_checksum_counts_is_under_it(tmp_path: Path) -> None:
    """Else a damaged count would shift all that comes after it."""
    file = recording(tmp_path)
    raw = bytearray(file.read_bytes())
    check, after = Chunks(bytes(raw)).checks[3:5]
    assert check.totals[0][0] == 60
    raw[after.start - 24 * len(check.totals) + 6] ^= 1
    file.write_bytes(raw)
    assert Chunks(bytes(raw)).checks[3].totals[0][0] > 60
    with pytest.raises(StreamError, match=r"damaged behind byte .* 40 samples of 'a'"):
        streams(str(file))
    repair(file, tmp_path / "fixed.xdf", QUIET)
    assert len(played(tmp_path / "fixed.xdf", "a")[0]) == 100


def test_segments_that_go_backwards_are_damage(tmp_path: Path) -> None:
    file = recording(tmp_path)
    raw = file.read_bytes()
    whole, at = raw[:4], 4
    while at < len(raw):  # a file without checksums, as of before there were any
        size, content = length(raw, at)
        if int.from_bytes(raw[content : content + 2], "little") != CHECK:
            whole += raw[at : content + size]
        at = content + size
    file.write_bytes(whole)
    assert streams(str(file))["a"].rate == 100
    file.write_bytes(whole.replace(b'"index": 70', b'"index": -9'))
    with pytest.raises(StreamError, match="starts at sample -9, before the one before it"):
        streams(str(file))


def test_other_readers_skip_the_checksums(tmp_path: Path) -> None:
    file = recording(tmp_path)
    assert CHECK.to_bytes(2, "little") in file.read_bytes()
    found, _ = pyxdf.load_xdf(str(file))
    assert [len(s["time_stamps"]) for s in found[:2]] == [120, 12]


def test_a_whole_recording_stays_what_it_is(tmp_path: Path) -> None:
    file = recording(tmp_path)
    assert main(["repair", str(file)]) == 0
    fixed = tmp_path / "recording-repaired.xdf"
    for stream in ("a", "w"):
        assert played(fixed, stream) == played(file, stream)
    assert main(["repair", str(file)]) == 1, "nothing is overwritten"


@pytest.mark.parametrize("bad", [1, 2, 4, 5])
@pytest.mark.parametrize("where", [5, 40, -20])
def test_what_is_whole_behind_damage_is_taken_and_a_segment_starts_there(tmp_path: Path, bad: int, where: int) -> None:
    file = recording(tmp_path)
    values, seq, segment = played(file, "a")
    check = Chunks(file.read_bytes()).checks[bad]
    raw = bytearray(file.read_bytes())
    at = check.start + where if where > 0 else check.end + where
    raw[at : at + 4] = b"\xff\xff\xff\xff"
    file.write_bytes(raw)
    repair(file, tmp_path / "fixed.xdf", QUIET)
    lost = range(20 * (bad - 1), 20 * bad)
    kept = [k for k in range(120) if k not in lost]
    got, got_seq, got_segment = played(tmp_path / "fixed.xdf", "a")
    assert got == [values[k] for k in kept]
    assert got_seq == [seq[k] for k in kept]
    assert got_segment == [segment[k] + (k >= lost.stop) for k in kept]
    words, word_seq, _ = played(tmp_path / "fixed.xdf", "w")
    assert words == [f"{k}.{i}" for k in range(6) for i in (0, 1) if k != bad - 1]
    assert word_seq == [2 * k + i for k in range(6) for i in (0, 1) if k != bad - 1]
    assert all(
        c.holds((tmp_path / "fixed.xdf").read_bytes()) for c in Chunks((tmp_path / "fixed.xdf").read_bytes()).checks
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_happened_what_is_taken_was_recorded(tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere behind the head, and any bytes overwritten there: every sample taken is one that was written."""
    folder = tmp_path / "r"
    folder.mkdir(exist_ok=True)
    (folder / "recording.xdf").unlink(missing_ok=True)
    (folder / "fixed.xdf").unlink(missing_ok=True)
    file = recording(folder)
    whole = dict(zip(*played(file, "a")[1::-1], strict=True))
    raw = bytearray(file.read_bytes())
    head = Chunks(bytes(raw)).checks[0].end + 40
    end = data.draw(st.integers(head, len(raw)))
    del raw[end:]
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(head, max(head, end - 1)))
        noise = data.draw(st.binary(min_size=1, max_size=9))
        raw[at : at + len(noise)] = noise
    file.write_bytes(raw)
    repair(file, folder / "fixed.xdf", QUIET)
    checked = Chunks(bytes(raw)).checks
    if "a" in streams(str(folder / "fixed.xdf"), salvage=True):
        values, seq, _ = played(folder / "fixed.xdf", "a")
        assert len(values) >= 20 * (len([c for c in checked if c.holds(bytes(raw))]) - 2)
        assert sorted(set(seq)) == seq or len(values) == 0
        assert [whole.get(s) for s in seq] == values, "each is what was written"


def test_what_a_full_disk_stops_leaves_nothing_behind(tmp_path: Path) -> None:
    file = recording(tmp_path)
    code = (
        "import resource, signal, sys; from rheobase.stream.cli import main; signal.signal(signal.SIGXFSZ, "
        "signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); sys.exit(main(sys.argv[1:]))"
    )
    assert file.stat().st_size > 2000
    done = subprocess.run(
        [sys.executable, "-c", code, "repair", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "recording-repaired.xdf: File too large: nothing is written" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["recording.xdf"]
    assert main(["repair", str(file)]) == 0, "the next try has room"


@pytest.mark.parametrize(
    ("raw", "says"), [(b"", "is empty"), (b"PK", "not an XDF file"), (b"XDF:" + bytes(60), "headers")]
)
def test_what_cannot_be_repaired_is_said(tmp_path: Path, raw: bytes, says: str) -> None:
    (tmp_path / "x.xdf").write_bytes(raw)
    with pytest.raises(StreamError, match=says):
        repair(tmp_path / "x.xdf", None, QUIET)
    assert [p.name for p in tmp_path.iterdir()] == ["x.xdf"]
