"""Cards that are proposed can be used as they are."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK
from PIL import Image
from series import write_series
from trials import complaint

from catnet.cli import main
from catnet.data.card import load_card
from catnet.data.folds import shortage
from catnet.data.layouts import find_layout
from catnet.data.propose import Proposal
from catnet.data.store import open_cases
from catnet.data.volume import read_volume
from catnet.errors import UserError


@pytest.fixture
def proposed(tmp_path, monkeypatch, capsys):
    """The card that `catnet cards new` writes for a folder, after its cases were prepared by it."""
    monkeypatch.setenv("CATNET_CARDS", str(tmp_path / "cards"))

    def propose(folder, *options):
        main(["cards", "new", str(folder), "--name", "mine", *options])
        assert "next: catnet prepare" in capsys.readouterr().out
        main(["prepare", "mine", "--raw", str(folder)])
        return load_card("mine"), (tmp_path / "cards" / "mine.yml").read_text(encoding="utf-8")

    return propose


@pytest.fixture
def lay(tmp_path, write_scan, image, label):
    """Five cases where a test wants them; returns the folder."""

    def write(image_pattern, label_pattern, *, cases=("001", "002", "003", "004", "010")):
        for case in cases:
            write_scan(tmp_path / "raw" / image_pattern.format(case), image)
            write_scan(tmp_path / "raw" / label_pattern.format(case), label)
        return tmp_path / "raw"

    return write


def describe(folder, **content):
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def test_nnunet_v2(proposed, lay):
    folder = lay("imagesTr/ab_{}_0000.nii.gz", "labelsTr/ab_{}.nii.gz")
    labels = {"background": 0, "Leber": 1, "spleen": 4, "both": [1, 4]}
    describe(folder, channel_names={"0": "CT"}, labels=labels, file_ending=".nii.gz")
    (folder / "imagesTr" / "ab_001_0001.nii.gz").write_bytes(b"another channel")
    card, text = proposed(folder)
    assert card.image == "imagesTr/{case}_0000.nii.gz"
    assert card.organs == {"Leber": 1, "spleen": 4}
    assert (card.modality, card.clip.window) == ("CT", (-125, 275))
    assert len(open_cases(card)) == 5
    assert "Leber: 1  # in 5 cases, 2000 voxels" in text
    assert "nnU-Net v2, 5 cases" in text


def test_the_decathlon(proposed, lay):
    folder = lay("imagesTr/liver_{}.nii.gz", "labelsTr/liver_{}.nii.gz")
    (folder / "imagesTr" / "._liver_001.nii.gz").write_bytes(b"a Mac's")
    describe(
        folder,
        modality={"0": "MRI"},
        labels={"0": "background", "1": "liver", "4": "cancer"},
        description="Liver: and\ncancer",
        licence="CC-BY-SA 4.0",
        reference="Somewhere #1",
    )
    card, _ = proposed(folder)
    assert (card.title, card.license) == ("Liver: and cancer", "CC-BY-SA 4.0")
    assert card.source == card.citation == "Somewhere #1"
    assert card.organs == {"liver": 1, "cancer": 4}
    assert (card.modality, card.clip.percentiles) == ("MR", (0, 99.5))
    assert [case.name for case in open_cases(card)][-1] == "liver_010"


def test_totalsegmentator(proposed, tmp_path, write_scan, image, label):
    for case in ("s0001", "s0002"):
        folder = tmp_path / "raw" / case
        write_scan(folder / "ct.nii.gz", image)
        write_scan(folder / "segmentations" / "liver.nii.gz", (label == 1).astype(np.uint8))
        write_scan(folder / "segmentations" / "spleen.nii.gz", (label == 4).astype(np.uint8))
    card, text = proposed(tmp_path / "raw")
    assert card.organs == {"liver": 1, "spleen": 2}
    assert "spleen: 2  # in 2 cases, 64 voxels" in text
    case = open_cases(card)[1]
    assert case.meta.pixels["spleen"] == (0, 0, 16, 16, 0, 0) or sum(case.meta.pixels["spleen"])
    assert card.folds == ((0, 1), (1, 0))


PAIRS = [
    ("img/img{}.nii.gz", "label/label{}.nii.gz"),
    ("image_{}.nii.gz", "label_{}.nii.gz"),
    ("patient{}_C0.nii.gz", "patient{}_C0_manual.nii.gz"),
    ("{}/t2.nii.gz", "{}/t2_seg.nii.gz"),
    ("scans ä/{}.nii.gz", "scans ä/{} mask.nii.gz"),
]


@pytest.mark.parametrize(("image_pattern", "label_pattern"), PAIRS)
def test_pairs_are_found_by_name(proposed, lay, image_pattern, label_pattern):
    folder = lay(image_pattern, label_pattern)
    (folder / "readme.txt").write_text("words")
    card, text = proposed(folder)
    assert len(open_cases(card)) == 5
    assert card.organs == {"label 1": 1, "label 4": 4}
    assert "please give them names" in text
    assert "guessed from the intensities" in text
    assert "stored as LAS (5)" in text
    assert card.spacing == (2.0, 2.0, 4.0)
    assert card.folds == 2


def test_a_number_that_few_cases_have_is_found(proposed, lay, write_scan, label):
    folder = lay("image_{}.nii.gz", "label_{}.nii.gz")
    rare = label.copy()
    rare[0, 0, 0] = 9
    write_scan(folder / "label_003.nii.gz", rare)
    card, text = proposed(folder, "--cases", "1")
    assert card.organs["label 9"] == 9
    assert "# of 1 of 5:" in text


def test_chaos_as_it_is_shipped(proposed, tmp_path):
    stored = np.random.default_rng(0).integers(0, 900, (5, 32, 40)).astype(np.uint16)
    for case in ("1", "13", "2"):
        folder = tmp_path / "raw" / "MR" / case / "T2SPIR"
        write_series(folder / "DICOM_anon", stored, Modality="MR")
        (folder / "Ground").mkdir()
        for number, path in enumerate(read_volume(folder / "DICOM_anon").files):
            grey = np.zeros((32, 40), np.uint8)
            grey[5:20, 5 : 10 + number] = 63
            Image.fromarray(grey).save(folder / "Ground" / f"{path.name}.png")
    card, text = proposed(tmp_path / "raw")
    assert card.image == "MR/{case}/T2SPIR/DICOM_anon"
    assert card.label == "MR/{case}/T2SPIR/Ground"
    assert card.organs == {"label 63": 63}
    assert "guessed" not in text
    assert [case.name for case in open_cases(card)] == ["1", "2", "13"]


def test_nrrd_and_mha(proposed, tmp_path, image, label):
    for case in "ab":
        for name, voxels in ((f"{case}.mha", image), (f"{case}_seg.nrrd", label)):
            (tmp_path / "raw").mkdir(exist_ok=True)
            volume = SimpleITK.GetImageFromArray(voxels.transpose(2, 1, 0))
            SimpleITK.WriteImage(volume, str(tmp_path / "raw" / name))
    card, text = proposed(tmp_path / "raw")
    assert (card.image, card.label) == ("{case}.mha", "{case}_seg.nrrd")
    assert "stored as LPS (2)" in text


@pytest.mark.parametrize(
    ("cases", "folds"),
    [
        (("1", "2", "3"), ((0, 1), (1, 2), (2, 0))),
        (("1", "2"), ((0, 1), (1, 0))),
        (("1",), ((0, 1), (1, 0))),
    ],
)
def test_every_case_of_few_is_a_query_once(proposed, lay, cases, folds):
    card, text = proposed(lay("image_{}.nii.gz", "label_{}.nii.gz", cases=cases))
    assert card.folds == folds
    assert ("a question needs two cases" in text) == (len(cases) == 1)
    assert bool(shortage(card, len(cases))) == (len(cases) == 1)


def test_a_spacing_just_above_is_that_spacing(proposed, tmp_path, write_scan, image, label):
    affine = np.diag([-1.2500001, 1.2500001, 4.0, 1.0])
    for case in "ab":
        write_scan(tmp_path / "raw" / f"{case}.nii.gz", image, affine)
        write_scan(tmp_path / "raw" / f"{case}_seg.nii.gz", label, affine)
    assert proposed(tmp_path / "raw")[0].spacing == (1.25, 1.25, 4.0)


def test_a_bad_case_is_told_and_left_out(tmp_path, lay, capsys):
    folder = lay("image_{}.nii.gz", "label_{}.nii.gz")
    (folder / "image_002.nii.gz").write_bytes(b"text")
    main(["cards", "new", str(folder), "-o", str(tmp_path / "mine.yml")])
    assert "# could not be read: " in (tmp_path / "mine.yml").read_text()
    for path in folder.glob("image*"):
        path.write_bytes(b"text")
    words = ["cards", "new", str(folder), "-o", str(tmp_path / "other.yml")]
    assert "not a readable NIfTI file" in complaint(words, capsys)
    assert not (tmp_path / "other.yml").exists()
    words[-1] = str(tmp_path / "mine.yml")
    assert "is there already" in complaint(words, capsys)
    assert "small letters" in complaint(["cards", "new", str(folder), "--name", "A B"], capsys)


def test_what_does_not_pair_up_is_said(tmp_path, lay):
    folder = lay("image_{}.nii.gz", "label_{}.nii.gz")
    for path in folder.glob("label*"):
        path.unlink()
    with pytest.raises(UserError, match="5 images and 0 labels that do not pair up by name"):
        find_layout(folder)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="no such folder"):
        find_layout(folder)


@pytest.mark.parametrize("content", ["[]", '{"labels": 3}', "no json", '{"labels": {"a": "b"}}'])
def test_a_description_that_says_nothing(lay, content):
    folder = lay("imagesTr/{}.nii.gz", "labelsTr/{}.nii.gz")
    (folder / "dataset.json").write_text(content)
    with pytest.raises(UserError, match=r"dataset\.json: "):
        find_layout(folder)


LABELS = {
    "mean": ({"mean": 1}, "mean is the column of the tables"),
    "half": ({"a": 1.5}, "label 'a' is 1.5, which is no whole number"),
    "true": ({"a": True}, "label 'a' is True"),
    "below 0": ({"a": -1}, "label 'a' is -1"),
    "large": ({"a": 70000}, "label 'a' is 70000"),
    "huge": ({"a": 10**400}, "no whole number from 0 to 65535"),
    "twice": ({"a": 1, "b": 1}, "labels 'a' and 'b' are both 1"),
    "no word": ({"a\nlicense: CC0": 1}, "unreadable letters"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_are_none_are_said(lay, name):
    folder = lay("imagesTr/ab_{}_0000.nii.gz", "labelsTr/ab_{}.nii.gz", cases=("1", "2"))
    labels, words = LABELS[name]
    describe(folder, channel_names={"0": "CT"}, labels=labels, file_ending=".nii.gz")
    with pytest.raises(UserError) as caught:
        Proposal(folder, name="mine")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["{case}.nii.gz", "/../../x", 5])
def test_an_ending_that_is_none_is_said(lay, ending):
    folder = lay("imagesTr/ab_{}_0000.nii.gz", "labelsTr/ab_{}.nii.gz", cases=("1", "2"))
    describe(folder, channel_names={"0": "CT"}, labels={"a": 1}, file_ending=ending)
    with pytest.raises(UserError, match=r"file_ending .* is none"):
        Proposal(folder, name="mine")


@pytest.mark.parametrize("name", ["x{{case}}{}", "{{organ}}{}", "a\n{}", "\udcff{}"])
def test_names_that_a_card_cannot_hold_are_said(lay, name):
    folder = lay(f"{name}.nii.gz", f"{name}_label.nii.gz", cases=("1", "2"))
    with pytest.raises(UserError, match="rename it"):
        Proposal(folder, name="mine")


def test_a_folder_s_name_says_nothing_to_the_card(proposed, lay, tmp_path):
    folder = lay("a{}.nii.gz", "a{}_label.nii.gz")
    odd = folder.rename(tmp_path / "x: y # 'q'\nname: evil")
    card, _ = proposed(odd)
    assert card.name == "mine"
    assert card.title == "x: y # 'q'\nname: evil"


def test_a_label_on_another_grid_is_said_in_the_card(lay, write_scan, label):
    folder = lay("a{}.nii.gz", "a{}_label.nii.gz", cases=("1", "2"))
    write_scan(folder / "a1_label.nii.gz", label, np.diag([-2.0, 2.0, 5.0, 1.0]))
    draft = Proposal(folder, name="mine")
    assert len(list(draft.look_at(9))) == 2
    assert "# please check: " in (text := draft.write())
    assert "mm away from those of" in text
