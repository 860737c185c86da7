import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from safetensors.torch import load_file
from trials import complaint, end_of

from catnet import CATNet, load_network
from catnet.cli import main
from catnet.export.card import evaluation_text
from catnet.export.folder import portable
from catnet.export.numbers import Told, dice_table, finished
from catnet.report.statistics import describe
from catnet.runs import open_run_folder

QUICK = ("evaluate.pictures=no", "evaluate.baselines=[copy]", "machine.accelerator=cpu")


@pytest.fixture
def exported(trained, tmp_path):
    """The folder of an export of a run that was not evaluated."""
    main(["export", str(trained().path), str(tmp_path / "shared")])
    return tmp_path / "shared"


def test_the_folder_holds_the_network(exported, trained):
    wanted = load_file(trained().model / "model.safetensors")
    for network in (load_network(exported), CATNet.from_pretrained(exported)):
        assert not network.training
        state = network.state_dict()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    names = {path.relative_to(exported).as_posix() for path in exported.rglob("*")}
    assert names - {".lock"} == {
        *("model.json", "model.safetensors", "card.yml", "provenance.json", "MODEL_CARD.md"),
        *("configs", "configs/metadata.json", "configs/inference.json"),
    }


def test_where_it_came_from(exported, trained):
    known = json.loads((exported / "provenance.json").read_text(encoding="utf-8"))
    folder = trained()
    assert known["run"] == folder.path.name
    assert known["identity"] == folder.identity
    assert known["settings"]["train"]["steps"] == 2
    assert set(known["data"]) == {"1", "2", "3", "4", "5", "6"}
    card = yaml.safe_load((exported / "card.yml").read_text(encoding="utf-8"))
    assert card == json.loads(folder.card.model_dump_json())


def test_no_place_of_this_machine_is_told(trained, tmp_path):
    """Encoder weights that came from a file are known by its name."""
    folder = trained()
    path = folder.model / "model.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"encoder_weights": "/home/me/w.pth"}))
    network = portable(load_network(folder.model))
    network.save_pretrained(tmp_path / "out")
    assert network.settings.encoder_weights == "w.pth"
    assert "/home/me" not in (tmp_path / "out" / "model.json").read_text(encoding="utf-8")
    load_network(tmp_path / "out")


