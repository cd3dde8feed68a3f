"""`rheo doctor`: a line for each thing that a live run needs, and an exit code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rheobase.stream.cli import main
from rheobase.tools import doctor
from rheobase.tools.doctor import BAD, OK, WARN, Found


def test_an_outlet_of_this_machine_is_found() -> None:
    pytest.importorskip("pylsl")
    assert doctor.liblsl().how == OK
    assert doctor.one_clock().how == OK
    found = doctor.lsl_stream()
    assert found.how == OK, found
    assert "sample came" in found.seen


def test_what_can_be_said_of_any_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "WAITS", 20)
    monkeypatch.setattr(doctor, "BYTES", 1 << 20)
    assert "us late (median)" in doctor.timer().seen
    assert doctor.real_time().how in (OK, WARN)
    assert doctor.shared_memory().how != BAD
    assert "GB free" in doctor.disk().seen
    assert not list(tmp_path.iterdir()), "nothing is left"
    monkeypatch.setenv("RHEOBASE_CACHE", str(tmp_path / "kept"))
    assert str(tmp_path / "kept") in doctor.loops().seen


def test_what_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("RHEOBASE_CACHE", str(tmp_path / "file"))
    assert doctor.loops().how == WARN
    monkeypatch.setenv("RHEOBASE_DATA", str(tmp_path / "gone"))
    assert "is no folder" in doctor.data().seen
    monkeypatch.setattr(doctor, "LEAST", 1e30)
    monkeypatch.setattr(doctor, "BYTES", 1 << 20)
    assert doctor.disk().how == BAD
    if os.getuid():  # root may write anywhere
        tmp_path.chmod(0o500)
        assert doctor.disk().how == BAD


@pytest.mark.parametrize("how, code", [(OK, 0), (WARN, 0), (BAD, 1)])
def test_the_exit_code(
    how: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Found:
        raise ValueError("[bold]odd[/]")

    monkeypatch.setattr(doctor, "CHECKS", {"one": lambda: Found(how, "seen [it]", "do [that]")})
    assert main(["doctor"]) == code
    out = capsys.readouterr().out
    assert how in out and "seen [it]" in out and "do [that]" in out
    monkeypatch.setattr(doctor, "CHECKS", {"one": fails})
    assert main(["doctor"]) == 1
    assert "[bold]odd[/]" in capsys.readouterr().out
