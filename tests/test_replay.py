"""Tables and arrays as streams: CSV, npz, npy, MATLAB; what is read, in which segments, and what is refused."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from rheobase.devices.record import Record
from rheobase.devices.replay import Replay, streams
from rheobase.stream.block import Block, Spec, StreamError


def replay(file: Path | str | list[str], **parameters: Any) -> tuple[Spec, list[Block]]:
    node = Replay.make(file=file if isinstance(file, list) else str(file), **parameters)
    assert not node.live
    spec = node.start()
    return spec, list(node.blocks())


def joined(blocks: list[Block]) -> tuple[Any, Any, list[int]]:
    """data, times, and the segment of each sample; the sequence runs on."""
    assert [b.seq for b in blocks] == np.cumsum([0, *map(len, blocks)])[:-1].tolist()
    segments = [b.segment for b in blocks for _ in range(len(b))]
    return np.concatenate([b.data for b in blocks]), np.concatenate([b.times for b in blocks]), segments


# ---- what is read


@pytest.mark.parametrize("mark", [",", ";", "\t", "  "])
@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_tables(tmp_path: Path, mark: str, names: bool, packed: bool) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    text = "# made by hand\n\n" + (mark.join(["time", "left", "right", "up"]) + "\r\n" if names else "")
    t = np.arange(50) / 20
    text += "\n".join(mark.join([repr(float(a)), *(repr(float(v)) for v in row)]) for a, row in zip(t, x, strict=True))
    file = tmp_path / ("x.csv.gz" if packed else "x.txt")
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode("utf-8-sig"))
    spec, blocks = replay(file, times="time" if names else "0", unit="V")
    assert (spec.rate, spec.unit, spec.dtype) == (20, "V", "float64")
    data, times, _ = joined(blocks)
    if names:
        assert spec.channels == ("left", "right", "up")
    assert np.array_equal(times, t)
    assert np.array_equal(data, x)


def test_a_table_without_times_needs_a_rate(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    np.savetxt(file, np.arange(40.0).reshape(20, 2), delimiter=",")
    with pytest.raises(StreamError, match=r"rate: .*x\.csv has no times: give its rate in Hz"):
        replay(file)
    spec, blocks = replay(file, rate=4, channels=["a", "b"])
    data, times, _ = joined(blocks)
    assert spec == Spec(rate=4, channels=("a", "b"))
    assert np.array_equal(data, np.arange(40.0).reshape(20, 2)) and np.array_equal(times, np.arange(20) / 4)
    assert {len(b) for b in blocks} == {4}, "no more than a second at once"


def test_an_empty_cell_is_a_missing_value(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text('a,"b, really",c\n1,,3\n4,nan,"6"\n,-inf,7\n')
    spec, blocks = replay(file, rate=1, chunk=2)
    assert spec.channels == ("a", "b, really", "c")
    x, _, _ = joined(blocks)
    assert np.array_equal(x, [[1, np.nan, 3], [4, np.nan, 6], [np.nan, -np.inf, 7]], equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u4", "u2", "u1", "?", ">f8", ">i2", "U5", "S5"]),
    c=st.integers(0, 3),
    n=st.integers(0, 30),
    chunk=st.integers(1, 40),
    kind=st.sampled_from(["npy", "npz", "fortran"]),
)
def test_arrays_of_every_type(tmp_path_factory: Any, dtype: str, c: int, n: int, chunk: int, kind: str) -> None:
    """Each value as it is, in the narrowest type an edge carries that holds it; c = 0: an array of one dimension."""
    rng = np.random.default_rng(n)
    x = rng.integers(-100 if np.dtype(dtype).kind in "fi" else 0, 100, (n, c) if c else n).astype(dtype)
    file = tmp_path_factory.mktemp("arrays") / ("x.npz" if kind == "npz" else "x.npy")
    if kind == "npz":
        np.savez(file, here=x, scalar=3.0, deep=np.zeros((2, 2, 2, 2)))
    else:
        np.save(file, np.asfortranarray(x) if kind == "fortran" else x)
    spec, blocks = replay(file, rate=1000, chunk=chunk)
    assert list(streams(str(file))) == (["here"] if kind == "npz" else [""])
    assert spec.n == max(c, 1) and spec.channels == tuple(f"ch{i}" for i in range(spec.n))
    if not n:
        assert blocks == []
        return
    data, times, _ = joined(blocks)
    want = x.reshape(n, -1)
    if x.dtype.kind in "US":
        assert spec.dtype == "str" and data.dtype == object
        assert data.tolist() == want.astype("U5").tolist()
    else:
        assert data.dtype == spec.dtype and data.dtype.isnative
        assert data.dtype.itemsize <= 2 * x.dtype.itemsize
        assert data.tolist() == want.astype(data.dtype).tolist() and np.array_equal(want, data)
    assert np.array_equal(times, np.arange(n) / 1000)


def test_arrays_with_times(tmp_path: Path) -> None:
    """A gap and a step back start a segment each, at the very sample; what is jitter does not."""
    t = np.arange(100) / 10 + np.random.default_rng(0).uniform(-0.01, 0.01, 100)
    t[40:] += 1.05
    t[70:] -= 5
    x = np.arange(200.0).reshape(100, 2)
    np.savez(tmp_path / "x.npz", x=x, t=t, other=t)
    scipy.io.savemat(tmp_path / "x.mat", {"x": x, "t": t, "other": t})
    for file in tmp_path / "x.npz", tmp_path / "x.mat":
        spec, blocks = replay(file, stream="x", times="t", channels=["u", "v"])
        assert spec.rate == pytest.approx(10, rel=0.02) and spec.channels == ("u", "v")
        data, times, segments = joined(blocks)
        assert np.array_equal(data, x) and np.array_equal(times, t)
        assert segments == [0] * 40 + [1] * 30 + [2] * 30
        _, blocks = replay(file, stream="x", times="t", gap=2)
        assert joined(blocks)[2] == [0] * 70 + [1] * 30
        with pytest.raises(StreamError, match=r"has 2 streams, name one; there is other, x"):
            replay(file, times="t")
    irregular = np.cumsum(np.random.default_rng(0).exponential(1.0, 100))
    np.savez(tmp_path / "y.npz", x=x, t=irregular)
    spec, blocks = replay(tmp_path / "y.npz", times="t")
    assert spec.rate == 0 and joined(blocks)[2] == [0] * 100, "an irregular stream has no gaps"


def test_matlab(tmp_path: Path) -> None:
    file = tmp_path / "x.mat"
    x = np.arange(12.0).reshape(4, 3)
    scipy.io.savemat(file, {"imu": x, "flag": np.array([[True], [False]]), "info": "text", "s": {"a": 1}, "k": 5})
    spec, blocks = replay(file, stream="imu", rate=100, unit="rad/s")
    assert np.array_equal(joined(blocks)[0], x) and spec.unit == "rad/s"
    assert joined(replay(file, stream="flag", rate=1)[1])[0].tolist() == [[1], [0]]
    with pytest.raises(StreamError, match=r"stream: .*x\.mat has no stream 'inu'; did you mean 'imu'"):
        replay(file, stream="inu", rate=1)


def test_a_check_reads_the_file_and_leaves_the_node_as_it_was(tmp_path: Path) -> None:
    """A graph is checked in one process and run in others: a checked node must still travel."""
    file = tmp_path / "x.csv"
    with pytest.raises(StreamError, match=r"no file .*x\.csv"):
        Replay(file=str(file), rate=1).check()
    file.write_text("1,2\n3,4\n")
    node = Replay(file=str(file), rate=1)
    node.check()
    there = pickle.loads(pickle.dumps(node))
    assert there.start().n == 2


def test_channels_by_name(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("t,a,b,c\n0,1,2,3\n1,4,5,6\n2,7,8,9\n")
    spec, blocks = replay(file, times="t", channels=["c", "a"])
    assert spec.channels == ("c", "a") and spec.rate == 1
    assert joined(blocks)[0].tolist() == [[3, 1], [6, 4], [9, 7]]


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    for k, text in enumerate(["1\n2\n", "3\n4\n"]):
        file.write_text(text)
        os.utime(file, ns=(k, k))
        assert joined(replay(file, rate=1)[1])[0].ravel().tolist() == [2 * k + 1, 2 * k + 2]


def test_an_array_of_recordings_is_a_segment_each(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5, 2))
    np.savez(tmp_path / "x.npz", x=x, label=np.array([1, 0, 1], np.uint8))
    _, blocks = replay(tmp_path / "x.npz", stream="x", rate=10)
    data, times, segments = joined(blocks)
    assert np.array_equal(data, x.reshape(15, 2)) and np.array_equal(times, np.arange(15) / 10)
    assert segments == [0] * 5 + [1] * 5 + [2] * 5
    _, labels = replay(tmp_path / "x.npz", stream="label", rate=10 / 5)
    assert np.array_equal(joined(labels)[1], times[::5]), "a label stands at the start of its recording"


def test_the_rate_may_stand_in_the_file(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(6, 2)
    scipy.io.savemat(tmp_path / "x.mat", {"x": x, "fs": 285.5, "two": [1.0, 2.0], "no": 0.0})
    spec, blocks = replay(tmp_path / "x.mat", stream="x", rate="fs")
    assert spec.rate == 285.5 and np.array_equal(joined(blocks)[1], np.arange(6) / 285.5)
    for word, says in ("f", "has no 'f'; did you mean 'fs'"), ("two", "not one rate in Hz"), ("no", "not one rate"):
        with pytest.raises(StreamError, match=f"rate: .*{says}"):
            replay(tmp_path / "x.mat", stream="x", rate=word)


def test_a_value_that_stands_for_none(tmp_path: Path) -> None:
    """A time of -1 s is one all the same."""
    (tmp_path / "x.csv").write_text("t,force,z\n-1,5,-1\n0,-1,2\n1,-1.5,-1\n")
    data, times, _ = joined(replay(tmp_path / "x.csv", times="t", missing=-1)[1])
    assert np.array_equal(data, [[5, np.nan], [np.nan, 2], [-1.5, np.nan]], equal_nan=True)
    assert times.tolist() == [-1, 0, 1]
    np.save(tmp_path / "x.npy", np.array([[3], [-1]], np.int8))
    spec, blocks = replay(tmp_path / "x.npy", rate=1, missing=-1)
    assert spec.dtype == "float64" and np.array_equal(joined(blocks)[0], [[3], [np.nan]], equal_nan=True)
    np.save(tmp_path / "x.npy", np.array([["a"]]))
    with pytest.raises(StreamError, match=r"missing: .*x.npy is text"):
        replay(tmp_path / "x.npy", rate=1, missing=-1)


def test_the_start_can_be_left_out(tmp_path: Path) -> None:
    """Of each file, and in the middle of a segment; what is left keeps its times and its sequence of segments."""
    files = several(tmp_path)
    data, times, segments = joined_times(replay(files, times="t", every=10, begin=0.75)[1])
    assert data.ravel().tolist() == [*range(8, 20), *range(108, 130)]
    assert segments == [0] * 7 + [1] * 5 + [2] * 22
    assert times[:2].tolist() == [0.8, 0.9] and times[12:14].tolist() == [10.8, 10.9]
    np.save(tmp_path / "x.npy", np.arange(10.0))
    _, blocks = replay(tmp_path / "x.npy", rate=10, begin=0.3)
    assert joined_times(blocks)[1].tolist() == (np.arange(3, 10) / 10).tolist()
    with pytest.raises(StreamError, match=r"begin: .*x.npy has no sample 1 s after its first"):
        replay(tmp_path / "x.npy", rate=10, begin=1)


def joined_times(blocks: list[Block]) -> tuple[Any, Any, list[int]]:
    """As `joined`, of a stream whose sequence does not begin at 0."""
    return (
        np.concatenate([b.data for b in blocks]),
        np.concatenate([b.times for b in blocks]),
        [b.segment for b in blocks for _ in range(len(b))],
    )


def several(folder: Path) -> list[str]:
    """Two tables with times, of 2 s each, with a gap in the first; the second counts from 0, too."""
    files = []
    for k, n in enumerate((20, 30)):
        t = np.arange(n) / 10.0
        t[15:] += 5.0 if k == 0 else 0.0
        files.append(str(folder / f"{k}.csv"))
        np.savetxt(files[-1], np.column_stack([t, 100 * k + np.arange(n)]), delimiter=",", header="t,a", comments="")
    return files


def test_several_recordings_one_after_another(tmp_path: Path) -> None:
    """Each opens a segment, beside those of its gaps; sequence and times run on."""
    files = several(tmp_path)
    spec, blocks = replay(files, times="t", every=10)
    data, times, segments = joined(blocks)
    assert (spec.rate, spec.channels) == (10, ("a",))
    assert data.ravel().tolist() == [*range(20), *range(100, 130)]
    assert segments == [0] * 15 + [1] * 5 + [2] * 30
    one, two = (joined(replay(f, times="t")[1])[1] for f in files)
    assert np.array_equal(times, np.concatenate([one, two + 10]))


def test_several_recordings_without_times_are_counted_on(tmp_path: Path) -> None:
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", np.full((7, 1), float(k)))
    files = [str(tmp_path / f"{k}.npy") for k in range(3)]
    data, times, segments = joined(replay(files, rate=10)[1])
    assert data.ravel().tolist() == segments == [0] * 7 + [1] * 7 + [2] * 7
    assert np.array_equal(times, np.arange(21) / 10)
    data, times, segments = joined(replay(files, rate=10, every=2)[1])
    assert np.array_equal(times, np.concatenate([np.arange(7) / 10 + 2 * k for k in range(3)]))


def test_several_recordings_of_a_run_keep_what_was_lost(tmp_path: Path) -> None:
    """Sequence numbers that are missing in a recording stay missing, and the next one goes on after its last."""
    for k in range(2):
        node = Record(file=f"{k}.xdf")
        node.inputs, node.folder, node.name = ("x",), tmp_path, "rec"
        node.start(Spec(rate=10, channels=("a",)))
        node.take(0, Block(np.zeros((5, 1)), 10.0 * k + np.arange(5) / 10))
        node.take(0, Block(np.ones((5, 1)), 10.0 * k + np.arange(8, 13) / 10, 8, 1))
        node.stop()
    _, blocks = replay([str(tmp_path / "0.xdf"), str(tmp_path / "1.xdf")])
    assert [(b.seq, b.segment, len(b)) for b in blocks] == [(0, 0, 5), (8, 1, 5), (13, 2, 5), (21, 3, 5)]


def test_recordings_that_do_not_go_together(tmp_path: Path) -> None:
    files = several(tmp_path)
    t = np.arange(30) / 20.0
    for name, head, x in ("b", "t,b", t * 2 + 20), ("fast", "t,a", t + 20):
        np.savetxt(tmp_path / f"{name}.csv", np.column_stack([x, x]), delimiter=",", header=head, comments="")
    for more, says in (
        ([files[1]], "every: .*1.csv would begin at 0 s, and the one before ends at 6.9 s"),
        ([str(tmp_path / "b.csv")], "file: .*b.csv differs from .*0.csv in channels: b, there a"),
        ([str(tmp_path / "fast.csv")], "file: .*fast.csv differs from .*0.csv in rate: 20 Hz, there 10 Hz"),
        ([str(tmp_path / "no.csv")], "no file .*no.csv"),
    ):
        with pytest.raises(StreamError, match=says):
            replay([files[0], *more], times="t")
    with pytest.raises(StreamError, match=r"every: .* would begin at 6 s"):
        replay(files, times="t", every=6)
    with pytest.raises(StreamError, match="file: name at least one"):
        replay([], times="t")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc/self/status to read memory from")
def test_memory_stays_flat_over_ten_million_samples(tmp_path: Path) -> None:
    """What the process takes for itself, while the file lies in the system's cache."""
    code = """
import sys
from rheobase.devices.record import Record
from rheobase.devices.replay import Replay
def anonymous():
    return sum(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")) * 1024
node = Replay.make(file=sys.argv[1], rate=1000.0, stream=sys.argv[2])
node.start()
before, worst, n, total = anonymous(), 0, 0, 0.0
for k, b in enumerate(node.blocks()):
    n += len(b)
    total += float(b.data[0, 0])
    if k % 500 == 0:
        worst = max(worst, anonymous() - before)
print(n, worst >> 20)
"""
    n = 10_000_000
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n, 4))
    node = Record()
    node.inputs, node.folder, node.name = ("x",), tmp_path, "rec"
    node.start(Spec(rate=1000, channels=tuple("abcd"), dtype="float32"))
    for a in range(0, n, 100_000):
        node.take(0, Block(x[a : a + 100_000], np.arange(a, a + 100_000) / 1000, a))
    node.stop()
    for file, stream in (tmp_path / "x.npy", ""), (node.path, "x"):
        argv = [sys.executable, "-c", code, str(file), stream]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
        samples, worst = map(int, done.stdout.split())
        assert samples == n and worst < 20, file
        file.unlink()


