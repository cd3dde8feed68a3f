"""Faults on purpose, to whole runs (`python -m rheobase.tools.faults` has them all, and longer ones)."""

from __future__ import annotations

from pathlib import Path

import pytest

from rheobase.tools import faults


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "read-only", "changed"])
def test_it_is_said_and_nothing_recorded_is_lost(name: str, tmp_path: Path) -> None:
    seen, wrong = faults.FAULTS[name](tmp_path)
    assert seen and not wrong
