import pytest
import yaml


@pytest.fixture
def asked(tiny, tiny_home, tmp_path):
    """A question over two rounds and two seeds of the tiny run, on the tiny data."""
    content = yaml.safe_load((tiny_home / "tiny.yml").read_text())
    content["train"]["steps"] = 4
    content["evaluate"] = {"predictions": False, "pictures": False, "baselines": ["copy"]}
    content["vary"] = {"model.rounds": [0, 1], "seed": [0, 1]}
    path = tmp_path / "rounds.yml"
    path.write_text(yaml.safe_dump({"question": "How many?", **content}, sort_keys=False))
    return path
