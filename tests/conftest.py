"""What all tests share: where recorded data are, and a Lab Streaming Layer that never leaves this machine."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `pytest -n 2 --dist loadgroup`: all that is live in one worker, the others file by file."""
    for item in items:
        word = item.path.stem.removeprefix("test_")
        item.add_marker(pytest.mark.xdist_group("live" if word in LIVE.split() else word))


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
