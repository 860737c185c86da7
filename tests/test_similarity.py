import math

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from torch import nn
from trials import untaught

from catnet.cli import main
from catnet.config import Run
from catnet.data.store import open_cases
from catnet.evaluate.cka import linear_cka, to_positions
from catnet.evaluate.predictors import NetworkPredictor
from catnet.evaluate.similarity import compare_rounds, group_names, measure_similarity
from catnet.model.cmat import Round
from catnet.model.encoder import Encoded
from catnet.model.networks import initial_model
from catnet.model.ops import for_queries
from catnet.report.similarity import draw_curves, similarity_table, summarize_similarity, verdict

CPU = torch.device("cpu")


@pytest.fixture
def pair(generator):
    """Two representations of 7 positions in 3 episodes, of 4 and 5 channels, somewhat alike."""
    x = torch.randn(3, 7, 4, generator=generator, dtype=torch.float64)
    mix = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    return x, x @ mix + torch.randn(3, 7, 5, generator=generator, dtype=torch.float64)


# The measure


def slowly(x, y):
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) from Gram matrices, entry by entry."""
    one, other = gram(x), gram(y)
    return hsic(one, other) / math.sqrt(hsic(one, one) * hsic(other, other))


def gram(rows):
    size = len(rows)
    inner = [[sum(a * b for a, b in zip(p, q, strict=True)) for q in rows] for p in rows]
    total = sum(map(sum, inner)) / size**2
    mean = [sum(row) / size for row in inner]
    return [[inner[i][j] - mean[i] - mean[j] + total for j in range(size)] for i in range(size)]


def hsic(one, other):
    """tr(K L) / (n - 1)^2 of centered Gram matrices."""
    size = len(one)
    trace = sum(one[i][j] * other[j][i] for i in range(size) for j in range(size))
    return trace / (size - 1) ** 2


def test_it_equals_the_gram_matrices_written_slowly(pair):
    x, y = pair
    got = linear_cka(x, y)
    for episode in range(3):
        expected = slowly(x[episode].tolist(), y[episode].tolist())
        assert got[episode].item() == pytest.approx(expected, rel=1e-12)
    assert ((got > 0.05) & (got < 0.95)).all()


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, -1, 0], [1, 0, -1], 0.25),  # 1^2 / (2 * 2)
        ([1, -1, 0, 0], [0, 0, 1, -1], 0.0),
        ([1, 2, 3], [5, 3, 1], 1.0),
    ],
)
def test_cases_computed_by_hand(x, y, expected):
    x, y = (torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1) for values in (x, y))
    assert linear_cka(x, y).item() == pytest.approx(expected)


def test_a_turn_a_scale_and_a_shift_change_nothing(pair, generator):
    x, y = pair
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    shift = torch.randn(4, generator=generator, dtype=torch.float64)
    for changed in (x @ turn, -3 * x, x + shift, 1e-30 * x @ turn, 1e30 * x):
        torch.testing.assert_close(linear_cka(changed, y), linear_cka(x, y))
        torch.testing.assert_close(linear_cka(y, changed), linear_cka(x, y))
        torch.testing.assert_close(linear_cka(changed, x), torch.ones(3, dtype=torch.float64))
    stretched = x * torch.tensor([1.0, 1.0, 1.0, 9.0])
    assert (linear_cka(stretched, y) - linear_cka(x, y)).abs().min() > 1e-3


def test_where_all_positions_are_alike_there_is_nothing_to_compare(pair):
    x, y = pair
    x[1] = x[1, :1] * 1e4
    found = linear_cka(x, y)
    assert found[1].isnan()
    assert not found[[0, 2]].isnan().any()


def test_positions_are_rows(generator):
    feature = torch.randn(2, 4, 3, 5, generator=generator)
    rows = to_positions(feature)
    assert torch.equal(rows[1, 2 * 5 + 3], feature[1, :, 2, 3])


# Over the queries of a fold


def quiet(done, total, query):
    pass


@pytest.fixture
def saved(tiny):
    """`saved("model.rounds=3")`: a run folder with weights, as after training."""

    def make(*settings):
        folder = tiny("model.dim=16", "evaluate.baselines=[]", *settings)
        untaught(folder)
        return folder

    return make


def test_every_row_is_what_the_features_give_slice_by_slice(saved, monkeypatch):
    folder = saved()
    seen = {}

    def watched(predictor, support, query, count):
        """F_0 and F_N without hooks, one slice at a time; F_1 from a network of one round."""
        values = compare_rounds(predictor, support, query, count)
        model = predictor.model
        for index in range(count):
            one = Encoded(query.feature[index : index + 1], query.deep[index : index + 1])
            share = nn.functional.avg_pool2d(support.mask, 8)
            with torch.no_grad():
                first = model.mife(support.encoded, share, one)[1]
                last = predictor.predict(support, one, 1).query
                model.settings = model.settings.model_copy(update={"rounds": 1})
                second = predictor.predict(support, one, 1).query
                model.settings = model.settings.model_copy(update={"rounds": 2})
            rows = [to_positions(feature)[0].tolist() for feature in (first, second, last)]
            expected = [slowly(row, rows[-1]) for row in rows]
            np.testing.assert_allclose(values[index], expected, atol=1e-5)
        seen[len(seen)] = count
        return values

    monkeypatch.setattr("catnet.evaluate.similarity.compare_rounds", watched)
    rows = measure_similarity(folder, device=CPU, report=quiet)
    shown = [
        (case, organ, number)
        for case in ("1", "2")
        for organ in folder.card.organs
        for number in np.flatnonzero(pixels(folder, case)[organ])
    ]
    found = rows[["query", "organ", "slice"]].drop_duplicates()
    assert sorted(found.itertuples(index=False, name=None)) == sorted(shown)
    assert len(rows) == 3 * len(shown) == 3 * sum(seen.values())
    assert set(rows["support"]) == {"3"}
    assert set(rows["mechanism"]) == {"masked / masked"}
    assert rows.loc[rows["round"] == 2, "cka"].to_numpy() == pytest.approx(1)
    assert (rows.loc[rows["round"] == 0, "cka"] < 0.99).all()


def pixels(folder, case):
    (found,) = (other for other in open_cases(folder.card) if other.name == case)
    return found.meta.pixels


def test_batches_change_nothing(saved):
    names = ["query", "organ", "slice", "round"]
    one, many = (
        measure_similarity(saved(f"evaluate.batch={size}"), device=CPU, report=quiet)
        .sort_values(names)
        .reset_index(drop=True)
        for size in (1, 5)
    )
    pd.testing.assert_frame_equal(one, many, rtol=1e-4)


def test_rounds_that_change_nothing_are_all_one(saved, monkeypatch):
    folder = saved("model.position=none", "data.group=kidneys")
    model = initial_model(folder.run.model, seed=0)
    changing = NetworkPredictor(model, device=CPU, precision=torch.float32)
    opened = {"catnet": changing}
    monkeypatch.setattr("catnet.evaluate.similarity.open_predictors", lambda *_: opened)
    before = measure_similarity(folder, device=CPU, report=quiet)
    assert (before.loc[before["round"] < 2, "cka"] < 0.9999).all()
    unchanged = lambda _, s: (for_queries(s.support, s.counts), s.query, s.maps)  # noqa: E731
    monkeypatch.setattr(Round, "forward", unchanged)
    after = measure_similarity(folder, device=CPU, report=quiet)
    assert len(after) == len(before)
    assert after["cka"].to_numpy() == pytest.approx(1, abs=1e-9)


def test_two_different_mechanisms_are_both_named(saved):
    folder = saved("model.attention=se", "model.cross_attention=gc", "data.group=kidneys")
    rows = measure_similarity(folder, device=CPU, report=quiet)
    assert set(rows["mechanism"]) == {"se / gc"}


# What is said of it


def make_rows(*runs):
    """Rows of (run, group, CKA of each round), on two slices, one a little above the other."""
    return pd.DataFrame(
        {
            "run": run,
            "group": group,
            "support": "1",
            "query": "2",
            "organ": "liver",
            "slice": number,
            "round": place,
            "cka": value + shift,
        }
        for run, group, values in runs
        for place, value in enumerate(values)
        for number, shift in ((4, -0.01), (5, 0.01))
    )


RUNS = (
    ("a-1", "masked", (0.2, 0.6, 0.98, 1.0)),
    ("b-1", "outlook", (0.1, 0.5, 1.0)),
    ("a-2", "masked", (0.4, 0.8, 0.96, 1.0)),
)


def test_the_summary_is_the_mean_over_slices():
    summary = summarize_similarity(make_rows(*RUNS))
    assert summary.loc["a-1", "masked"].tolist() == pytest.approx([0.2, 0.6, 0.98, 1.0])
    assert summary.loc["b-1", "outlook"].tolist()[:3] == pytest.approx([0.1, 0.5, 1.0])
    assert math.isnan(summary.loc[("b-1", "outlook"), 3])


def test_a_slice_without_a_value_is_left_out():
    rows = make_rows(RUNS[0])
    rows.loc[(rows["round"] == 1) & (rows["slice"] == 4), "cka"] = math.nan
    assert summarize_similarity(rows).loc[("a-1", "masked"), 1] == pytest.approx(0.61)


def test_the_sentence_says_whether_the_last_round_changes_anything():
    both = verdict(make_rows(*RUNS))
    assert both == (
        "The last round still changes the query feature with outlook (round 1 to 2, CKA 0.500) and "
        "hardly changes the query feature with masked (round 2 to 3, CKA 0.970); hardly means "
        "CKA 0.95 or more."
    )
    alone = verdict(make_rows(RUNS[1]))
    assert alone.startswith("The last round still changes the query feature with outlook (round 1")
    settled = verdict(make_rows(RUNS[0]))
    assert settled.startswith("The last round hardly changes the query feature with masked (round")


def test_runs_of_other_depths_are_told_apart():
    deeper = ("a-3", "masked", (0.1, 0.2, 0.3, 0.4, 1.0))
    said = verdict(make_rows(*RUNS, deeper))
    assert "masked (round 3 to 4, CKA 0.400)" in said
    assert "masked (round 2 to 3, CKA 0.970)" in said


def test_there_is_a_curve_a_group_and_a_thin_one_a_run():
    axes = draw_curves(make_rows(*RUNS)).axes[0]
    bold = {line.get_label(): line.get_ydata() for line in axes.lines if line.get_marker() == "o"}
    assert list(bold) == ["masked, 3 rounds, 2 runs", "outlook, 2 rounds, 1 run"]
    assert bold["masked, 3 rounds, 2 runs"] == pytest.approx([0.3, 0.7, 0.97, 1.0])
    assert bold["outlook, 2 rounds, 1 run"] == pytest.approx([0.1, 0.5, 1.0])
    thin = [line for line in axes.lines if line.get_marker() != "o"]
    assert len(thin) == 2
    assert axes.get_ylim() == (0, 1.03)
    (legend,) = axes.figure.legends
    assert legend.get_title().get_text() == "mechanism at the self place / at the cross place"


def make_run(**model):
    fold, seed = model.pop("fold", 0), model.pop("seed", 0)
    rate = model.pop("rate", 1e-3)
    content = {"model": model, "data": {"fold": fold}, "seed": seed, "train": {"rate": rate}}
    return Run.model_validate(content)


def test_only_runs_of_other_folds_and_seeds_repeat_one_another():
    repeats = [make_run(), make_run(fold=1), make_run(seed=3), make_run(fold=1, seed=3)]
    assert set(group_names(repeats)) == {"masked / masked"}
    assert group_names([make_run(attention="se"), make_run(cross_attention="gc")]) == [
        "se / masked",
        "masked / gc",
    ]


@pytest.mark.parametrize(
    ("changes", "called"),
    [
        ({"attention_options": {"heads": 4}}, "attention_options={heads: 4}"),
        ({"ffn": "conv"}, "ffn=conv"),
        ({"position": "none"}, "position=none"),
        ({"mask_on": "keys"}, "mask_on=keys"),
        ({"rate": 0.5}, "train.rate=0.5"),
    ],
)
def test_what_else_differs_is_part_of_the_name(changes, called):
    plain, same, other = group_names([make_run(), make_run(seed=1), make_run(**changes)])
    assert plain == same != other
    assert other == f"masked / masked, {called}"
    key = called.partition("=")[0]
    assert plain.startswith(f"masked / masked, {key}=")


def test_runs_of_other_options_are_not_averaged(saved, tmp_path, capsys):
    small = ("data.group=kidneys", "model.rounds=1")
    folders = [saved(*small), saved(*small, "seed=1"), saved(*small, "model.ffn=conv")]
    names = [str(folder.path) for folder in folders]
    main(["similarity", *names, names[0], "-o", str(tmp_path)])
    rows = pd.read_csv(tmp_path / "similarity.csv", dtype={"query": str})
    found = rows.groupby("group")["run"].nunique().to_dict()
    assert found == {"masked / masked, ffn=mlp": 2, "masked / masked, ffn=conv": 1}
    counts = rows.groupby("run").size()
    assert counts.nunique() == 1  # a run that is given twice counts once
    assert "ffn=conv (round 0 to 1" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(saved, monkeypatch, capsys):
    monkeypatch.setattr("catnet.commands.similarity.measure", None)
    refuse([str(saved().path), "-o", "/dev/null/here"], "cannot be written", capsys)


def test_the_table_has_a_line_a_run_and_a_column_a_round():
    table = similarity_table(make_rows(*RUNS))
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["run"] == ["a-1", "b-1", "a-2"]
    assert cells["slices"] == ["2", "2", "2"]
    assert cells["0 (MIFE)"] == ["0.200", "0.100", "0.400"]
    assert cells["3"] == ["1.000", "", "1.000"]


# The command


def test_the_command_prints_and_writes(saved, tmp_path, capsys):
    small = ("data.group=kidneys", "evaluate.protocols=[EP1]")
    folders = [saved("model.rounds=1", *small), saved("model.attention=se", "seed=1", *small)]
    target = tmp_path / "new" / "folder"
    main(["similarity", *(str(folder.path) for folder in folders), "-o", str(target)])
    said = capsys.readouterr().out
    for folder, mechanism in zip(folders, ("masked / masked", "se / masked"), strict=True):
        (line,) = (line for line in said.splitlines() if folder.path.name in line)
        assert f" {mechanism} " in line
        assert "1.000" in line
    assert "The last round" in said
    assert f"table and curves: {target}" in said
    rows = pd.read_csv(target / "similarity.csv", dtype={"query": str})
    assert set(rows["run"]) == {folder.path.name for folder in folders}
    assert set(rows["group"]) == set(rows["mechanism"]) == {"masked / masked", "se / masked"}
    assert set(rows["round"]) == {0, 1, 2}
    assert "<svg" in (target / "similarity.svg").read_text(encoding="utf-8")
    assert imread(target / "similarity.png").shape[1] > 400


def test_without_a_folder_the_curves_go_to_the_first_run(saved):
    folder = saved("model.rounds=1", "data.group=upper")
    main(["similarity", folder.path.name])
    found = {path.name for path in (folder.path / "similarity").iterdir()}
    assert found == {"similarity.csv", "similarity.svg", "similarity.png"}


def refuse(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["similarity", *arguments])
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 2
    assert said.startswith("catnet: ")
    assert sentence in said
    assert "\n" not in said


def test_a_run_without_rounds_is_refused(saved, capsys):
    refuse([str(saved("model.rounds=0").path)], "model.rounds=0, so there are no rounds", capsys)


def test_a_run_that_is_not_trained_is_refused(tiny, capsys):
    refuse([str(tiny().path)], "training has not ended", capsys)


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    refuse([str(tmp_path)], "not the folder of a run", capsys)
