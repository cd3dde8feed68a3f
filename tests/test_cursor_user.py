"""The simulated person as a device: what it refuses, and the loop through real streams."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rheobase.devices._person import SEEN
from rheobase.devices.cursor_user import CursorUser
from rheobase.nodes.task import TASK, Task
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.fuse import Loop

pylsl = pytest.importorskip("pylsl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"step": 0.0015}, r"step: 0.0015 s is not a whole number of samples at 1000.0 Hz"),
        ({"neurons": 8, "changes": [{"at": 1, "offset": 5, "channels": [8]}]}, r"changes\[0\]: channels: 8 is not one"),
        ({"changes": [{"at": 1, "rotat": 5}]}, r"changes\[0\]: unknown key 'rotat'; did you mean 'rotate'\?"),
        ({"changes": 3}, r"changes: expected"),
        ({"untuned": 2}, r"untuned: expected"),
        ({"mode": "observe"}, r"unknown key 'mode'"),
    ],
)
def test_wrong_parameters_are_refused_before_a_stream_opens(words: dict[str, Any], message: str) -> None:
    with pytest.raises(StreamError, match=message):
        CursorUser.make(**words).check()


# --- through real streams

PERSON = """
import sys
from pathlib import Path
from rheobase.devices.cursor_user import CursorUser
user = CursorUser(neurons=8, seed=2, array=sys.argv[2], task=sys.argv[3])
user.folder = Path(sys.argv[1])
print(user.start().rate, flush=True)
sys.stdin.readline()
for block in user.blocks():
    print(*block.data[0], flush=True)
    if block.seq >= 5000 or (user.folder / "enough").exists():
        break
user.stop()
"""


def named() -> tuple[str, str]:
    here = uuid.uuid4().hex[:8]
    return f"Array{here}", f"Task{here}"


def outlet(name: str, channels: tuple[str, ...], form: int = pylsl.cf_double64) -> Any:
    info = pylsl.StreamInfo(name, "Task", len(channels), 50.0, form, f"test-{name}")
    info.set_channel_labels(list(channels))
    return pylsl.StreamOutlet(info)


@pytest.mark.slow
def test_the_loop_closes_through_lsl(tmp_path: Path) -> None:
    """A person in another process; here a task whose decoder reads the person's mind. Targets are acquired."""
    array, shown = named()
    command = [sys.executable, "-c", PERSON, str(tmp_path), array, shown]
    person = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert person.stdin is not None and person.stdout is not None
        assert float(person.stdout.readline()) == 200.0
        found = pylsl.resolve_byprop("name", array, timeout=20)
        spikes = pylsl.StreamInlet(found[0], as_numpy=True)
        spikes.open_stream(timeout=10)
        out = outlet(shown, TASK)
        loop = Loop([task := Task(task="radial8")], [-1], [0])
        loop.start(Spec(rate=50, channels=("vx", "vy")))
        person.stdin.write("go\n")
        person.stdin.flush()
        counts, times, most = [], [], 0.0
        until, k = now() + 25, 0
        begin = now()
        while task.health["acquired"] < 2 and now() < until:
            wanted = np.array(person.stdout.readline().split(), float)  # one each 5 ms: it sets the pace
            most = max(most, float(np.hypot(*wanted)))
            if (k := k + 1) % 4 == 0:
                t = begin + k * 0.005
                [(_, block)] = loop.process(Block(wanted[None], np.array([t])))
                out.push_sample(block.data[0], now())
            x, stamps = spikes.pull_chunk(max_samples=4096)
            counts.append(x.copy())
            times.append(stamps.copy())
        (tmp_path / "enough").touch()
        person.stdout.read()
        assert person.wait(10) == 0
    finally:
        person.kill()
        person.wait()
    assert task.health["acquired"] == 2
    assert most > 0.1
    x, t = np.concatenate(counts), np.concatenate(times)
    np.testing.assert_allclose(np.diff(t), 1e-3, atol=1e-6)  # no sample lost, and its own time on each
    assert (x >= 0).all() and x.sum() > 0 and (x == x.round()).all()
    said = json.loads((tmp_path / "user.json").read_text())
    assert said["seen_age_s"]["n"] >= k // 8
    assert 0 < said["seen_age_s"]["p50"] <= said["seen_age_s"]["p99"]
    assert said["seconds"] >= k * 0.005


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "form", "message"),
    [
        (tuple(c for c in TASK if c != "target_y"), pylsl.cf_double64, "has no channel 'target_y'"),
        (("cursor", *SEEN[1:]), pylsl.cf_double64, "has no channel 'cursor_x'; did you mean"),
        (SEEN, pylsl.cf_string, "is text; it must be that of a task node"),
    ],
)
def test_a_stream_that_is_no_task_is_refused(channels: tuple[str, ...], form: int, message: str) -> None:
    array, shown = named()
    out = outlet(shown, channels, form)
    user = CursorUser(array=array, task=shown, neurons=2)
    user.start()
    until = now() + 20
    with pytest.raises(StreamError, match=message):
        for _ in user.blocks():
            assert now() < until
    user.stop()
    del out


@pytest.mark.slow
def test_channels_are_found_by_name_and_a_stream_that_falls_silent_lets_it_rest() -> None:
    array, shown = named()
    order = tuple(reversed(TASK))
    out = outlet(shown, order)
    row = dict.fromkeys(order, 0.0) | {"target_x": 0.1, "cursor_y": -0.1}
    user = CursorUser(array=array, task=shown, neurons=2, noise=0.0, delay=0.0)
    user.start()
    begin, quiet, aims = now(), 0.0, []
    for block in user.blocks():
        wx, wy = block.data[0]
        if not quiet and wx > 0.1:
            assert wx == pytest.approx(wy)  # right and up
            quiet = now()
        if not quiet:
            out.push_sample([row[c] for c in order], now())
        elif now() > quiet + 1.0:
            aims.append((wx, wy))
        if len(aims) == 5:
            break
        assert now() < begin + 20
    assert aims == [(0.0, 0.0)] * 5
    user.stop()


@pytest.mark.slow
def test_start_forgets_and_stop_says_how_it_went(tmp_path: Path) -> None:
    array, shown = named()
    user = CursorUser(array=array, task=shown, neurons=2, changes=[{"at": 0.1, "gain": 2}])
    user.folder = tmp_path
    assert user.health == {}
    counts = []
    for _ in range(2):
        user.start()
        pulled = pylsl.StreamInlet(pylsl.resolve_byprop("name", array, timeout=20)[0], as_numpy=True)
        pulled.open_stream(timeout=10)
        for _, block in zip(range(50), user.blocks(), strict=False):
            assert block.data.tolist() == [[0.0, 0.0]]  # nothing to see
        time.sleep(0.2)
        counts.append(pulled.pull_chunk(max_samples=1000)[0].copy())
        assert len(counts[-1]) == 250
    np.testing.assert_array_equal(*counts)
    assert user.health["changes"] == 1
    user.stop()
    said = json.loads((tmp_path / "user.json").read_text())
    assert (said["seconds"], said["changes"], said["seen_age_s"]["n"]) == (0.25, 1, 0)
