from typing import Literal, get_args, get_origin

import pytest
import yaml

from catnet.config import OWN, ModelSettings, Run, digest
from catnet.errors import UserError
from catnet.question import load_run
from catnet.strict import Strict

DECISIVE = ("data", "augment", "model", "train")
USUAL = Run.model_validate({"data": {"group": "upper"}})


def write(tmp_path, text, name="study.yml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path, *overrides):
    with pytest.raises(UserError) as caught:
        load_run(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leaves():
    """Every setting that decides the weights, as (group, name)."""
    groups = {group: type(getattr(USUAL, group)).model_fields for group in DECISIVE}
    return [(None, "seed"), *((group, name) for group in groups for name in groups[group])]


def usual_of(name):
    """The usual run, of the network that has the setting."""
    owners = [network for network, names in OWN.items() if name in names]
    return Run.model_validate({**USUAL.model_dump(), "model": {"name": [*owners, "catnet"][0]}})


def another(group, name):
    """A valid value of a setting that is not the usual one."""
    settings = USUAL if group is None else getattr(USUAL, group)
    field, value = type(settings).model_fields[name], getattr(settings, name)
    if get_origin(field.annotation) is Literal:
        return next(choice for choice in get_args(field.annotation) if choice != value)
    if isinstance(value, bool | str | tuple | dict):
        other = {bool: True, str: "other", tuple: (1.0, 1.1), dict: {"heads": 2}}[type(value)]
        return other if other != value else not value
    return value + 1 if isinstance(value, int) else value / 2 or 0.5


def changed(group, name):
    content = usual_of(name).model_dump()
    (content if group is None else content[group])[name] = another(group, name)
    return Run.model_validate(content)


def test_a_file_says_only_what_differs(tmp_path):
    run = load_run(write(tmp_path, "seed: 3\nmodel: {rounds: 2}\n"))
    assert (run.seed, run.model.rounds, run.model.dim) == (3, 2, Run().model.dim)
    assert run.train == Run().train


def test_the_file_names_the_run_unless_it_says_otherwise(tmp_path):
    assert load_run(write(tmp_path, "seed: 1", "rounds.yml")).name == "rounds"
    assert load_run(write(tmp_path, "name: mine", "rounds.yml")).name == "mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle: {rounds: 3}", ["modle is not a setting", "'model'"]),
        ("model: {ronds: 3}", ["model.ronds is not a setting", "'rounds'"]),
        ("model: {rounds: 9}", ["model.rounds", "less than or equal to 8", "not 9"]),
        ("model: {rounds: 2.5}", ["model.rounds", "integer", "not 2.5"]),
        ("model: {mask_on: rows}", ["model.mask_on", "'queries', 'keys' or 'none'", "'rows'"]),
        ("model: 3", ["model", "not 3"]),
        ("model:", ["model", "not None"]),
        ("train: {rate: 0}", ["train.rate", "greater than 0"]),
        ("train: {rate: .nan}", ["train.rate", "finite"]),
        ("augment: {rotation: .inf}", ["augment.rotation", "finite"]),
        ("augment: {gamma: [0.5, 1, 2]}", ["augment.gamma", "at most 2"]),
        ("data: {setting: 3}", ["data.setting", "'2-as-published'", "'3'"]),
        ("data: {labels: organs}", ["labels: organs needs data.group"]),
        ("evaluate: {protocols: [EP3]}", ["evaluate.protocols.0", "'EP1' or 'EP2'"]),
        ("evaluate: {protocols: []}", ["evaluate.protocols", "at least 1"]),
        ("name: my run", ["name", "pattern"]),
        ("name: ../up", ["name", "pattern"]),
        ("1: 2", ["1", "not 1"]),
        ("seed: 1\nseed: 2", ["line 2", "'seed' stands twice"]),
        ("seed: [1", ["line 1", "mend that line"]),
        ("base: 3", ["base", "path of a YAML file", "not 3"]),
        ("base: [a.yml]", ["base", "path of a YAML file"]),
    ],
)
def test_a_wrong_file_gets_one_sentence_with_file_key_and_fix(tmp_path, text, words):
    path = write(tmp_path, text)
    sentence = refusal(path)
    assert all(word in sentence for word in [str(path), *words]), sentence


def test_own_settings_name_each_setting_once_and_leave_the_shared_ones():
    listed = [name for names in OWN.values() for name in names]
    assert len(set(listed)) == len(listed)
    shared = {"name", "encoder", "encoder_weights", "output_stride", "dim"}
    assert set(ModelSettings.model_fields) - set(listed) == shared
    assert set(OWN) <= set(get_args(ModelSettings.model_fields["name"].annotation))


@pytest.mark.parametrize("network", get_args(ModelSettings.model_fields["name"].annotation))
@pytest.mark.parametrize(
    ("owner", "setting"), [(owner, name) for owner, names in OWN.items() for name in names]
)
def test_a_setting_of_another_network_is_refused_and_its_default_is_not(
    network, owner, setting, tmp_path
):
    value = another("model", setting)
    path = write(tmp_path, yaml.safe_dump({"model": {"name": network, setting: value}}))
    if network == owner:
        assert getattr(load_run(path).model, setting) == value
    else:
        words = f"model: {setting} is a setting of {owner}, and means nothing to name={network};"
        assert words in refusal(path)
    default = ModelSettings.model_fields[setting].default
    text = yaml.safe_dump({"model": {"name": network, setting: default}})
    assert load_run(write(tmp_path, text)).model.name == network