def test_a_card_without_an_evaluation_says_so(exported):
    card = (exported / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "**Not evaluated.**" in card
    assert "Not a medical device." in card
    assert "CC0-1.0" in card
    assert "Six small phantoms (MR)" in card
    assert "| protocol |" not in card
    (front,) = yaml.safe_load_all(card.split("---")[1])
    assert front["library_name"] == "catnet"


def test_the_card_tells_every_evaluation(trained, tmp_path):
    path = str(trained().path)
    main(["evaluate", path, *QUICK])
    main(["evaluate", path, *QUICK, "evaluate.support=each"])
    main(["export", path, str(tmp_path / "shared")])
    card = (tmp_path / "shared" / "MODEL_CARD.md").read_text(encoding="utf-8")
    evaluations = finished(open_run_folder(Path(path)))
    assert [told.settings.support for told in evaluations] == ["each", "extra"]
    for told in evaluations:
        for line in describe(told.rows.assign(variant=""), "dice").itertuples():
            start = f"| {line.protocol} | {line.model} | {line.organ} | {line.mean:.1f} | "
            assert start in card
    assert card.count("| EP2 | copy | mean |") == 2
    assert "Only 3 patients: a smoke test more than a result." in card
    rows = next((Path(path) / "evaluations").glob("each*/rows.csv"))
    rows.write_text(rows.read_text(encoding="utf-8") + "\n", encoding="utf-8")  # no longer whole
    assert len(finished(open_run_folder(Path(path)))) == 1


def test_an_interval_needs_three_patients(trained):
    def told(patients):
        lines = [
            {"model": "catnet", "protocol": "EP2", "fold": 0, "seed": 0, "support": "s"}
            | {"query": str(n), "organ": "liver", "metric": "dice", "value": 50.0 + 10 * n}
            for n in range(patients)
        ]
        return Told(trained().run.evaluate, pd.DataFrame(lines))

    assert "| 55.0 | none, too few | 2 |" in dice_table(told(2))
    (line,) = re.findall(r"liver \| 65.0 \| (\S+) to (\S+) \| 4", dice_table(told(4)))
    assert 50 <= float(line[0]) < 65 < float(line[1]) <= 80
    assert "Only 4 patients" in evaluation_text([told(4)], "run")
    assert "Only" not in evaluation_text([told(10)], "run")


def test_predictions_of_run_and_export_are_the_same(exported, trained, tiny_home, tmp_path):
    raw = tiny_home / "raw"
    found = []
    for name, model in (("run", trained().path), ("export", exported)):
        support = ["--support", raw / "image_1.nii.gz", raw / "label_1.nii.gz"]
        more = ["--query", raw / "image_2.nii.gz", "-o", tmp_path / name, "--device", "cpu"]
        main([str(word) for word in ["predict", "--model", model, *support, *more]])
        found.append(np.asarray(nib.load(tmp_path / name / "image_2_pred.nii.gz").dataobj))
    assert found[0].any()
    np.testing.assert_array_equal(*found)


def test_monai_runs_the_bundle(exported, tiny_home, tmp_path):
    raw = tiny_home / "raw"
    command = [sys.executable, "-m", "monai.bundle", "run"]
    command += ["--config_file", "configs/inference.json", "--device", "cpu"]
    command += [
        "--support_image",
        raw / "image_1.nii.gz",
        "--support_label",
        raw / "label_1.nii.gz",
    ]
    command += ["--query", raw / "image_2.nii.gz", "--output_dir", tmp_path / "by monai"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        command, cwd=exported, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = nib.load(tmp_path / "by monai" / "image_2_pred.nii.gz")
    more = ["--support", raw / "image_1.nii.gz", raw / "label_1.nii.gz", "--device", "cpu"]
    more += ["--query", raw / "image_2.nii.gz", "-o", tmp_path / "ours"]
    main([str(word) for word in ["predict", "--model", exported, *more]])
    ours = nib.load(tmp_path / "ours" / "image_2_pred.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(ours.dataobj))


def test_the_bundle_gives_monai_its_network_and_metadata(exported):
    parser = ConfigParser()
    parser.read_config(exported / "configs" / "inference.json")
    parser.read_meta(exported / "configs" / "metadata.json")
    parser["bundle_root"] = str(exported)
    network = parser.get_parsed_content("network_def")
    wanted = load_network(exported).state_dict()
    assert all(torch.equal(network.state_dict()[name], wanted[name]) for name in wanted)
    meta = parser["_meta_"]
    for key in ("version", "monai_version", "pytorch_version", "numpy_version", "task"):
        assert meta[key]
    assert meta["network_data_format"]["inputs"]["image"]["spatial_shape"] == [64, 64]
    assert "not a medical device" in meta["intended_use"]


def test_mistakes(trained, exported, places, tmp_path, capsys):
    run = trained().path
    said = complaint(["export", run, exported], capsys)
    assert said.endswith("is there already; --again writes it anew")
    (exported / "MODEL_CARD.md").write_text("old")
    assert end_of(["export", run, exported, "--again"], capsys)[0] == 0
    assert "Not a medical device" in (exported / "MODEL_CARD.md").read_text(encoding="utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    for more in ([], ["--again"]):
        said = complaint(["export", run, tmp_path / "mine", *more], capsys)
        assert "holds other files; name a new folder" in said
    assert "training has not ended" in complaint(
        ["export", places("{begun}"), tmp_path / "x"], capsys
    )
    assert "no folder that you may write to" in complaint(
        ["export", run, tmp_path / "mine" / "thesis.txt"], capsys
    )
    assert not (tmp_path / "x").exists()


def test_an_export_without_its_card_is_no_model(exported, tiny_home, tmp_path, capsys):
    shutil.copytree(exported, tmp_path / "copy ñ")
    (tmp_path / "copy ñ" / "card.yml").unlink()
    raw = tiny_home / "raw"
    support = ["--support", raw / "image_1.nii.gz", raw / "label_1.nii.gz"]
    command = ["predict", "--model", tmp_path / "copy ñ", *support]
    said = complaint([*command, "--query", raw / "image_2.nii.gz", "-o", tmp_path / "o"], capsys)
    assert "has no card.yml, which says how scans are prepared" in said


def test_weights_that_were_changed_are_refused(exported, tiny_home, tmp_path, capsys):
    path = exported / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    raw = tiny_home / "raw"
    words = ["predict", "--model", exported, "--support", raw / "image_1.nii.gz"]
    words += [raw / "label_1.nii.gz", "--query", raw / "image_2.nii.gz", "-o", tmp_path / "out"]
    sentence = complaint([str(word) for word in words], capsys)
    assert "model.safetensors: is not the file that provenance.json tells of" in sentence
