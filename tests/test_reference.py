"""One short run whose numbers are kept: a change of the code that changes results is seen.

CATNET_RENEW=1 pytest tests/test_reference.py   writes them anew, where a change is meant

Processors differ in the last bit of a sum, and every step builds on the one before. The first ten
losses must agree to 1 part in 1000, far above what another order of the sums was seen to change
there; later ones to 1 in 50. Dice of the baselines must agree to half a point, and that of the
network to five: a mask that is cut at a threshold turns a last bit into a pixel, and the next step
goes on from there.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from trials import log_of, run

from catnet.evaluate.run import evaluate
from catnet.runs import write_json

PATH = Path(__file__).parent / "reference" / "tiny.json"
SETTINGS = (
    *("train.steps=50", "train.rate=0.001"),
    *("evaluate.pictures=no", "evaluate.predictions=no"),
)
STEPS = (*range(1, 11), 20, 30, 40, 50)
EARLY, LATE = 1e-3, 2e-2  # relative
BASELINE, TRAINED = 0.5, 5.0  # points of Dice


@pytest.fixture
def found(tiny):
    """Losses of some steps, and mean Dice by protocol, model and organ."""
    folder = run(tiny(*SETTINGS))
    losses = {str(line["step"]): line["loss"] for line in log_of(folder) if line["step"] in STEPS}
    rows = evaluate(folder, device=torch.device("cpu"), report=lambda *_: None).rows
    dice = rows[rows["metric"] == "dice"].groupby(["protocol", "model", "organ"])["value"].mean()
    named = {", ".join(key): round(float(value), 3) for key, value in dice.items()}
    return {"settings": list(SETTINGS), "loss": losses, "dice": named}


def test_the_numbers_are_those_that_were_kept(found):
    if os.environ.get("CATNET_RENEW"):
        write_json(PATH, found)
    kept = json.loads(PATH.read_text(encoding="utf-8"))
    assert found["settings"] == kept["settings"]
    assert list(found["loss"]) == list(kept["loss"]) == list(map(str, STEPS))
    for step, loss in kept["loss"].items():
        tolerance = EARLY if int(step) <= 10 else LATE
        assert found["loss"][step] == pytest.approx(loss, rel=tolerance), step
    assert found["dice"].keys() == kept["dice"].keys()
    for key, dice in kept["dice"].items():
        points = TRAINED if ", catnet, " in key else BASELINE
        assert found["dice"][key] == pytest.approx(dice, abs=points), key
