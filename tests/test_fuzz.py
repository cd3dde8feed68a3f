"""A short, seeded part of `python -m rheobase.tools.fuzz`, and what it found once."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from rheobase.devices import _tables
from rheobase.devices.replay import streams
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.graph import parse, read
from rheobase.stream.link import HEADER, MAGIC, Receiver, pack, pack_spec, unpack
from rheobase.tools.fuzz import files, frames, fuzz


def test_damaged_frames_raise_or_are_read() -> None:
    assert fuzz("frame", *frames(), n=6000, seed=1) == []


@pytest.mark.parametrize(
    ("what", "n"), [("xdf", 150), ("npz", 150), ("model", 100), ("csv", 100), ("yaml", 30), ("key", 100)]
)
def test_damaged_files_raise_or_are_read(tmp_path: Path, what: str, n: int) -> None:
    assert fuzz(what, *files(tmp_path)[what], n=n, seed=1) == []


def test_the_fuzzer_sees_what_is_wrong() -> None:
    def read(raw: bytes) -> None:
        if len(raw) > 20:
            raise KeyError("on purpose")

    assert any("KeyError" in line for line in fuzz("x", [bytes(15)], read, 200, 0))
    hungry = fuzz("x", [bytes(9)], lambda raw: None if raw == bytes(9) else np.ones(1 << 30, np.uint8).fill(0), 1, 0)
    assert "MemoryError" in hungry[0]


def test_counts_do_not_run_over_whatever_frames_say() -> None:
    receiver = Receiver("inproc://counts")
    receiver._take(pack_spec(Spec(rate=1, channels=("a",))))
    one = Block(np.zeros((1, 1)), np.zeros(1), seq=(1 << 62) - 1)
    for _ in range(4):
        receiver._take(pack(one, "float64"))
        receiver._take(pack(one.replace(seq=0), "float64"))
    assert receiver.dropped <= 1 << 62
    for seq, segment in ((1 << 63, 0), (0, (1 << 32) - 1)):
        head = HEADER.pack(MAGIC, 1, 0, 0, 0, 0, 1, 1, segment, seq, 0.0)
        with pytest.raises(StreamError, match="frame with a seq of"):
            unpack(head + bytes(16))


@pytest.mark.parametrize(
    "text",
    [b"[" * 100000, b"5", b'{"rate": 1, "channels": "abc"}', b'{"rate": 1, "channels": ["a"], "delay": "x"}'],
)
def test_a_spec_that_is_none(text: bytes) -> None:
    with pytest.raises(StreamError, match="frame with a damaged spec"):
        unpack(HEADER.pack(MAGIC, 1, 1, 0, 0, 0, len(text), 1, 0, 0, 0.0) + text)


def test_aliases_of_aliases_and_long_files_are_no_config(tmp_path: Path) -> None:
    text = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for k, word in enumerate("bcdefghi"):
        text += f"{word}: &{word} [{','.join(['*' + 'abcdefgh'[k]] * 9)}]\n"
    with pytest.raises(StreamError, match="its aliases come to more than"):
        parse(text + "nodes: *i\n")
    (tmp_path / "long.yaml").write_bytes(b"#" * ((1 << 22) + 1))
    with pytest.raises(StreamError, match=r"long.yaml: longer than \d+ characters"):
        read(tmp_path / "long.yaml")


@pytest.mark.parametrize("name", ["x.xdfz", "x.csv.gz"])
def test_a_packed_file_may_not_unpack_to_more_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(_tables, "LARGEST", 1 << 20)
    with gzip.open(tmp_path / name, "wb") as f:
        f.write(b"1,2\n" * (1 << 19))
    with pytest.raises(StreamError, match="more than 1 MiB"):
        streams(str(tmp_path / name))


def test_an_array_is_no_larger_than_its_file(tmp_path: Path) -> None:
    whole, _ = files(tmp_path)["npz"]
    (tmp_path / "bomb.npz").write_bytes(whole[1])
    with pytest.raises(StreamError, match=r"'x' is damaged \(an array of 8000000000000 bytes in \d+\)"):
        streams(str(tmp_path / "bomb.npz"))
