"""`catnet check`: every planted fault is found and named, and healthy cases give no finding."""

import re
import shutil
from io import BytesIO

import numpy as np
import pytest
import yaml
from einops import rearrange
from PIL import Image
from trials import complaint, end_of

from catnet.check.anomalies import find_anomalies, partners
from catnet.check.facts import examine
from catnet.check.sheet import Strip, draw_sheet, draw_strip
from catnet.data.card import load_card
from catnet.data.phantom import draw_phantom, write_nifti
from catnet.data.prepare import prepare
from catnet.data.store import open_cases

SIZE = (64, 64, 12)
LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = 1, 2, 3, 4


def write_case(raw, name, image, label, affine):
    for kind, voxels in (("image", image), ("label", label)):
        write_nifti(raw / f"{kind}_{name}.nii.gz", voxels=voxels, affine=affine)


def plant(tmp_path, monkeypatch, *, fault, modality="MR"):
    """Facts of three healthy cases and case 9, which is changed by `fault` before preparation."""
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data"))
    raw = tmp_path / "raw"
    for case in (1, 2, 3):
        phantom = draw_phantom(modality, seed=0, case=case, size=SIZE)
        write_case(raw, case, phantom.image, phantom.label, phantom.affine)
    phantom = draw_phantom(modality, seed=0, case=9, size=SIZE)
    write_case(raw, 9, *fault(phantom.image.copy(), phantom.label.copy(), phantom.affine.copy()))
    card = load_card(f"phantom_{modality.lower()}")
    list(prepare(card, raw))
    return card, [examine(card, case) for case in open_cases(card)]


def mirrored(image, label, affine):
    return image[::-1].copy(), label[::-1].copy(), affine


def swapped(image, label, affine):
    return image, np.array([0, 1, 3, 2, 4], dtype=np.uint8)[label], affine


def without_spleen(image, label, affine):
    label[label == SPLEEN] = 0
    return image, label, affine


def spleen_in_one_slice(image, label, affine):
    middle = np.flatnonzero((label == SPLEEN).any(axis=(0, 1)))[1]
    label[np.where((label == SPLEEN) & (np.arange(SIZE[2]) != middle))] = 0
    return image, label, affine


def thick(image, label, affine):
    return image, label, affine @ np.diag([1, 1, 2, 1])


def dim(image, label, affine):
    """Hounsfield units that were forgotten: everything lies above the card's window."""
    return (image + 2000).astype(np.int16), label, affine


def hardly_there(image, label, affine):
    image[:] = 0
    image[30:40, 30:40, 4:9] = 100
    return image, label, affine


def blank_slice(image, label, affine):
    image[..., 6] = image.min()
    return image, label, affine


def bright_organ(image, label, affine):
    image[label == LEFT_KIDNEY] = image.max()
    return image, label, affine


@pytest.mark.parametrize(
    ("fault", "modality", "kinds", "says"),
    [
        (mirrored, "MR", {"left-right"}, "liver lies .* to the patient's left of spleen"),
        (swapped, "MR", {"left-right"}, "right kidney lies .* left of left kidney"),
        (without_spleen, "MR", {"missing"}, "spleen is not in the label"),
        (spleen_in_one_slice, "MR", {"one slice"}, "spleen is labelled in one slice only"),
        (thick, "MR", {"spacing", "extent"}, "raw spacing along the card's third axis is"),
        (hardly_there, "MR", {"empty", "clipped"}, "almost empty, .* of its voxels"),
        (blank_slice, "MR", {"empty"}, "1 labelled slices have a constant image"),
        (bright_organ, "CT", {"clipped"}, "% of the left kidney are at the end"),
    ],
)
def test_a_planted_fault_is_found(fault, modality, kinds, says, tmp_path, monkeypatch):
    card, facts = plant(tmp_path, monkeypatch, fault=fault, modality=modality)
    found = find_anomalies(card, facts)
    assert {one.kind for one in found} == kinds
    assert {one.case for one in found} == {"9"}
    assert any(re.search(says, one.what) for one in found)
    assert all(one.remedy for one in found)


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_healthy_cases_give_no_finding(modality, tmp_path, monkeypatch):
    card, facts = plant(tmp_path, monkeypatch, fault=lambda *case: case, modality=modality)
    assert len(facts) == 4
    assert find_anomalies(card, facts) == []