def test_numbers_of_every_spelling(tmp_path):
    rates = [write(tmp_path, f"train: {{rate: {text}}}") for text in ("0.001", "1e-3", "1.0e-3")]
    assert all(load_run(path).train.rate == 0.001 for path in rates)
    path = write(tmp_path, "train: {rate: 1e-3, weight_decay: 5E-4}")
    assert load_run(path).train.weight_decay == 5e-4
    assert load_run(path, ["train.rate=2e-3"]).train.rate == 2e-3


@pytest.mark.parametrize("text", ["2", "'2'"])
def test_a_setting_may_be_a_number(tmp_path, text):
    assert load_run(write(tmp_path, f"data: {{setting: {text}}}")).data.setting == "2"


def test_overrides_come_last_and_reach_every_depth(tmp_path):
    path = write(tmp_path, "seed: 1\nmodel: {rounds: 2, attention_options: {heads: 4}}")
    overrides = [
        "seed=5",
        "model.dim=64",
        "model.attention_options.kernel=3",
        "data.group=kidneys",
        "augment.gamma=[1, 2]",
        "evaluate.pictures=false",
        "question=a = b",
        "seed=6",
    ]
    run = load_run(path, overrides)
    assert (run.seed, run.model.rounds, run.model.dim) == (6, 2, 64)
    assert run.model.attention_options == {"heads": 4, "kernel": 3}
    assert (run.data.group, run.augment.gamma) == ("kidneys", (1.0, 2.0))
    assert (run.evaluate.pictures, run.question) == (False, "a = b")
    assert load_run(path, ["data.group="]).data.group is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", ["'seed'", "key=value"]),
        ("=3", ["key=value"]),
        ("", ["key=value"]),
        ("seed.x=1", ["seed is a single value"]),
        ("model.ronds=3", ["model.ronds=3", "did you mean 'rounds'?"]),
        ("model.rounds=[1", ["'[1' is not a YAML value"]),
        ("question=2020-30-01", ["'2020-30-01' is not a YAML value"]),
        ("model.rounds=!!python/name:os.system", ["not a YAML value"]),
        ("base=other.yml", ["other.yml: no such file"]),
        ("model=3", ["model", "not 3"]),
    ],
)
def test_a_wrong_override_is_quoted(tmp_path, override, words):
    sentence = refusal(write(tmp_path, "seed: 1"), override)
    assert all(word in sentence for word in words), sentence


def test_a_base_is_filled_up_group_by_group(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path, "name: below\nseed: 7\nmodel: {rounds: 1, dim: 64}", "below.yml")
    path = write(tmp_path, "base: ../below.yml\nmodel: {rounds: 3}", "deep/above.yml")
    run = load_run(path, ["model.dim=32"])
    assert (run.seed, run.model.rounds, run.model.dim) == (7, 3, 32)
    assert run.name == "above"
    assert load_run(path).model.dim == 64


def test_options_of_a_mechanism_replace_those_of_another(tmp_path):
    write(tmp_path, "model: {attention: a, attention_options: {heads: 4}}", "below.yml")
    path = write(tmp_path, "base: below.yml\nmodel: {attention: b, attention_options: {rank: 2}}")
    assert load_run(path).model.attention_options == {"rank": 2}


def test_a_base_has_no_base(tmp_path):
    write(tmp_path, "seed: 1", "lowest.yml")
    write(tmp_path, "base: lowest.yml", "below.yml")
    path = write(tmp_path, "base: below.yml")
    assert "below.yml has a base too; one level" in refusal(path)
    assert "one level" in refusal(write(tmp_path, "base: self.yml", "self.yml"))
    assert "nowhere.yml: no such file" in refusal(write(tmp_path, "base: nowhere.yml"))


@pytest.mark.parametrize(("group", "name"), leaves())
def test_every_decisive_setting_changes_the_identity(group, name):
    other, usual = changed(group, name), usual_of(name)
    assert other != usual
    same = (group, name) == ("data", "card")  # the card counts by its contents, not by its path
    assert (other.identity("hash") == usual.identity("hash")) == same


def test_the_card_counts_by_its_contents():
    assert Run().identity("one") != Run().identity("two")


@pytest.mark.parametrize(
    "content",
    [
        {"name": "other"},
        {"question": "why?"},
        {"machine": {"accelerator": "cpu", "devices": 2, "log_every": 1, "checkpoint_every": 9}},
        {"evaluate": {"protocols": ["EP2"], "support": "each", "shots": 3, "pictures": False}},
    ],
)
def test_what_does_not_touch_the_weights_does_not_touch_the_identity(content):
    run = Run.model_validate(content)
    assert run != Run()
    assert run.identity("hash") == Run().identity("hash")


def test_identity_knows_no_order_of_keys_and_no_spelling(tmp_path):
    first = write(tmp_path, "seed: 1\nmodel: {rounds: 2, attention_options: {a: 1, b: 2}}", "a.yml")
    text = "model: {attention_options: {b: 2, a: 1}, rounds: 2, dim: 256}\nseed: 1\n"
    second = load_run(write(tmp_path, text, "b.yml"))
    assert load_run(first).identity("h") == second.identity("h")
    assert len(second.identity("h")) == 10


def test_a_run_survives_being_written(tmp_path):
    run = load_run(write(tmp_path, "seed: 1\nmodel: {attention_options: {heads: 2}}"))
    again = load_run(write(tmp_path, yaml.safe_dump(run.model_dump(mode="json")), "again.yml"))
    assert again == run


def test_digest_is_that_of_another_machine():
    assert digest({"b": [1, 2.5], "a": None}) == digest({"a": None, "b": [1, 2.5]})
    assert digest({"b": [1, 2.5], "a": None})[:12] == "e57f5d378654"


def test_every_setting_says_what_it_is():
    for group in Run.model_fields:
        settings = getattr(Run(), group)
        fields = type(settings).model_fields if isinstance(settings, Strict) else {}
        assert all(field.description for field in fields.values()), group
