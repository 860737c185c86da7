import io
import math
import re

import pandas as pd
import pytest
from fakes import fake_rows
from rich.console import Console

from catnet.report.grid import latex, markdown
from catnet.report.statistics import compare, describe
from catnet.report.tables import (
    comparison_table,
    dice_table,
    long_csv,
    summarize,
    terminal_table,
)

# protocol, model, support, query, organ, dice
FOUND = [
    ("EP1", "copy", "3", "1", "liver", 40),
    ("EP1", "copy", "3", "1", "spleen", 20),
    ("EP1", "copy", "3", "2", "liver", 60),
    ("EP1", "catnet", "3", "1", "liver", 70),
    ("EP1", "catnet", "3", "1", "spleen", 50),
    ("EP1", "catnet", "3", "2", "liver", 90),
    ("EP2", "copy", "3", "1", "liver", 10),
    ("EP2", "copy", "3", "1", "spleen", 30),
]


def make_rows(found, metric="dice"):
    names = ["protocol", "model", "support", "query", "organ", "value"]
    return pd.DataFrame(found, columns=names).assign(metric=metric)


@pytest.fixture
def rows():
    others = make_rows([(*row[:-1], 1e6) for row in FOUND], metric="hd95")
    return pd.concat([others, make_rows(FOUND)], ignore_index=True)


def test_means_and_deviations_by_hand(rows):
    table = summarize(rows)
    assert table.index.tolist() == [("EP1", "copy"), ("EP1", "catnet"), ("EP2", "copy")]
    assert table.columns.tolist() == [
        (name, kind) for name in ("liver", "spleen", "mean") for kind in ("mean", "std")
    ]
    copy = table.loc["EP1", "copy"]
    assert copy["liver", "mean"] == 50
    assert copy["liver", "std"] == pytest.approx(math.sqrt(200))  # of 40 and 60, n - 1
    assert copy["spleen", "mean"] == 20
    assert math.isnan(copy["spleen", "std"])
    assert copy["mean", "mean"] == 35  # of the organs' means, however many cases each has
    assert copy["mean", "std"] == pytest.approx(math.sqrt(450))  # of the patients' 30 and 60
    assert table.loc[("EP1", "catnet"), ("mean", "mean")] == 65
    assert table.loc[("EP2", "copy"), ("mean", "mean")] == 20


def test_a_patient_with_two_supports_counts_once():
    pairs = (("1", "2", 10), ("3", "2", 30), ("1", "4", 50))
    found = [("EP1", "copy", s, q, "liver", v) for s, q, v in pairs]
    table = summarize(make_rows(found))
    assert table.loc[("EP1", "copy"), ("liver", "mean")] == 35  # of 20 and 50, and not of three
    assert table.loc[("EP1", "copy"), ("liver", "std")] == pytest.approx(math.sqrt(450))


def test_another_metric_is_another_table(rows):
    assert (summarize(rows, "hd95")["liver", "mean"] == 1e6).all()


def test_an_organ_that_no_case_of_a_line_shows_is_left_out_of_its_mean():
    found = [*FOUND, ("EP2", "catnet", "3", "2", "liver", 44)]
    table = summarize(make_rows(found))
    line = table.loc["EP2", "catnet"]
    assert math.isnan(line["spleen", "mean"])
    assert (line["liver", "mean"], line["mean", "mean"]) == (44, 44)


def test_names_stand_in_the_order_in_which_they_first_appear():
    table = summarize(make_rows(FOUND[::-1]))
    assert table.index.tolist() == [("EP2", "copy"), ("EP1", "copy"), ("EP1", "catnet")]
    assert table.columns.get_level_values(0).tolist()[:2] == ["spleen"] * 2


def printed(rows, *, width=100):
    console = Console(width=width, file=io.StringIO())
    console.print(terminal_table(rows, title="the title"))
    return console.file.getvalue()