def test_duplicates_are_found_by_file_and_by_content(tmp_path, monkeypatch):
    first = draw_phantom("MR", seed=0, case=1, size=SIZE)

    def again(image, label, affine):
        return first.image.astype(np.float64), label * 0 + first.label, first.affine

    card, facts = plant(tmp_path, monkeypatch, fault=again)
    one, nine = facts[0], facts[-1]
    assert one.hashes["raw image"] != nine.hashes["raw image"], "another file"
    assert one.hashes["raw label"] == nine.hashes["raw label"], "the very same file"
    said = {finding.what for finding in find_anomalies(card, facts)}
    assert said == {"has the same image as case 1", "has the same label as case 1"}


def test_two_cases_have_no_usual_size(tmp_path, monkeypatch):
    card, facts = plant(tmp_path, monkeypatch, fault=thick)
    assert find_anomalies(card, [facts[0], facts[-1]]) == []


def test_sides_are_those_of_the_names():
    organs = ("right kidney", "left kidney", "right ventricle", "left ventricle", "right lung")
    assert partners(dict.fromkeys(organs, 1)) == [("right kidney", "left kidney")]
    assert partners({"liver": 1, "spleen": 2}) == [("liver", "spleen")]
    elsewhere = ("Liver", "Spleen", "kidney_left", "kidney_right", "Left Lung", "Right-Lung")
    found = partners(dict.fromkeys((*elsewhere, "heart_atrium_left", "heart_atrium_right"), 1))
    assert found == [
        ("Liver", "Spleen"),
        ("kidney_right", "kidney_left"),
        ("Right-Lung", "Left Lung"),
    ]


def test_missing_organs_share_a_row(tmp_path, monkeypatch):
    def emptied(image, label, affine):
        return image, np.where(label > 1, 0, label).astype(np.uint8), affine

    card, facts = plant(tmp_path, monkeypatch, fault=emptied)
    (found,) = (one for one in find_anomalies(card, facts) if one.kind == "missing")
    assert found.what == "3 organs are not in the label: right kidney, left kidney, spleen"


def test_centers_are_those_of_the_raw_scan(tmp_path, monkeypatch):
    from nibabel.affines import apply_affine

    _, facts = plant(tmp_path, monkeypatch, fault=lambda *case: case)
    phantom = draw_phantom("MR", seed=0, case=2, size=SIZE)
    for organ, number in (("liver", LIVER), ("right kidney", RIGHT_KIDNEY)):
        voxels = np.argwhere(phantom.label == number).mean(axis=0)
        expected = apply_affine(phantom.affine, voxels)
        np.testing.assert_allclose(facts[1].centers[organ], expected, atol=2.0)


@pytest.mark.parametrize("orientation", ["LAS", "RPS"])
def test_the_liver_is_drawn_on_the_left_and_the_spine_below(orientation, tmp_path, monkeypatch):
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data"))
    phantom = draw_phantom("CT", seed=0, case=1, size=SIZE)
    write_case(tmp_path / "raw", 1, phantom.image, phantom.label, phantom.affine)
    card = load_card("phantom_ct").model_copy(update={"orientation": orientation})
    list(prepare(card, tmp_path / "raw"))
    (case,) = open_cases(card)
    strip = draw_strip(card, case).astype(int)
    pictures = rearrange(strip, "h (n w) c -> n h w c", n=6)
    colors = {"liver": (0xE6, 0x9F, 0), "spleen": (0, 0x9E, 0x73)}
    middle = {}
    for organ, color in colors.items():
        tint = np.array(color) - np.mean(color)
        tone = pictures - pictures.mean(axis=-1, keepdims=True)
        likeness = (tone @ tint) / (np.linalg.norm(tone, axis=-1) * np.linalg.norm(tint) + 1e-6)
        where = (likeness > 0.95) & (np.linalg.norm(tone, axis=-1) > 30)
        middle[organ] = np.argwhere(where)[:, 2].mean()
    assert middle["liver"] < middle["spleen"] - 20
    grey = np.ptp(pictures, axis=-1) == 0
    bright = grey & (pictures[..., 0] > 240)
    rows = np.argwhere(bright)[:, 1]
    assert np.median(rows) > 0.5 * pictures.shape[1], "bone lies at the back"


