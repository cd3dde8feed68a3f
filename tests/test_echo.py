"""`rheo echo`, on a real outlet."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest

from rheobase.stream.cli import main

pylsl = pytest.importorskip("pylsl")


@pytest.fixture
def outlet() -> Iterator[str]:
    """A stream of two channels at 100 Hz, k and -k: its name."""
    name = f"echo-{uuid.uuid4().hex}"
    out = pylsl.StreamOutlet(pylsl.StreamInfo(name, "test", 2, 100, "double64", name))
    done = threading.Event()

    def push() -> None:
        k = 0
        while not done.wait(0.01):
            out.push_sample([k, -k])
            k += 1

    thread = threading.Thread(target=push)
    thread.start()
    yield name
    done.set()
    thread.join()


def test_samples_are_printed_as_they_come(outlet: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["echo", f"source_id={outlet}", "--most", "20"]) == 0
    told = capsys.readouterr()
    head, *rows = [line.split("\t") for line in told.out.splitlines()]
    assert head[0] == "time" and len(head) == 3
    assert len(rows) == 20
    first = int(rows[0][1])
    assert [[int(a), int(b)] for _, a, b in rows] == [[first + k, -first - k] for k in range(20)], "each once, in order"
    times = [float(t) for t, _, _ in rows]
    assert times == sorted(times)
    assert "20 samples" in told.err and "its outlet says 100 Hz" in told.err


def test_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["echo", "nmae=x"]) == 1
    assert "unknown property 'nmae'; did you mean 'name'" in capsys.readouterr().err
    assert main(["echo", "x", "--for", "-1"]) == 1
    assert "--for -1: write a number of seconds above 0" in capsys.readouterr().err
    assert main(["echo", "x", "--most", "0"]) == 1
    assert "--most 0: write a number of samples above 0" in capsys.readouterr().err
