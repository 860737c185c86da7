import pytest
import yaml

from catnet.errors import UserError
from catnet.question import describe, load_question, load_run


@pytest.fixture
def ask(tmp_path):
    """A question's file by its content, beside a base that varies the fold."""
    (tmp_path / "base.yml").write_text(
        yaml.safe_dump({"model": {"dim": 64}, "vary": {"data.fold": [0, 1]}})
    )

    def write(**content):
        path = tmp_path / "asked.yml"
        path.write_text(yaml.safe_dump({"question": "How many?", **content}, sort_keys=False))
        return path

    return write


def values(question):
    return [tuple(variant.values.values()) for variant in question.variants]


def test_a_grid_is_every_combination_in_the_order_of_the_file(ask):
    question = load_question(ask(vary={"model.rounds": [0, 3], "seed": [0, 1]}))
    assert (question.name, question.text, question.varied) == (
        "asked",
        "How many?",
        ("model.rounds", "seed"),
    )
    assert values(question) == [(0, 0), (0, 1), (3, 0), (3, 1)]
    assert [variant.run.model.rounds for variant in question.variants] == [0, 0, 3, 3]
    assert [variant.label for variant in question.variants] == ["rounds=0"] * 2 + ["rounds=3"] * 2


def test_several_grids_stand_one_after_the_other(ask):
    grids = [{"model.attention": ["gc", "se"]}, {"model.cross_attention": ["gsa"]}]
    question = load_question(ask(vary=grids))
    assert question.varied == ("model.attention", "model.cross_attention")
    assert values(question) == [("gc", "masked"), ("se", "masked"), ("masked", "gsa")]
    labels = [variant.label for variant in question.variants]
    assert labels == ["attention=gc", "attention=se", "cross_attention=gsa"]


def test_what_the_base_varies_multiplies_every_grid(ask):
    grids = [{"model.rounds": [1]}, {"model.rounds": [2], "data.fold": [4]}]
    question = load_question(ask(base="base.yml", vary=grids))
    assert values(question) == [(1, 0), (1, 1), (2, 4)]
    assert all(variant.run.model.dim == 64 for variant in question.variants)


def test_another_base_asks_the_same_of_other_settings(ask, tmp_path):
    (tmp_path / "other.yml").write_text("model: {dim: 32}\nseed: 5\n")
    path = ask(base="base.yml", vary={"model.rounds": [1, 2]})
    question = load_question(path, ["base=other.yml"])
    assert values(question) == [(1,), (2,)]
    assert {(v.run.model.dim, v.run.seed) for v in question.variants} == {(32, 5)}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.rounds=3", [(3, 0), (3, 1)]),
        ("model.rounds=[4,5]", [(4, 0), (4, 1), (5, 0), (5, 1)]),
        ("seed=[1]", [(0, 1), (3, 1)]),
        ("vary.train.steps=[7]", [(0, 0, 7), (0, 1, 7), (3, 0, 7), (3, 1, 7)]),
    ],
)
def test_an_override_narrows_what_varies_or_varies_one_more(ask, override, expected):
    path = ask(vary={"model.rounds": [0, 3], "seed": [0, 1]})
    assert values(load_question(path, [override])) == expected


def test_a_plain_override_holds_for_every_run(ask):
    path = ask(vary={"model.rounds": [0, 3]})
    assert {v.run.seed for v in load_question(path, ["seed=9"]).variants} == {9}


def test_options_are_replaced_whole_by_a_grid(ask):
    path = ask(
        model={"attention": "outlook", "attention_options": {"heads": 2}},
        vary={"model.attention_options": [{"kernel": 3}, {"kernel": 5}]},
    )
    found = [variant.run.model.attention_options for variant in load_question(path).variants]
    assert found == [{"kernel": 3}, {"kernel": 5}]


