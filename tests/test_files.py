"""Model files, and recorded data by name."""

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheobase.stream import files
from rheobase.stream.block import StreamError
from rheobase.stream.files import digest, find, known_data, load_model, save_model

ARRAYS = {"A": np.arange(6.0).reshape(2, 3), "n": np.array(3), "s": np.array(0.5)}
SAID = {"node": "kalman", "in": {"n": 3}, "out": {"channels": ["vx", "vy"]}}
HEADER = SAID | {"arrays": {k: digest(a) for k, a in ARRAYS.items()}}


def whole() -> bytes:
    file = io.BytesIO()
    np.savez(file, header=np.frombuffer(json.dumps(HEADER).encode(), np.uint8), **ARRAYS)
    return file.getvalue()


WHOLE = whole()


def test_there_and_back(tmp_path: Path) -> None:
    path = save_model(tmp_path / "models" / "m.npz", ARRAYS, SAID)
    arrays, header = load_model(path)
    assert arrays.keys() == ARRAYS.keys()
    for k, a in ARRAYS.items():
        assert np.array_equal(arrays[k], a) and arrays[k].shape == a.shape
    assert HEADER.items() <= header.items()
    assert header["versions"]["numpy"] == np.__version__
    assert os.listdir(path.parent) == ["m.npz"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_model(tmp_path / "m.npz", ARRAYS, SAID)
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(StreamError, match=r"cannot write .*m\.npz: No space left on device"):
        save_model(path, ARRAYS, SAID)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.npz"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(WHOLE) - 1))
def test_truncated(tmp_path: Path, at: int) -> None:
    path = tmp_path / "m.npz"
    path.write_bytes(WHOLE[:at])
    with pytest.raises(StreamError, match=r"m\.npz"):
        load_model(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(at=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_damaged(tmp_path: Path, at: int, bit: int) -> None:
    """A flipped bit is found, or it is one that no number comes from."""
    bad = bytearray(WHOLE)
    bad[at] ^= 1 << bit
    path = tmp_path / "m.npz"
    path.write_bytes(bad)
    try:
        arrays, header = load_model(path)
    except StreamError as e:
        assert "m.npz" in str(e) and "\n" not in str(e)
    else:
        assert header == HEADER
        assert all(np.array_equal(arrays[k], a) for k, a in ARRAYS.items())


def crafted(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as z:
        for name, data in members.items():
            z.writestr(f"{name}.npy", data)
    return path


def npy(a: Any, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, a, allow_pickle=pickled)
    return file.getvalue()


def header(**arrays: Any) -> bytes:
    said = SAID | {"arrays": {k: digest(a) for k, a in arrays.items()}}
    return npy(np.frombuffer(json.dumps(said).encode(), np.uint8))


HEADER_NPY = header()
NAN = np.array([1.0, np.nan])


@pytest.mark.parametrize(
    "members, message",
    [
        ({"A": npy(np.array([{}], object), True), "header": HEADER_NPY}, r"A\.npy holds object, not numbers"),
        ({"A": npy(np.array(["a"])), "header": HEADER_NPY}, "not numbers"),
        ({"A": npy(np.zeros(2)).replace(b"(2,), ", b"(2000000000000,), "[:6]), "header": HEADER_NPY}, "m.npz"),
        (
            {"A": npy(np.zeros(12345)).replace(b"(12345,)", b"(99999,)"), "header": HEADER_NPY},
            "another size than it says",
        ),
        ({"A": npy(np.zeros(2)), "header": HEADER_NPY}, "not those that were written"),
        ({"A": npy(NAN), "header": header(A=NAN)}, "A holds values that are not finite"),
        ({"A": npy(np.zeros(2))}, "it has no header"),
        ({"header": npy(np.frombuffer(b"{}", np.uint8))}, "its header is incomplete"),
        ({"header": npy(np.frombuffer(b"\xff\xfe{", np.uint8))}, "damaged or not a model file"),
        ({"header": b"nonsense"}, "damaged or not a model file"),
    ],
)
def test_crafted(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(StreamError, match=message):
        load_model(crafted(tmp_path / "m.npz", **members))


def test_too_large_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST", 1 << 10)
    path = save_model(tmp_path / "m.npz", {"A": np.zeros(1000)}, SAID)
    with pytest.raises(StreamError, match="more than"):
        load_model(path)


def test_digest_depends_on_values_and_shape() -> None:
    a = np.arange(6.0)
    assert digest(a) == digest(a.copy())
    assert len({digest(a), digest(a.reshape(2, 3)), digest(a + 1), digest(a.astype(np.float32)), digest(a, a)}) == 5


def test_paths(tmp_path: Path) -> None:
    (tmp_path / "cursor.npz").write_bytes(b"")
    assert find("cursor.npz", tmp_path) == tmp_path / "cursor.npz"
    assert find(str(tmp_path / "cursor.npz")) == tmp_path / "cursor.npz"
    with pytest.raises(StreamError, match=r"no file 'curser.npz'; did you mean 'cursor.npz'"):
        find("curser.npz", tmp_path)
    with pytest.raises(StreamError, match=r"no file 'nowhere/at/all.npz'$"):
        find("nowhere/at/all.npz")


def test_recorded_data_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.csv").write_text("1\n")
    assert find("data:mine/x.csv") == tmp_path / "mine" / "x.csv"
    assert known_data()["mine/x.csv"] == str(tmp_path / "mine" / "x.csv")
    assert known_data()["flint2012_run1/x.csv"].startswith("https://")
    with pytest.raises(StreamError, match=r"did you mean 'flint2012_run1/x.csv'"):
        find("data:flint2012_run1/xx.csv")
    for name in ("data:../x", "data:/etc/passwd"):
        with pytest.raises(StreamError, match=r"has no '\.\.'"):
            find(name)


def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: bytes, given: bytes) -> list[str]:
    """A table of one file whose hash is that of `said`, a cache of our own, and a server that gives `given`."""
    asked = []
    entry = {"url": "https://example.org/x.csv", "sha256": hashlib.sha256(said).hexdigest()}
    monkeypatch.delenv("RHEOBASE_DATA", raising=False)
    monkeypatch.setattr(files, "table", lambda: {"set/x.csv": entry})
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path)

    def download(url: str, output_file: Any, pooch: Any, **_: Any) -> None:
        asked.append(url)
        Path(output_file).write_bytes(given)

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *_, **__: download)
    return asked


def test_fetched_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = served(monkeypatch, tmp_path, b"1,2\n", b"1,2\n")
    for _ in range(2):
        assert find("data:set/x.csv").read_bytes() == b"1,2\n"
    assert asked == ["https://example.org/x.csv"]


def test_fetched_with_another_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, tmp_path, b"1,2\n", b"<html>not found</html>")
    with pytest.raises(StreamError, match="another SHA-256"):
        find("data:set/x.csv")
    assert not (tmp_path / "set" / "x.csv").exists()


def test_the_table_is_whole() -> None:
    for name, entry in files.table().items():
        assert "/" in name and entry.keys() == {"url", "sha256"}
        assert len(entry["sha256"]) == 64 and entry["url"].startswith("https://")
        assert entry["url"].rsplit("/", 1)[1] in (name.rsplit("/", 1)[1], "README.md")


def test_the_table_agrees_with_what_is_there() -> None:
    root = os.environ.get("RHEOBASE_DATA")
    there = [(n, e) for n, e in files.table().items() if root and (Path(root) / n).is_file()]
    if not there:
        pytest.skip("recorded data not found: set RHEOBASE_DATA")
    for name, entry in there:
        path = Path(str(root)) / name
        if path.stat().st_size < 2_000_000:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"], name