@pytest.mark.parametrize("count", [4, 61, 200])
@pytest.mark.parametrize("cases", [1, 3])
def test_many_organs_leave_the_case_visible(cases, count, recwarn):
    """The legend lies below the strips, whose white picture must be whole, and warns of nothing."""
    white = np.full((120, 960, 3), 255, np.uint8)
    white[::2] = (0, 200, 0)
    organs = [f"organ number {place}_left" for place in range(count)]
    figure = draw_sheet([Strip("a", False, white)] * cases, organs=organs)
    figure.savefig(BytesIO(), dpi=100)
    assert not [str(one.message) for one in recwarn]
    legend = figure.legends[0]
    below = legend.get_window_extent()
    strips = [axes.get_window_extent() for axes in figure.axes[:cases]]
    assert all(strip.y0 >= below.y1 and strip.height > 60 for strip in strips)
    assert below.y0 >= 0
    assert below.x1 <= figure.bbox.x1
    said = [text.get_text() for text in legend.get_texts()]
    assert ("organs of one column share a color" in legend.get_title().get_text()) == (count > 7)
    assert any("more" in one for one in said) == (count == 200)


@pytest.fixture
def seen(tiny_home, tmp_path, monkeypatch):
    """The tiny cases, the test's own."""
    shutil.copytree(tiny_home / "data", tmp_path / "data")
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CATNET_CARDS", str(tiny_home / "cards"))
    return tmp_path / "data" / "tiny"


def test_the_command_prints_a_table_and_draws_every_case(seen, capsys):
    status, out, err = end_of(["check", "tiny"], capsys)
    assert (status, err) == (0, "")
    assert re.search(r"5 +missing +spleen is not in the label", out)
    assert "6 cases, 1 of them with anomalies" in out
    assert f"picture: {seen / 'check.png'}" in out
    pixels = np.asarray(Image.open(seen / "check.png").convert("RGB")).astype(int)
    assert np.count_nonzero(np.ptp(pixels, axis=-1) > 40) > 5000, "organs in color"
    assert end_of(["check", "tiny", "--strict"], capsys)[0] == 1


def test_many_cases_take_several_sheets(seen, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("catnet.check.sheet.CASES", 4)
    _, out, _ = end_of(["check", "tiny", "-o", str(tmp_path / "a b.png")], capsys)
    assert out.count("picture: ") == 2
    assert (tmp_path / "a b-2.png").is_file()


def test_a_damaged_case_does_not_stop_the_others(seen, capsys):
    (seen / "2" / "image.npy").write_bytes(b"nothing")
    (seen / "3" / "label.npy").unlink()
    (seen / "4" / "meta.json").write_text("{")
    status, out, _ = end_of(["check", "tiny"], capsys)
    assert status == 0
    assert len(re.findall(r"^ +[234] +damaged ", out, re.MULTILINE)) == 3
    assert "missing" in out


def test_healthy_cases_pass_even_strictly(seen, capsys):
    shutil.rmtree(seen / "5")
    status, out, _ = end_of(["check", "tiny", "--strict"], capsys)
    assert status == 0
    assert "5 cases, none is odd" in out


def test_mistakes_are_one_sentence(seen, capsys):
    assert "ends in .png" in complaint(["check", "tiny", "-o", "x.jpg"], capsys)
    shutil.rmtree(seen)
    assert "no prepared case" in complaint(["check", "tiny"], capsys)


def test_real_scans_are_healthy(chaos, tmp_path, monkeypatch, capsys):
    card = yaml.safe_load((load_path("chaos_t2_small")).read_text(encoding="utf-8"))
    (tmp_path / "real.yml").write_text(yaml.safe_dump(card | {"name": "real"}), encoding="utf-8")
    raw = tmp_path / "raw"
    raw.mkdir()
    for case in (1, 2, 3):
        for kind in ("image", "label"):
            (raw / f"{kind}_{case}.nii.gz").symlink_to(chaos / f"{kind}_{case}.nii.gz")
    path = str(tmp_path / "real.yml")
    assert end_of(["prepare", path, "--raw", str(raw)], capsys)[0] == 0
    status, out, _ = end_of(["check", path, "--strict"], capsys)
    assert status == 0
    assert "3 cases, none is odd" in out


def load_path(name):
    from catnet.paths import cards_home

    return cards_home() / f"{name}.yml"