def test_the_terminal_shows_every_line_once_and_no_nan(rows):
    text = printed(rows)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "the title" in lines
    assert "model liver spleen mean" in lines
    assert "EP1 copy 50.0±14.1 20.0 35.0±21.2" in lines
    assert "catnet 80.0±14.1 50.0 65.0±21.2" in lines
    assert "EP2 copy 10.0 30.0 20.0" in lines
    assert "nan" not in text


def test_what_no_case_shows_is_a_dash():
    text = printed(make_rows([*FOUND, ("EP2", "catnet", "3", "2", "liver", 44)]))
    assert "catnet 44.0 - 44.0" in [" ".join(line.split()) for line in text.splitlines()]


NAMES = {"a_b & 5%": (1, 40), "[x^2]": (2, 60), "~c\\d{}#$|": (3, 50)}


@pytest.fixture
def described():
    rows = fake_rows(NAMES, patients=6, organs=("liver", "spleen"), noise=0.1)
    gone = (rows["variant"] == "[x^2]") & (rows["model"] == "catnet") & (rows["organ"] == "spleen")
    return describe(rows[~gone])


def test_the_grid_holds_every_mean_where_it_belongs(described):
    grid = dice_table(described)
    places = [(column.group, column.name) for column in grid.columns]
    assert places == [(p, o) for p in ("EP1", "EP2") for o in ("liver", "spleen", "mean")]
    names = list(NAMES)
    floors = ["copy", *(f"untrained ({name})" for name in names)]
    assert [line.names[0] for line in grid.lines] == [*floors, *names]
    assert [line.floor for line in grid.lines] == [True] * 4 + [False] * 3
    known = described.set_index(["variant", "model", "protocol", "organ"])
    cell = grid.lines[4].cells[3]
    expected = known.loc[names[0], "catnet", "EP2", "liver"]
    assert (cell.value, cell.low, cell.high) == tuple(expected[["mean", "low", "high"]])
    assert cell.text == f"{expected['mean']:.1f}±{expected['sd_cases']:.1f}"
    assert float(cell.sort) == expected["mean"]


def test_ranks_leave_out_floors_and_what_is_not_there(described):
    lines = dice_table(described).lines
    assert all(cell.rank is None for line in lines if line.floor for cell in line.cells)
    ranks = [[cell.rank for cell in line.cells[:2]] for line in lines[4:]]
    assert ranks == [[3, 2], [1, None], [2, 1]]
    missing = lines[5].cells[1]
    assert (missing.text, missing.sort) == ("-", "")


def ranks(variants):
    """What ranks every variant has in any column; nothing is drawn at random but the levels."""
    lines = dice_table(describe(fake_rows(variants, noise=0))).lines
    return {line.names[0]: {cell.rank for cell in line.cells} for line in lines if not line.floor}


def test_numbers_that_print_alike_share_a_rank_and_one_alone_has_none():
    found = ranks({"a": (1, 50), "b": (2, 50), "c": (3, 40)})
    assert found == {"a": {1}, "b": {1}, "c": {3}}
    assert ranks({"a": (1, 50), "b": (2, 50)}) == {"a": {None}, "b": {None}}  # no one is best
    assert ranks({"a": (1, 50), "b": (2, -90)}) == {"a": {1}, "b": {None}}  # nothing segmented
    alone = dice_table(describe(fake_rows({"a": (1, 50)})))
    assert {cell.rank for line in alone.lines for cell in line.cells} == {None}


def test_markdown_has_a_field_for_every_column(described):
    grid = dice_table(described)
    lines = markdown(grid).split("\n\n")[0].splitlines()
    assert len(lines) == 2 + len(grid.lines)
    assert {line.replace("\\|", "").count("|") for line in lines} == {8}
    assert lines[0].split(" | ")[1] == "EP1 liver"
    best = next(line for line in lines if line.startswith("| \\[x^2\\]"))
    assert best.split(" | ")[1] == f"**{grid.lines[5].cells[0].text}**"


