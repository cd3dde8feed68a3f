"""Live is replay: a run with real processes and its recorder, again through its own graph."""

from __future__ import annotations

import io
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import rich.console
import yaml

from rheobase.devices.record import Record
from rheobase.devices.replay import Replay
from rheobase.stream.block import Block, StreamError
from rheobase.stream.graph import parse
from rheobase.stream.run import run
from rheobase.tools.replay import DIFFERENT, onto, replay_file, replay_run

GRAPH = """
name: t
nodes:
  src: {type: "parts:Ramp", n: 1200, process: acquire}
  lp:  {type: lowpass, in: src, corner: 40}
  sq:  {type: "parts:Square", in: lp}
  b:   {type: bins, in: lp, width: 0.02}
  z:   {type: zscore, in: b, window: 5}
  both: {type: merge, in: [src, z]}
  rec: {type: record, in: [src, sq, z, both], process: record}
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "run"
    assert run(parse(GRAPH), folder).ok
    return folder


def replayed(folder: Path, speed: float = 0.0) -> tuple[int, str]:
    text = io.StringIO()
    code = replay_run(folder, speed, rich.console.Console(file=text, width=200))
    return code, text.getvalue()


@pytest.mark.parametrize("speed", [0.0, 4.0])
def test_all_that_was_computed_comes_out_again_to_the_byte(live: Path, speed: float) -> None:
    code, said = replayed(live, speed)
    assert code == 0
    assert "z: all 60 samples are byte-identical to the live ones" in said
    assert "both: all 1200 samples" in said
    assert "live is replay: all decoded samples are byte-identical to the live ones" in said


def test_another_parameter_is_another_run(live: Path, tmp_path: Path) -> None:
    shutil.copytree(live, tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["nodes"]["lp"]["corner"] = 40.000001
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    code, said = replayed(tmp_path / "run")
    assert code == DIFFERENT
    assert "sq: 1200 live, 1200 replayed" in said
    assert "the first difference: sample" in said
    assert "the replay is not the run" in said


def test_one_changed_bit_of_the_recording_is_found(live: Path, tmp_path: Path) -> None:
    shutil.copytree(live, tmp_path / "run")
    file = tmp_path / "run" / "recording.xdf"
    raw = bytearray(file.read_bytes())
    value = np.float32(600).tobytes() * 4
    at = bytes(raw).find(value)
    assert at > 0
    raw[at] ^= 1  # the lowest bit of one sample of the source
    file.write_bytes(bytes(raw))
    with pytest.raises(StreamError, match=r"damaged behind byte \d+ of \d+: its checksum is another"):
        replayed(tmp_path / "run")
    graph = parse('nodes: {src: {type: lsl, stream: {name: X}}, k: {type: "parts:Keep", in: src}}')
    with pytest.raises(StreamError, match="its checksum is another"):
        onto(graph, file, ["src"])


def test_a_recording_that_was_cut_short_is_compared_as_far_as_it_goes(live: Path, tmp_path: Path) -> None:
    shutil.copytree(live, tmp_path / "run")
    file = tmp_path / "run" / "recording.xdf"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * 0.7)])
    (tmp_path / "run" / "tables.json").unlink()
    code, said = replayed(tmp_path / "run")
    assert code == 0
    assert "byte-identical to the live ones, as far as they were recorded" in said
    shutil.copy(live / "tables.json", tmp_path / "run")
    with pytest.raises(StreamError, match="cut short at byte"):  # a run that ended well has a whole recording
        replayed(tmp_path / "run")


AGAIN = """
name: t
processes: {PROCESS: {restart: 1}}
nodes:
  src:  {type: "parts:Ramp", n: 4000, die: DIE, process: acquire}
  sq:   {type: "parts:Square", in: src, process: aside}
  lp:   {type: lowpass, in: src, corner: 40}
  stop: {type: "parts:Stop", in: lp, at: AT, attempts: 1}
  b:    {type: bins, in: stop, width: 0.02, process: behind}
  rec:  {type: record, in: [src, sq, stop, b], process: record}
"""


def change(folder: Path, old: str, new: str) -> None:
    """Another word in the config of a run."""
    file = folder / "config.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.slow
def test_a_restart_is_said_and_compared_up_to(tmp_path: Path) -> None:
    """What goes on from a checkpoint has forgotten what came after it: no replay can give that."""
    graph = parse(AGAIN.replace("PROCESS", "main").replace("DIE", "-1").replace("AT", "2000"))
    run(graph, tmp_path / "run")
    change(tmp_path / "run", "attempts: 1", "attempts: 0")  # a replay need not die of it again
    code, said = replayed(tmp_path / "run")
    assert code == 0, said
    assert re.search(r"^process 'main' was started again at sample 2000 of node 'stop' \([\d.]+ s\): stop, b: ", said)
    assert "sq: all 4000 samples are byte-identical to the live ones" in said
    [n, m] = (int(re.search(rf"^{k}: all (\d+) samples before that are", said, re.M)[1]) for k in ("stop", "b"))  # type: ignore[index]
    assert 1900 < n <= 2000 and 90 < m <= 100, "what was on its way when it died is lost"
    assert "live is replay up to where a process was started again" in said
    change(tmp_path / "run", "corner: 40", "corner: 41")
    assert replayed(tmp_path / "run")[0] == DIFFERENT, "before that it must still be the same"


@pytest.mark.slow
def test_a_recorder_that_was_started_again_is_compared_up_to_what_is_in_no_file(tmp_path: Path) -> None:
    text = AGAIN.replace("PROCESS", "record").replace("DIE", "-1").replace("AT", "99999")
    text = text.replace("in: [src, sq, stop, b]", "in: [src, sq, stop, dead]")
    text = text.replace(
        "  rec:", '  dead: {type: "parts:Stop", in: stop, at: 2000, attempts: 1, process: record}\n  rec:'
    )
    run(parse(text), tmp_path / "run")
    assert (tmp_path / "run" / "recording.1.xdf").exists()
    code, said = replayed(tmp_path / "run")
    assert code == 0, said
    assert "process 'record' was started again at sample" in said
    assert re.search(r"goes on in recording.1.xdf; in no file: \d+ samples of 'src', \d+ samples of 'sq'", said)
    assert re.search(r"^sq: all \d+ samples before that are byte-identical to the live ones", said, re.M)
    assert "live is replay: " not in said and "as far as it can be compared" in said


TWO = """
name: two
nodes:
  src: {type: "parts:Ramp", n: 300, process: main}
  sq:  {type: "parts:Square", in: src}
  lp:  {type: lowpass, in: src, corner: 5}
  raw: {type: record, in: [src, sq], file: raw.xdf}
  dec: {type: record, in: lp, file: decoded.xdf}
