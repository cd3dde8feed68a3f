"""How much of the past hippo_memory holds."""

import numpy as np
import pytest

from rheobase.tools.memory import BAND, main, recalled, signal


def test_the_signal_is_what_it_says() -> None:
    u, v = signal(0)
    power = np.abs(np.fft.rfft(u)) ** 2
    above = np.fft.rfftfreq(len(u)) > 2 * BAND
    assert power[above].sum() < 0.01 * power.sum()
    assert abs(u.std() - 1) < 1e-9
    assert abs((v - u).std() - 0.05) < 0.002


@pytest.mark.slow
def test_64_features_hold_200_samples() -> None:
    """The thresholds of the specification: LegS-PTD at most 0.045, S4D-LegS about 0.08."""
    u, v = signal(0)
    found = {basis: recalled(basis, u, v)[0] for basis in ("ptd", "legs", "dense_legs")}
    assert found["ptd"] <= 0.045
    assert 0.07 < found["legs"] < 0.09
    assert found["dense_legs"] <= found["ptd"]


def test_what_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "0"]) == 1
    assert main(["--band", "0.6"]) == 1
    assert capsys.readouterr().err.count("memory: seeds: at least 1; band: between 0 and 0.5") == 2
