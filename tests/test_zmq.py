"""Samples for and from programs outside, through a real socket and real runs."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import zmq
from parts import Keep, Ramp

from rheobase.devices.zmq_in import ZmqIn
from rheobase.devices.zmq_out import ZmqOut
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.engine import Engine
from rheobase.stream.graph import Graph
from rheobase.stream.link import unpack

SPEC = Spec(rate=1000, channels=("a", "b"), dtype="float32")


def test_one_graph_feeds_another(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/tap"
    keep = Keep()
    reader = Engine(Graph().add("tap", ZmqIn(address=address)).add("k", keep, "tap"))
    began = threading.Thread(target=reader.start)
    began.start()
    graph = Graph().add("src", Ramp(n=400, block=10))
    graph.add("out", ZmqOut(address=address), "src")
    writer = Engine(graph)
    writer.start()
    writing = threading.Thread(target=writer.run)
    writing.start()
    began.join(10)
    reader.run()
    writing.join(10)
    assert reader.specs["tap"] == writer.specs["src"]
    data = np.concatenate([b.data for _, b in keep.got])
    assert data.dtype == np.float32
    assert np.array_equal(data[:, 0], np.arange(400))
    assert reader.counts["tap"] == 400


def test_nobody_listening_holds_up_nothing_and_who_comes_late_hears_the_spec(tmp_path: Path) -> None:
    node = ZmqOut(address=f"ipc://{tmp_path}/tap", keep=5)
    node.start(SPEC)
    for k in range(50):
        node.take(0, Block(np.full((1, 2), k, np.float32), np.array([k / 1000]), k))
    reader = zmq.Context.instance().socket(zmq.PULL)
    reader.connect(node.address)
    node.said = -1e9  # a second has passed
    assert node.sender._socket.poll(5000, zmq.POLLOUT)
    frames = []
    for k in (50, 51):
        node.take(0, Block(np.full((1, 2), k, np.float32), np.array([k / 1000]), k))
        while reader.poll(300):
            frames.append(unpack(reader.recv()))
    assert SPEC in [f.spec for f in frames]
    samples = [f.block.seq for f in frames if f.block is not None]
    assert samples[-1] == 51
    assert len(samples) <= 6, "what nobody took was dropped, the oldest first"
    reader.close()
    node.stop()


def test_a_port_in_use_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StreamError, match=rf"cannot open tcp://127.0.0.1:{port}: the port is in use"):
            ZmqOut(address=f"tcp://127.0.0.1:{port}").start(SPEC)


@pytest.mark.parametrize("address", ["tcp://*:5557", "tcp://10.0.0.1:5557", "tcp://[2001:db8::1]:5557"])
@pytest.mark.parametrize(("kind", "peer"), [(ZmqIn, "server"), (ZmqOut, "peers")])
def test_an_address_beyond_this_machine_is_refused_before_anything_opens(kind: type, peer: str, address: str) -> None:
    with pytest.raises(StreamError, match=rf"address: .* leaves this machine, which needs keys and {peer}: `rheo keys"):
        kind(address=address).check()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1", "inproc://x", "5557", "tcp://127.0.0.1:0", "tcp://h:99999"])
@pytest.mark.parametrize("kind", [ZmqIn, ZmqOut])
def test_what_is_no_address_is_refused(kind: type, address: str) -> None:
    with pytest.raises(StreamError, match="address: "):
        kind(address=address).check()


def test_silence_is_an_error_with_the_address(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"nothing came on ipc://.*/tap within 0.2 s"):
        ZmqIn(address=f"ipc://{tmp_path}/tap", wait=0.2).start()


def test_a_damaged_frame_is_an_error_with_the_address(tmp_path: Path) -> None:
    node = ZmqOut(address=f"ipc://{tmp_path}/tap")
    node.start(SPEC)
    source = ZmqIn(address=node.address)
    node.said = -1e9
    begun = threading.Timer(0.2, lambda: node.take(0, Block(np.zeros((1, 2), np.float32), np.zeros(1))))
    begun.start()
    assert source.start() == SPEC
    begun.join()
    node.sender._socket.send(b"RHEO of no use" + bytes(40))
    with pytest.raises(StreamError, match=r"edge ipc://.*/tap: frame is not of this format"):
        list(source.blocks())
    source.stop()
    node.stop()


def test_two_inputs_need_two_addresses(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="takes one input, got 2"):
        ZmqOut(address=f"ipc://{tmp_path}/tap").start(SPEC, SPEC)
