import pytest
from pydantic import Field

from catnet.errors import UserError
from catnet.strict import Strict, check, read_yaml


class Inner(Strict):
    rate: float = 1.0
    steps: int = Field(3, ge=1)


class Outer(Strict):
    title: str
    inner: Inner = Inner()
    perhaps: Inner | None = None


def write(tmp_path, content):
    path = tmp_path / "settings.yml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def complaint(path):
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refusal(content):
    with pytest.raises(UserError) as caught:
        check(Outer, content, source="here.yml")
    assert str(caught.value).startswith("here.yml: ")
    return str(caught.value)


def test_settings_are_read_and_cannot_be_changed():
    outer = check(Outer, {"title": "a", "inner": {"rate": 2}}, source="here")
    assert (outer.inner.rate, outer.inner.steps) == (2.0, 3)
    with pytest.raises(ValueError, match="frozen"):
        outer.inner.rate = 3.0


def test_a_misspelt_name_is_told_before_the_name_that_is_missing():
    assert "titel is not a setting; did you mean 'title'?" in refusal({"titel": "a"})


@pytest.mark.parametrize("group", ["inner", "perhaps"])
def test_names_are_looked_up_in_their_own_group(group):
    text = refusal({"title": "a", group: {"rat": 1}})
    assert f"{group}.rat is not a setting; did you mean 'rate'?" in text


def test_a_name_like_no_other_gets_the_list():
    assert "xyz is not a setting; known are title, inner, perhaps" in refusal(
        {"title": "a", "xyz": 1}
    )


def test_a_missing_name():
    assert "title is missing; add it" in refusal({})


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        ({"steps": "many"}, ["inner.steps", "integer", "not 'many'"]),
        ({"steps": 0}, ["inner.steps", "greater than or equal to 1", "not 0"]),
        ({"steps": 1.5}, ["inner.steps", "integer", "not 1.5"]),
        ({"rate": [1]}, ["inner.rate", "number", "not [1]"]),
        ({"rate": float("nan")}, ["inner.rate", "finite"]),
        ({"rate": float("inf")}, ["inner.rate", "finite"]),
        (5, ["inner", "Inner", "not 5"]),
        (None, ["inner", "not None"]),
    ],
)
def test_a_wrong_value_is_shown_with_its_key(inner, words):
    text = refusal({"title": "a", "inner": inner})
    assert all(word in text for word in words), text


def test_a_long_value_is_cut():
    assert len(refusal({"title": ["x" * 1000]})) < 200


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", ["line 3", "mend that line"]),
        ("a: 1\n\tb: 2\n", ["line 2", "mend that line"]),
        ("a: !!python/object/apply:os.getcwd []\n", ["line 1", "python/object"]),
        ("a: !!python/name:os.system\n", ["line 1", "python/name"]),
        ("a: 1\nb: 2\na: 3\n", ["line 3", "'a' stands twice"]),
        ("train:\n  rate: 1\n  steps: 2\n  rate: 3\n", ["line 4", "'rate' stands twice"]),
        ("a: 2020-30-01\n", ["month", "mend"]),
        ("[" * 5000, ["not valid YAML"]),
        ("a: 1\n---\nb: 2\n", ["line 2", "mend"]),
        ("", ["key: value"]),
        ("# a comment alone\n", ["key: value"]),
        ("- 1\n- 2\n", ["key: value"]),
        ("just a sentence\n", ["key: value"]),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00", ["cannot be read", "YAML text file"]),
        (b"\x00\x01\x02", ["not valid YAML"]),
        ("größe: 1\n".encode("latin-1"), ["cannot be read", "YAML text file"]),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, content, words):
    text = complaint(write(tmp_path, content))
    assert all(word in text for word in words), text


def test_a_missing_file_and_a_folder(tmp_path):
    assert "no such file" in complaint(tmp_path / "nowhere.yml")
    assert "cannot be read" in complaint(tmp_path)


def test_text_of_every_language_and_a_byte_order_mark_are_read(tmp_path):
    path = write(tmp_path, "\ufeffgröße: größer\n".encode())
    assert read_yaml(path) == {"größe": "größer"}


@pytest.mark.parametrize(
    "text", ["a: &a {m: *a}\n", "a: &a [1]\nb: [*a, *a]\n", "a: &a {x: 1}\n<<: *a\n"]
)
def test_aliases_are_refused_because_they_can_unfold_without_end(tmp_path, text):
    with pytest.raises(UserError, match="aliases are not read"):
        read_yaml(write(tmp_path, text))
