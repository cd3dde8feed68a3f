"""What all tests share: where recorded data are, and a Lab Streaming Layer that never leaves this machine."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

HERE = Path(__file__).parent
settings.register_profile("rheobase", deadline=None)  # the first example compiles
settings.load_profile("rheobase")
os.environ.setdefault("LSLAPICFG", str(HERE.parent / "configs" / "lsl_local.cfg"))
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


LIVE = """bench calibrate clock cursor_user demo engine faults keys link look lsl lsl_out outlet record replay_run
restart ring run screen seen swap view window zmq"""
"""Tests that open streams, sockets, processes or windows, which those of another worker could meet."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `pytest -n 2`: all that is live in one worker; the rest file by file, so that a loop is compiled once."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):  # not xdist's groups: with pytest 9.2 it no longer sees them
        def _split_scope(self, nodeid: str) -> str:
            word = Path(nodeid.split("::")[0]).stem.removeprefix("test_")
            if word == "contract":
                return nodeid.partition("[")[2].partition("-")[0]  # by node, for that file is the longest
            return "live" if word in LIVE.split() else word

    return Scheduler(config, log)


@pytest.fixture
def data() -> Callable[[str], Path]:
    """data("flint2012_run1/x.csv") -> its path; skips where it is missing."""

    def find(name: str) -> Path:
        path = Path(os.environ.get("RHEOBASE_DATA", "")) / name
        if "RHEOBASE_DATA" not in os.environ or not path.exists():
            pytest.skip(f"recorded data {name!r} not found: set RHEOBASE_DATA")
        return path

    return find


@pytest.fixture(autouse=True)
def windows_end() -> Iterator[None]:
    """With the test that opened them: left to Python's collector, they now and then took the process with them."""
    yield
    if view := sys.modules.get("rheobase.devices.view"):
        if app := view.QApplication.instance():
            view.settle(app)


@pytest.fixture
def golden() -> Path:
    """Folder of the golden numbers."""
    return HERE / "golden"