"""


def test_what_every_recorder_recorded_is_compared(tmp_path: Path) -> None:
    assert run(parse(TWO), tmp_path / "run").ok
    code, said = replayed(tmp_path / "run")
    assert code == 0 and "sq: all 300 samples" in said and "lp: all 300 samples" in said
    change(tmp_path / "run", "corner: 5", "corner: 6")
    code, said = replayed(tmp_path / "run")
    assert code == DIFFERENT and "sq: all 300 samples" in said and "lp: 300 live, 300 replayed" in said


@pytest.mark.parametrize("begin", [200, 230])
def test_a_recording_goes_on_in_the_file_of_a_recorder_that_was_started_again(tmp_path: Path, begin: int) -> None:
    """Sources of which nothing is lost: what was computed is compared on both sides of the hole, and that is said."""
    folder = tmp_path / "run"
    assert run(parse(TWO), folder).ok
    node = Replay(file=str(folder / "decoded.xdf"))
    spec, whole = node.start(), next(b for b in node.blocks() if b is not None)
    assert len(whole) == 300

    def write(attempt: int, part: Block) -> None:
        rec = Record(file="decoded.xdf")
        rec.name, rec.inputs, rec.folder, rec.attempt = "dec", ("lp",), folder, attempt
        rec.start(spec)
        rec.take(0, part)
        rec.stop()

    (folder / "decoded.xdf").unlink()
    write(0, whole.cut(0, 200))
    write(1, whole.cut(begin, 300).replace(segment=1))
    code, said = replayed(folder)
    assert code == 0, said
    assert "recorder 'dec' was started again, and goes on in decoded.1.xdf" in said
    if begin == 200:
        assert "every sample is in a file" in said and "live is replay: all decoded samples" in said
        return
    assert "lp: all 270 samples are byte-identical to the live ones; in no file: 30 samples of 'lp'" in said
    assert "570 of the 570 decoded samples in the recording" in said and "live is replay: " not in said
    (folder / "decoded.1.xdf").unlink()
    write(1, whole.cut(230, 300).replace(data=whole.data[230:] * (1 + 1e-15), segment=1))
    code, said = replayed(folder)
    assert code == DIFFERENT and "the first difference: sample 230 " in said


def test_what_cannot_be_replayed_is_said(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="not a run directory"):
        replayed(tmp_path)
    (tmp_path / "config.yaml").write_text('nodes: {src: {type: "parts:Ramp"}}')
    with pytest.raises(StreamError, match="no record node"):
        replayed(tmp_path)


def test_a_source_that_was_not_recorded_is_named(tmp_path: Path) -> None:
    text = GRAPH.replace("in: [src, sq, z, both], process", "in: [sq], process").replace("n: 1200", "n: 50")
    assert run(parse(text), tmp_path / "run").ok
    with pytest.raises(StreamError, match="source 'src' was not recorded, and sq need it"):
        replayed(tmp_path / "run")


def test_any_recording_goes_through_a_graph(live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = io.StringIO()
    graph = parse(
        "name: other\nnodes:\n  src: {type: lsl, stream: {name: X}}\n"
        '  sq: {type: "parts:Square", in: src}\n  k: {type: "parts:Keep", in: sq}'
    )
    console = rich.console.Console(file=text, width=200)
    assert replay_file(str(live / "recording.xdf"), graph, (), 0.0, console) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert np.array_equal(np.loadtxt(folder / "k.txt"), np.arange(1200.0) ** 2)


def test_a_recording_alone_is_read_through(live: Path) -> None:
    text = io.StringIO()
    assert replay_file(str(live / "recording.xdf"), None, (), 0.0, rich.console.Console(file=text, width=200)) == 0
    row = next(line for line in text.getvalue().splitlines() if " z " in line)
    assert [w.strip() for w in row.split("│")[1:-1]][:6] == ["z", "float64", "50", "4", "60", "1"]


def test_a_source_without_a_stream_is_named(live: Path) -> None:
    graph = parse('nodes: {eeg: {type: lsl, stream: {name: srcc}}, k: {type: "parts:Keep", in: eeg}}')
    with pytest.raises(StreamError, match="no stream for source 'eeg'; did you mean 'src'"):
        replay_file(str(live / "recording.xdf"), graph, (), 0.0, rich.console.Console(file=io.StringIO()))


def test_pace(live: Path) -> None:
    begin = time.monotonic()
    replayed(live, 2.0)
    assert time.monotonic() - begin > 0.55, "1.2 s at twice the speed"
