"""The demo as a newcomer starts it, only shorter; and the graph that it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pylsl")
pytest.importorskip("PySide6.QtWidgets")

from rheobase.nodes.task import ACQUIRED, TASK
from rheobase.stream.cli import find_graph
from rheobase.tools.trials import recorded


def test_its_graph_keeps_what_blocks_out_of_the_loop() -> None:
    graph = find_graph("cursor")
    places = graph.places
    assert {k: p.process for k, p in places.items() if p.process != "main"} == {
        "user": "user",
        "array": "acquire",
        "view": "view",
        "rec": "record",
    }
    assert {e.policy for p in places.values() for e in p.edges if p.process == "view"} == {"drop_oldest"}
    assert {e.policy for p in places.values() for e in p.edges if p.process != "view"} == {"block"}
    assert set(graph["intended"].channels) < set(TASK)  # type: ignore[attr-defined]
    assert graph["out"].stream == graph["user"].task  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    """Calibration, closed loop and replay; nothing lost, the replay the same to the byte, pictures and a page of it."""
    env = {k: v for k, v in os.environ.items() if k not in ("LSLAPICFG", "DISPLAY", "WAYLAND_DISPLAY")}
    words = ["--watch", "10", "--assist", "12", "--for", "8", "--folder", "run"]
    command = [sys.executable, "-m", "rheobase.tools.demo", *words]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "byte-identical" in done.stdout
    run = tmp_path / "run" / "cursor"
    tables = json.loads((run / "tables.json").read_text())
    assert tables["ok"]
    assert all(row["lost"] == 0 for row in tables["losses"] if row["policy"] == "block")
    user = json.loads((run / "user.json").read_text())
    assert user["seen_age_s"]["n"] > 100
    trials, task = recorded(run)
    assert task == "radial8"
    assert trials  # whether they are acquired in 8 s depends on how busy the machine is
    assert "path efficiency" in done.stdout or not any(t.outcome == ACQUIRED for t in trials)
    for name in ("cursor", "calibration/open", "calibration/assisted"):
        assert (tmp_path / "run" / name / "window.png").read_bytes()[:4] == b"\x89PNG"
    assert list(run.glob("*.html"))
