"""`catnet zoo`: the figures it prints and writes, and the mistakes it answers in one sentence."""

import re

import pandas as pd
import pytest
import torch

from catnet.cli import main
from catnet.model.attention import ATTENTION, build_attention
from catnet.model.options import describe

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
    for figure in ("cross", "aligned", "good_for"):
        expected = {name: getattr(kind, figure) for name, kind in ATTENTION.items()}
        assert dict(table[figure]) == expected
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
    middle = lines.index("good for")
    for block in (lines[:middle], lines[middle:]):
        first_words = [line.split()[0] for line in block if line.strip()]
        assert [word for word in first_words if word in ATTENTION] == list(ATTENTION)
    (masked,) = [line for line in lines[:middle] if line.startswith("masked ")]
    assert "CAT-Net 2303.13867" in masked
    assert " 4,224 " in masked
    assert masked.rstrip().endswith("yes")
    for line in lines[:middle]:
        name = line.partition(" ")[0]
        if name in ATTENTION and ATTENTION[name].aligned:
            assert line.rstrip().endswith("yes, aligned")
    for line in lines[middle + 1 :]:
        assert ATTENTION[line.split()[0]].good_for in line
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
        (["se", "--size", "100000"], "--size '100000' is out of reason"),
        (["se", "--size", "9" * 5000], "is out of reason"),
        (["--dim", "99999999999"], "--dim 99999999999 is out of reason; choose 1 to 8192"),
        (["maskd", "--options"], "did you mean 'masked'"),
        (["se", "--csv", "."], "is a folder; give the name of a file"),
        (["se", "--csv", "/dev/null/a.csv"], "/dev/null/a.csv: cannot be written"),
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
    assert "refiner on 1024 x 1024 tokens: more memory is needed" in refusal(capsys, *arguments)
    arguments = ["se", "--size", "32768", "--device", "cpu"]
    assert "32768 x 32768 tokens, cpu: more memory is needed" in refusal(capsys, *arguments)


def test_other_faults_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def broken(mechanism, x, *, repeat):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("catnet.commands.zoo.measure", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        main(["zoo", *SMALL])


def test_a_file_that_was_there_stays_until_there_is_another(tmp_path, capsys, monkeypatch):
    path = tmp_path / "zoo.csv"
    path.write_text("before")
    monkeypatch.setattr("catnet.commands.zoo.measure_all", None)
    with pytest.raises(TypeError):
        main(["zoo", "se", *SMALL, "--csv", str(path)])
    assert [found.read_text() for found in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize("name", ATTENTION)
def test_options_are_printed_with_type_default_and_meaning(name, capsys, monkeypatch):
    monkeypatch.setattr("catnet.commands.zoo.measure", None)
    main(["zoo", name, "--options"])
    said = capsys.readouterr().out
    kind = ATTENTION[name]
    first, good, has, *lines = said.splitlines()
    assert first == f"{name}: {kind.paper}"
    assert good.strip() == kind.good_for
    crossed = ("yes, aligned" if kind.aligned else "yes") if kind.cross else "no"
    mapped, converted = (
        "yes" if hasattr(kind, what) else "no" for what in ("attention_map", "convert")
    )
    assert has.strip() == (
        f"cross form: {crossed}; attention map: {mapped}; converter of published weights: "
        f"{converted}"
    )
    assert max(map(len, said.splitlines())) <= 100
    words = [line.split() for line in lines if line.strip()]
    for option in describe(kind):
        (line,) = [parts for parts in words if parts[0] == option.name]
        assert f"{option.kind} {option.default} {option.meaning.split()[0]}" in " ".join(line)


def test_without_a_name_the_options_of_all_are_printed(capsys):
    main(["zoo", "--options"])
    said = capsys.readouterr().out
    assert [line.partition(":")[0] for line in said.splitlines() if ", arXiv " in line] == [
        name for name in ATTENTION if name != "none"
    ]
