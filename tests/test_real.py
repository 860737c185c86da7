"""Real scans from raw files to rows, on a grid that is small enough for every day."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from catnet.cli import main
from catnet.data.card import load_card
from catnet.data.store import open_cases

CASES = (1, 2, 3, 5)
CHANGES = {"name": "chaos_small", "spacing": [2.5, 2.5, 7.7], "size": [128, 128]}
SETTINGS = (
    "model.encoder=tu-resnet18",
    "model.output_stride=16",
    "model.dim=32",
    "model.rounds=1",
    "train.steps=3",
    "data.min_pixels=50",
    "machine.accelerator=cpu",
    "machine.log_every=1",
)


@pytest.fixture
def raw(chaos, tmp_path, monkeypatch):
    """A card of four cases in two folds, and the raw files."""
    card = yaml.safe_load((chaos_card()).read_text(encoding="utf-8"))
    card |= CHANGES | {"folds": [[0, 1], [2, 3]], "supervoxels": {"min_size": 1250}}
    (tmp_path / "chaos_small.yml").write_text(yaml.safe_dump(card), encoding="utf-8")
    monkeypatch.setenv("CATNET_CARDS", str(tmp_path))
    folder = tmp_path / "raw"
    folder.mkdir()
    for case in CASES:
        for kind in ("image", "label"):
            name = f"{kind}_{case}.nii.gz"
            (folder / name).symlink_to(chaos / name)
    return folder


def chaos_card():
    from catnet.paths import cards_home

    return cards_home() / "chaos_t2.yml"


def test_real_scans_go_all_the_way(raw, tmp_path, capsys):
    main(["prepare", "chaos_small", "--raw", str(raw)])
    main(["supervoxels", "chaos_small", "--purity"])
    run_file = tmp_path / "real.yml"
    run_file.write_text("data: {card: chaos_small, fold: 0}\n")
    main(["train", str(run_file), *SETTINGS])
    out = capsys.readouterr().out
    path = out.strip().rpartition("trained: ")[2]
    assert "4 cases with supervoxels, 4 of them cut now" in out
    main(["evaluate", path, "machine.accelerator=cpu"])
    out = capsys.readouterr().out
    rows = pd.read_csv(next((tmp_path / "runs-home").rglob("rows.csv")))
    assert np.isfinite(rows["value"]).all()
    assert len(rows) == 3 * 2 * 4 * 4  # models, protocols, organs, metrics; one query
    assert set(rows["query"]) == {1}
    assert set(rows["support"]) == {2}
    copied = rows.query("model == 'copy' and protocol == 'EP1' and metric == 'dice'")
    assert 20 < copied["value"].mean() < 80
    for name in ("liver", "right kidney", "left kidney", "spleen", "copy", "untrained", "catnet"):
        assert name in out

    raw_label = nib.load(raw / "label_1.nii.gz")
    for prediction in map(nib.load, (tmp_path / "runs-home").rglob("1_by_2.nii.gz")):
        assert prediction.shape == raw_label.shape
        np.testing.assert_array_equal(prediction.affine, raw_label.affine)
        assert set(np.unique(prediction.dataobj)) <= {0, 1, 2, 3, 4}
    cases = open_cases(load_card("chaos_small"))
    assert {case.image.shape[1:] for case in cases} == {(128, 128)}
    for case in cases:
        assert case.meta.spacing == pytest.approx((2.5, 2.5, 7.7))