# ---- what is refused


def cases(folder: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """file -> parameters, and what the error says."""
    x = np.arange(20.0).reshape(10, 2)
    np.save(folder / "whole.npy", x)
    raw = (folder / "whole.npy").read_bytes()
    (folder / "cut.npy").write_bytes(raw[:-40])
    (folder / "head.npy").write_bytes(raw[:50])
    (folder / "not.npy").write_bytes(b"hello")
    (folder / "empty.npy").write_bytes(b"")
    np.save(folder / "pickle.npy", np.array([{}], object), allow_pickle=True)
    np.save(folder / "deep.npy", np.zeros((2, 2, 2, 2)))
    np.save(folder / "complex.npy", np.zeros((2, 2), complex))
    np.save(folder / "none.npy", np.zeros((2, 0)))
    np.savez(folder / "whole.npz", a=x, b=x)
    packed = (folder / "whole.npz").read_bytes()
    (folder / "cut.npz").write_bytes(packed[:-50])
    broken = bytearray(packed)
    at = packed.index(struct.pack("<d", 19.0))
    broken[at] ^= 1
    (folder / "broken.npz").write_bytes(broken)
    np.savez(folder / "pickle.npz", a=np.array([{}], object))
    (folder / "array.npz").write_bytes(raw)
    np.savez(folder / "times.npz", x=x, t=x[:, :1], few=x[:5, 0], nan=x[:, 0] * np.nan)
    (folder / "wide.csv").write_text("a,b\n1,2\n\n3,4,5\n")
    (folder / "word.csv").write_text("a,b\n1,2\n3,four\n")
    (folder / "only.csv").write_text("t\n1\n2\n")
    (folder / "empty.csv").write_text("# nothing\n\n")
    (folder / "latin.csv").write_bytes(b"a,\xff\n1,2\n")
    gz = gzip.compress(b"".join(b"%d,%d\n" % (k, k * k) for k in range(100_000)))
    (folder / "cut.csv.gz").write_bytes(gz[: len(gz) // 2])
    scipy.io.savemat(folder / "whole.mat", {"a": x})
    (folder / "cut.mat").write_bytes((folder / "whole.mat").read_bytes()[:180])
    (folder / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(100))
    (folder / "x.foo").write_text("1")
    (folder / "dir.csv").mkdir()
    return {
        "cut.npy": ({}, "cut short after 7 of 10 rows; 7 samples are whole (`salvage: true` takes them)"),
        "head.npy": ({}, "damaged: "),
        "not.npy": ({}, "damaged: it is not an npy file"),
        "empty.npy": ({}, "damaged: it is not an npy file"),
        "pickle.npy": ({}, "it holds Python objects (pickle), which are never loaded"),
        "deep.npy": ({}, "has shape (2, 2, 2, 2): a stream is (samples, channels)"),
        "complex.npy": ({}, "is complex128: a stream is of numbers or strings"),
        "none.npy": ({}, "has shape (2, 0)"),
        "cut.npz": ({"stream": "a"}, "damaged, nothing in it is readable"),
        "broken.npz": ({"stream": "a"}, "'a' is damaged (Bad CRC-32 for file 'a.npy'); whole: 10 samples of 'b'"),
        "pickle.npz": ({}, "'a' is damaged (Object arrays cannot be loaded"),
        "array.npz": ({}, "it is not an npz file"),
        "times.npz": ({"stream": "x", "times": "few"}, "times: 'few' of "),
        "wide.csv": ({}, "line 4 has 3 columns where the first has 2; 1 samples before that are whole"),
        "word.csv": ({}, "line 3, column 'b': 'four' is not a number; 1 samples before that are whole"),
        "only.csv": ({"times": "t"}, "has no column besides the times"),
        "empty.csv": ({}, "nothing in it"),
        "latin.csv": ({}, "not a text"),
        "cut.csv.gz": ({}, "damaged: Compressed file ended before the end-of-stream marker was reached; "),
        "cut.mat": ({}, "damaged: "),
        "new.mat": ({}, "a MATLAB 7.3 file; save it with -v7"),
        "x.foo": ({}, "not a format known here"),
        "dir.csv": ({}, "Is a directory"),
    }


def test_each_bad_file_gets_its_line(tmp_path: Path) -> None:
    wrong = []
    for name, (parameters, says) in cases(tmp_path).items():
        with pytest.raises(StreamError) as caught:
            replay(tmp_path / name, **({"rate": 1} | parameters))
        text = str(caught.value)
        if says not in text or str(tmp_path / name) not in text or "\n" in text:
            wrong.append((name, says, text))
    assert not wrong


def test_what_is_whole_can_be_had(tmp_path: Path) -> None:
    cases(tmp_path)
    x = np.arange(20.0).reshape(10, 2)

    def read(name: str, **parameters: Any) -> Any:
        return joined(replay(tmp_path / name, rate=1, salvage=True, **parameters)[1])[0]

    assert np.array_equal(read("cut.npy"), x[:7])
    assert np.array_equal(read("broken.npz", stream="b"), x)
    assert read("wide.csv").tolist() == [[1, 2]]
    assert read("word.csv").tolist() == [[1, 2]]
    rows = read("cut.csv.gz")
    assert len(rows) > 1000 and np.array_equal(rows[:, 0], np.arange(len(rows)))
    assert np.array_equal(rows[:, 1], rows[:, 0] ** 2)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"times": "tt"}, "times: .* has no 'tt'"),
        ({"times": "nan"}, "times: 'nan' of .* holds what is not a time"),
        ({"channels": ["a"]}, "channels: 1 names for the 2 channels of "),
        ({"stream": "y"}, "stream: .* has no stream 'y'"),
        ({"rate": -1}, "rate: "),
        ({"chunk": 0}, "chunk: "),
        ({"file": "no.npz"}, "no file 'no.npz'"),
    ],
)
def test_what_a_config_may_get_wrong(tmp_path: Path, parameters: Any, says: str) -> None:
    cases(tmp_path)
    with pytest.raises(StreamError, match=says):
        replay(**({"file": tmp_path / "times.npz", "stream": "x", "times": "t"} | parameters))


# ---- recorded data


@pytest.mark.parametrize(
    ("file", "parameters", "shape", "rate"),
    [
        ("flint2012_run1/x.csv", {"rate": 10}, (7792, 10), 10),
        ("xio/sensor_data.csv", {"times": "Time (s)", "rate": 100}, (13514, 9), 100),
        ("cmapss/train_FD001.txt.gz", {"rate": 1}, (20631, 26), 1),
        ("rat_trajectories/sargolini.npz", {"stream": "pos", "times": "t"}, (29800, 2), 50),
        ("broad/02_undisturbed_slow_rotation_B.mat", {"stream": "imu_gyr", "rate": 285.714}, (53240, 3), 285.714),
        ("eflesh/normal_force/20250401_014340_probe/sensor.csv.gz", {"times": "0"}, None, None),
    ],
)
def test_recorded_files(data: Callable[[str], Path], file: str, parameters: Any, shape: Any, rate: Any) -> None:
    data(file)
    spec, blocks = replay(f"data:{file}", **parameters)
    x, times, _ = joined(blocks)
    if shape:
        assert x.shape == shape and spec.rate == rate
    assert len(times) == len(x) and np.isfinite(times).all()
    assert max(map(len, blocks)) <= 1024
