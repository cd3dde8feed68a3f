"""Edges between processes: policies, counts, damaged frames, and a reader that knows only the docstring."""

from __future__ import annotations

import json
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.link import Receiver, Sender, pack, pack_end, pack_spec, unpack

SPEC = Spec(rate=1000, channels=("a", "b"), unit="V", delay=0.25, dtype="float32")


def blocks(n: int, size: int = 1) -> list[Block]:
    return [
        Block(np.full((size, 2), k, np.float32), 5.0 + np.arange(k * size, (k + 1) * size), k * size) for k in range(n)
    ]


def drain(receiver: Receiver) -> list[Block]:
    got = []
    while not receiver.ended:
        block = receiver.receive(1.0)
        if block is not None:
            got.append(block)
    return got


def pair(folder: Path, policy: str, keep: int = 0) -> tuple[Sender, Receiver]:
    address = f"ipc://{folder}/e"
    receiver = Receiver(address, policy, keep)
    sender = Sender(address, SPEC, policy, keep)
    assert receiver.wait_spec(5) == SPEC
    return sender, receiver


def test_an_external_reader_written_from_the_docstring(tmp_path: Path) -> None:
    """Nothing of rheobase is used to read."""
    sender = Sender(f"ipc://{tmp_path}/e", SPEC, "drop_oldest", 100, stream=7, wait=0)
    socket = zmq.Context.instance().socket(zmq.PULL)
    socket.connect(f"ipc://{tmp_path}/e")
    sender.send(Block(np.array([[1, 2], [3, 4]], np.float32), np.array([0.5, 0.75]), seq=10, segment=3))
    closing = threading.Thread(target=sender.end)
    closing.start()
    messages = [socket.recv() for _ in range(3)]
    closing.join()
    socket.close()
    sender.close()
    heads = [struct.unpack_from("<4sBBBBIIIIQd", m) for m in messages]
    assert [h[:3] for h in heads] == [(b"RHEO", 1, 1), (b"RHEO", 1, 0), (b"RHEO", 1, 2)]
    said = json.loads(messages[0][40 : 40 + heads[0][6]])
    assert said == {"rate": 1000.0, "channels": ["a", "b"], "unit": "V", "delay": 0.25, "dtype": "float32"}
    _, _, _, dtype, flags, stream, n, c, segment, seq, first = heads[1]
    assert (dtype, flags, stream, n, c, segment, seq, first) == (1, 0, 7, 2, 2, 3, 10, 0.5)
    assert struct.unpack_from(f"<{n}d", messages[1], 40) == (0.5, 0.75)
    assert struct.unpack_from(f"<{n * c}f", messages[1], 40 + 8 * n) == (1, 2, 3, 4)
    assert heads[2][9] == 12


def test_block_loses_nothing_and_keeps_the_bits(tmp_path: Path) -> None:
    sender, receiver = pair(tmp_path, "block")
    sent = blocks(5000, 3)

    def run() -> None:
        for b in sent:
            sender.send(b)
        sender.end()

    thread = threading.Thread(target=run)
    thread.start()
    while not sender.waits and thread.is_alive():  # nobody reads until the high-water mark is met
        time.sleep(0.01)
    got = drain(receiver)
    thread.join()
    assert sender.waits > 0
    assert (receiver.received, receiver.dropped, receiver.gaps, sender.sent) == (15000, 0, 0, 15000)
    assert b"".join(b.data.tobytes() for b in got) == b"".join(b.data.tobytes() for b in sent)
    assert b"".join(b.times.tobytes() for b in got) == b"".join(b.times.tobytes() for b in sent)
    assert {b.segment for b in got} == {0}
    receiver.close()
    sender.close()


def test_latest_skips_to_the_newest_and_counts_what_it_skipped(tmp_path: Path) -> None:
    sender, receiver = pair(tmp_path, "latest")
    for b in blocks(500):
        sender.send(b)
    threading.Thread(target=sender.end).start()
    drain(receiver)
    assert receiver.received + receiver.dropped == 500
    assert receiver.dropped > 400
    receiver.close()


