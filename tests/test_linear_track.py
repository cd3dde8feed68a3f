"""A rat on a linear track, from its spike times: what the config says, on held-out time."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rheobase.stream.graph import from_dict
from rheobase.tools.fit import evaluate

CONFIG = Path(__file__).parent.parent / "configs" / "linear_track.yaml"


@pytest.mark.slow
def test_the_dkf_knows_where_the_rat_is(data: Callable[[str], Path], tmp_path: Path) -> None:
    """Nearer than 27 px, which a memoryless Bayesian decoder errs, and than the one beside it in the config."""
    data("nelpy_ca1_linear_track/spikes.mat")
    told = yaml.safe_load(CONFIG.read_text())
    kept = ("units", "camera", "rates", "rat", "bayes", "bayes_4", "dkf")
    told["nodes"] = {k: v for k, v in told["nodes"].items() if k in kept}
    scores = evaluate(from_dict(told), tmp_path).to_dict()
    error = {k: s["median_error"][0] for k, s in scores.items()}
    assert error["dkf"] < error["bayes_4"] < error["bayes"] and error["dkf"] < 27, error
    assert scores["dkf"]["r2"][0] > scores["bayes_4"]["r2"][0]