def read_latex(text):
    """Rows of fields; fails on anything that TeX would: braces, signs, columns, environments."""
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert (body[0][:16], body[-1]) == (r"\begin{tabular}{", r"\end{tabular}")
    fields = body[0][16:-1]
    assert set(fields) == {"l", "r"}
    rules = [line for line in body if line.startswith(("\\toprule", "\\midrule", "\\bottomrule"))]
    rows = [line for line in body[1:-1] if line not in rules and "cmidrule" not in line]
    for row in rows:
        assert row.endswith(r" \\")
        bare = re.sub(r"\\[&%$#_{}]|\$\\pm\$", "", row[:-3])
        assert not set(bare) & set("%$#_^~<>±")
        assert bare.count("{") == bare.count("}")
        assert not re.match(r"\s*[\[*]", row)
        commands = set(re.findall(r"\\([a-z]+)", bare))
        assert commands <= {
            *("textbf", "underline", "multicolumn"),
            *("textbackslash", "textasciitilde", "textasciicircum", "textbar"),
        }
    cut = [re.split(r"(?<!\\)&", row[:-3]) for row in rows]
    spans = [sum(int((re.findall(r"multicolumn\{(\d+)", f) or [1])[0]) for f in r) for r in cut]
    assert set(spans) == {len(fields)}
    return [[field.strip() for field in row] for row in cut]


def test_latex_is_well_formed_and_marks_the_best(described):
    grid = dice_table(described)
    text = latex(grid)
    groups, names, *rows = read_latex(text)
    assert groups == ["", r"\multicolumn{3}{c}{EP1}", r"\multicolumn{3}{c}{EP2}"]
    assert names == ["variant", *["liver", "spleen", "mean"] * 2]
    assert r"\cmidrule(lr){2-4} \cmidrule(lr){5-7}" in text
    assert text.count(r"\midrule") == 2
    assert rows[4][0] == r"a\_b \& 5\%"
    assert rows[6][0] == r"\textasciitilde{}c\textbackslash{}d\{\}\#\$\textbar{}"
    marks = [[row[column].partition("{")[0] for row in rows[4:]] for column in (1, 2)]
    plain = [rows[4][1], rows[5][2]]
    assert marks == [[plain[0], r"\textbf", r"\underline"], [r"\underline", plain[1], r"\textbf"]]


def test_the_csv_is_unrounded(described):
    read = pd.read_csv(
        io.StringIO(long_csv(described)),
        keep_default_na=False,
        na_values={"sd_folds": "", "sd_seeds": ""},
    )
    pd.testing.assert_frame_equal(read, described, check_dtype=False, rtol=1e-14)


def test_the_comparison_table_shows_a_star_only_where_told_apart():
    rows = fake_rows({"a": (1, 40), "b": (2, 60), "c": (3, 60)}, patients=10)
    compared = compare(rows)
    grid = comparison_table(compared)
    assert len(grid.lines) == len(compared) == 2 * 2 * 5
    stars = [line.cells[3].text.endswith("*") for line in grid.lines]
    assert stars == compared["told_apart"].tolist()
    assert len(set(stars)) == 2
    read_latex(latex(grid))
    few = comparison_table(compare(fake_rows({"a": (1, 40), "b": (2, 60)}, patients=5)))
    assert not any("*" in cell.text for line in few.lines for cell in line.cells)


def test_a_comparison_that_could_not_be_made_is_dashes_and_a_reason():
    rows = fake_rows({"a": (1, 40), "b": (2, 60)})
    rows.loc[rows["variant"] == "b", "support"] = "other"
    cells = comparison_table(compare(rows)).lines[0].cells
    assert [cell.text for cell in cells[:5]] == ["-"] * 5
    assert [cell.text for cell in cells[5:]] == ["0 (-8)", "0", "nothing in common: not tested"]
