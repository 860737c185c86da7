import io
import math

import pandas as pd
import pytest
from rich.console import Console

from catnet.report.tables import summarize, terminal_table

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
    assert copy["mean", "std"] == pytest.approx(math.sqrt(450))  # of the pairs' 30 and 60
    assert table.loc[("EP1", "catnet"), ("mean", "mean")] == 65
    assert table.loc[("EP2", "copy"), ("mean", "mean")] == 20


def test_pairs_are_support_and_query_together():
    found = [("EP1", "copy", s, q, "liver", v) for s, q, v in (("1", "2", 10), ("3", "2", 30))]
    table = summarize(make_rows(found))
    assert table.loc[("EP1", "copy"), ("liver", "mean")] == 20
    assert table.loc[("EP1", "copy"), ("liver", "std")] == pytest.approx(math.sqrt(200))


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