def test_networks_are_compared_each_by_its_own_settings(ask):
    path = ask(model={"rounds": 2, "dim": 32}, vary={"model.name": ["catnet", "panet"]})
    one, other = (variant.run.model for variant in load_question(path).variants)
    assert [v.label for v in load_question(path).variants] == ["catnet", "panet"]
    assert (one.name, one.rounds, one.dim) == ("catnet", 2, 32)
    assert (other.name, other.rounds, other.dim) == ("panet", 4, 32)
    with pytest.raises(UserError, match="rounds is a setting of catnet"):
        load_question(ask(model={"name": "panet", "rounds": 2}))


def test_an_option_of_a_mechanism_can_vary(ask):
    path = ask(vary={"model.attention_options.heads": [1, 2]})
    assert values(load_question(path)) == [(1,), (2,)]


def test_a_file_of_any_name_names_a_folder(ask):
    path = ask().rename(ask().with_name("meine frage ü.yml"))
    assert load_question(path).name == "meine-frage-.yml".removesuffix(".yml")


def test_a_description_can_be_given_back_on_the_command_line(ask):
    path = ask(vary={"model.attention": ["none", "gc"], "data.group": [None, "kidneys"]})
    for variant in load_question(path).variants:
        narrowed = load_run(path, describe(variant).split(" "))
        assert narrowed == variant.run


def test_a_question_of_several_runs_is_no_run(ask):
    path = ask(vary={"model.rounds": [0, 3]})
    with pytest.raises(UserError, match=r"asks for 2 runs; `catnet sweep .*model.rounds=0 would"):
        load_run(path)
    assert load_run(path, ["model.rounds=3"]).model.rounds == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"vary": {"model.rounds": []}}, "vary.model.rounds needs a list of values"),
        ({"vary": {"model.rounds": 3}}, "needs a list of values, such as .0, 1, 2., not 3"),
        ({"vary": 3}, "vary needs lines such as"),
        ({"vary": []}, "vary needs lines such as"),
        ({"vary": {"model.round": [1]}}, "model.round is not a setting; did you mean 'rounds'"),
        ({"vary": {"modle.rounds": [1]}}, "modle is not a setting; did you mean 'model'"),
        ({"vary": {"model.rounds": [1, 99]}}, "model.rounds: .* less than or equal to 8, not 99"),
        ({"vary": {"seed.x": [1]}}, "seed.x=1: seed is a single value|seed"),
        ({"vary": {"machine.threads": [1, 2]}}, "vary.machine.threads changes no result"),
        ({"vary": {"name": ["a", "b"]}}, "vary.name changes no result"),
        ({"vary": {"seed": [1, 1]}}, r"two of its runs are the same \(seed=1; seed=1\)"),
        ({"vary": [{"seed": [0]}, {"model.rounds": [4]}]}, "two of its runs are the same"),
        ({"vary": {"evaluate.batch": [1, 2]}}, "two of its runs are the same"),
        ({"vary": {"train": [{"steps": 2}, {"steps": 3}]}}, "vary.train is a group of settings"),
        ({"vary": {"model": [1]}}, "vary.model is a group of settings; vary one of them, such"),
        ({"vary": {"": [1]}}, "vary has the key '', which names no setting"),
        ({"vary": {"model.": [1]}}, "vary has the key 'model.', which names no setting"),
        ({"vary": {3: [1]}}, "vary has the key 3, which names no setting"),
        ({"base": "base.yml", "vary": "x"}, "vary needs lines such as"),
    ],
)
def test_a_grid_that_makes_no_sense_is_one_sentence(ask, content, words):
    with pytest.raises(UserError, match=words):
        load_question(ask(**content))


def test_the_base_may_vary_in_one_grid_only(ask, tmp_path):
    (tmp_path / "two.yml").write_text("vary: [{seed: [1]}, {seed: [2]}]\n")
    with pytest.raises(UserError, match="lists several grids"):
        load_question(ask(base="two.yml"))
