"""`catnet zoo`: the figures it prints and writes, and the mistakes it answers in one sentence."""

import re

import pandas as pd
import pytest
import torch

from catnet.cli import main
from catnet.model.attention import ATTENTION, build_attention

SMALL = ["--dim", "32", "--size", "4x6", "--repeat", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The figures of the whole zoo, as pandas reads them."""
    path = tmp_path_factory.mktemp("zoo") / "figures" / "zoo.csv"
    main(["zoo", *SMALL, "--csv", str(path)])
    return pd.read_csv(path).set_index("name")


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["zoo", *arguments])
    out, err = capsys.readouterr()
    assert stopped.value.code == 2
    assert out == ""
    assert err.startswith("catnet: ")
    assert err.count("\n") == 1
    return err


def test_every_mechanism_is_measured_with_its_paper_and_cross_form(table):
    assert list(table.index) == list(ATTENTION)
    assert dict(table.paper) == {name: kind.paper for name, kind in ATTENTION.items()}
    assert dict(table.cross) == {name: kind.cross for name, kind in ATTENTION.items()}
    assert set(zip(table.dim, table.height, table.width, strict=True)) == {(32, 4, 6)}


def test_figures_are_those_of_the_mechanism(table):
    masked, none = table.loc["masked"], table.loc["none"]
    assert masked.parameters == 4 * 32**2 + 4 * 32
    assert masked.multiply_adds == 4 * 24 * 32**2 + 2 * 24**2 * 32
    assert (none.parameters, none.multiply_adds) == (0, 0)
    assert (table.peak_bytes >= none.peak_bytes).all()
    for name, figures in table.iterrows():
        weights = build_attention(name, 32, {}).parameters()
        assert figures.parameters == sum(weight.numel() for weight in weights)
        assert 0 < figures.seconds_min <= figures.seconds <= figures.seconds_max


def test_table_names_them_all_on_one_screen(capsys):
    main(["zoo", *SMALL])
    lines = capsys.readouterr().out.rstrip().split("\n")
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 40
    first_words = [line.split()[0] for line in lines if line.strip()]
    assert [word for word in first_words if word in ATTENTION] == list(ATTENTION)
    (masked,) = [line for line in lines if line.startswith(" masked ")]
    assert "CAT-Net 2303.13867" in masked
    assert " 4,224 " in masked
    assert masked.rstrip().endswith("yes")
    assert "…" not in "".join(lines)


def test_some_may_be_named(capsys):
    main(["zoo", "gc", "se", *SMALL])
    out = capsys.readouterr().out
    assert "GCNet" in out
    assert "SENet" in out
    assert "VOLO" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "0"], "--size '0'"),
        (["--size", "1x8"], "--size '1x8'"),
        (["--size", "-4"], "--size '-4'"),
        (["--size", "8x"], "--size '8x'.*32x48"),
        (["--size", "8x8x8"], "--size '8x8x8'"),
        (["--size", "²"], "--size '²'"),
        (["--dim", "0"], "--dim 0"),
        (["--dim", "250"], "--dim 250.*heads=8 does not divide"),
        (["--dim", "8"], "--dim 8.*reduction=16"),
        (["--repeat", "0"], "--repeat 0"),
        (["mask"], "'mask' is unknown.*'masked'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr("catnet.commands.zoo.measure", None)  # before anything is measured
    assert re.search(said, refusal(capsys, *arguments))


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(capsys):
    assert "--device gpu" in refusal(capsys, "--device", "gpu")


def test_a_map_beyond_the_memory_is_one_sentence(capsys):
    """The maps of a million tokens by a million."""
    arguments = ["refiner", "--dim", "8", "--size", "1024", "--device", "cpu"]
    assert "refiner needs more memory" in refusal(capsys, *arguments)


def test_other_faults_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def broken(mechanism, x, *, repeat):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("catnet.commands.zoo.measure", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        main(["zoo", *SMALL])