def test_drop_oldest_keeps_the_newest_and_opens_a_segment(tmp_path: Path) -> None:
    sender, receiver = pair(tmp_path, "drop_oldest", 10)
    n = 20000
    for b in blocks(n):  # the receiver sleeps
        sender.send(b)
    threading.Thread(target=sender.end).start()
    got = drain(receiver)
    assert receiver.received + receiver.dropped == n
    assert receiver.dropped > 0
    assert got[-1].seq == n - 1, "the newest arrives"
    jumps = [i for i in range(1, len(got)) if got[i].seq != got[i - 1].seq + 1]
    assert [got[i].segment - got[i - 1].segment for i in jumps] == [1] * len(jumps)
    receiver.close()


def test_a_sender_gives_up_when_its_reader_is_gone(tmp_path: Path) -> None:
    gone = threading.Event()
    address = f"ipc://{tmp_path}/e"
    receiver = Receiver(address)
    sender = Sender(address, SPEC, give_up=gone.is_set)
    receiver.wait_spec(5)
    receiver.close()
    gone.set()
    for b in blocks(5000, 8):
        sender.send(b)
    assert sender.lost > 0
    sender.close()


def test_a_port_in_use_is_said() -> None:
    one = Sender("tcp://127.0.0.1:*", SPEC, "drop_oldest", 1, wait=0)
    address = one._socket.getsockopt_string(zmq.LAST_ENDPOINT)
    with pytest.raises(StreamError, match=rf"cannot open {address}: the port is in use"):
        Sender(address, SPEC, "drop_oldest", 1, wait=0)
    one.close()


@given(st.lists(st.text(max_size=9), min_size=4, max_size=4), st.integers(0, 2**40))
def test_texts_there_and_back(words: list[str], seq: int) -> None:
    block = Block(np.array(words, object).reshape(2, 2), np.array([1.0, 2.0]), seq, 4)
    frame = unpack(pack(block, "str"), Spec(rate=0, channels=("x", "y"), dtype="str"))
    assert frame.block is not None
    clean = [w.encode(errors="replace").decode() for w in words]
    assert list(frame.block.data.ravel()) == clean
    assert (frame.block.seq, frame.block.segment) == (seq, 4)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"RHEO", "shorter than its header"),
        (b"NOPE" + bytes(60), "not of this format"),
        (pack(blocks(1)[0], "float32")[:-1], "does not hold 1 x 2 samples"),
        (pack(blocks(1)[0], "float64"), "2 channels of float64, its stream has 2 of float32"),
        (pack(Block(np.zeros((1, 3)), np.zeros(1)), "float32"), "3 channels of float32"),
        (pack_spec(SPEC)[:-4], "damaged spec"),
        (pack_end(0)[:5] + b"\x09" + pack_end(0)[6:], "unknown kind 9"),
    ],
)
def test_damaged_frames_are_told_apart(message: bytes, says: str) -> None:
    with pytest.raises(StreamError, match=says):
        unpack(message, SPEC)


@given(st.binary(max_size=300), st.integers(0, 99))
def test_no_bytes_do_more_than_raise(noise: bytes, at: int) -> None:
    whole = pack(Block(np.zeros((3, 2), np.float32), np.zeros(3)), "float32")
    text = pack(Block(np.array([["ab", "c"]], object), np.zeros(1)), "str")
    for message in (noise, whole[:at] + noise + whole[at + len(noise) :], text[:at] + noise):
        try:
            unpack(message)
        except StreamError as e:
            assert "frame" in str(e)


def test_a_sender_that_begins_anew_opens_a_segment(tmp_path: Path) -> None:
    receiver = Receiver(f"ipc://{tmp_path}/e")
    one = Sender(f"ipc://{tmp_path}/e", SPEC)
    receiver.wait_spec(5)
    one.send(blocks(2)[1])
    first = receiver.receive(1)
    one.send(blocks(1)[0])
    second = receiver.receive(1)
    assert first is not None
    assert second is not None
    assert (receiver.dropped, receiver.gaps) == (1, 2)
    assert second.segment == first.segment + 1
    one.close()
    receiver.close()


def test_names_of_channels_survive() -> None:
    spec = Spec(rate=0, channels=(*numbered("c", 3), "µ"), dtype="int16")
    assert unpack(pack_spec(spec)).spec == spec
