import re
import threading
from pathlib import Path

import pandas as pd
import pytest
from fakes import fake_rows
from filelock import FileLock

from catnet.errors import UserError
from catnet.report import rows as module
from catnet.report.rows import append_rows, read_rows
from catnet.report.study import parted


@pytest.fixture
def rows():
    return fake_rows({"rounds=1": (1, 50)}, patients=2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report" / "rows.csv"


def test_what_is_written_is_read_bit_for_bit(rows, path):
    append_rows(path, rows)
    pd.testing.assert_frame_equal(read_rows(path), rows)


def test_names_stay_text(rows, path):
    names = {"run": "007", "support": "1+2", "query": "01", "setting": "1", "variant": "3"}
    append_rows(path, rows.assign(**names, question="null", card='say "a, b"'))
    read = read_rows(path)
    assert read[list(names)].drop_duplicates().values.tolist() == [list(names.values())]
    assert set(read["question"]) == {"null"}
    assert set(read["card"]) == {'say "a, b"'}
    assert read["fold"].dtype == "int64"
    assert (read["model.rounds"] == 1).all()


def test_the_line_of_the_readme_reads_names_exactly(rows, path):
    names = {"variant": "3", "support": "1+2", "query": "01", "setting": "1", "question": "null"}
    measured, costs = parted(rows.assign(**names))
    append_rows(path, measured)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (line,) = re.findall(r"^pandas\.read_csv\(.*\)$", readme, re.MULTILINE)
    read = eval(line.replace(".../rows.csv", str(path)), {"pandas": pd})
    pd.testing.assert_frame_equal(read, read_rows(path))
    assert set(read["query"]) == {"01"}
    assert set(read["question"]) == {"null"}
    append_rows(path.with_name("costs.csv"), costs)
    for file in (path, path.with_name("costs.csv")):
        plain = pd.read_csv(file).drop(columns="question")  # the word null is its only flaw
        assert not plain.isna().any(axis=None)


def test_adding_keeps_what_is_there_byte_for_byte(rows, path):
    append_rows(path, rows)
    before = path.read_bytes()
    more = rows.assign(run="another", variant="rounds=2")
    append_rows(path, more[more.columns[::-1]])
    assert path.read_bytes().startswith(before)
    pd.testing.assert_frame_equal(read_rows(path), pd.concat([rows, more], ignore_index=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.drop(columns="model.rounds"),
        lambda rows: rows.assign(**{"model.heads": 8}),
        lambda rows: rows.rename(columns={"model.rounds": "model.heads"}),
    ],
)
def test_other_columns_are_refused(rows, path, change):
    append_rows(path, rows)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"rows\.csv.*model\.") as found:
        append_rows(path, change(rows))
    assert "another question" in str(found.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "many"])
def test_a_row_that_could_not_be_read_again_is_not_written(rows, path, value):
    bad = rows.assign(value=[value] + [1.0] * (len(rows) - 1))
    with pytest.raises(UserError, match="number"):
        append_rows(path, bad)
    assert not path.exists()


def damaged(text):
    lines = text.splitlines(keepends=True)
    third = lines[2]
    yield "cut", text[:-5], len(lines), "cut off"
    yield "cut in a field before", text.rstrip("\n").rpartition(",")[0], len(lines), "cut off"
    yield "no end", text[:-1], len(lines), "cut off"
    yield "a field less", text.replace(third, third.partition(",")[2], 1), 3, "fields"
    yield "a field more", text.replace(third, "x," + third, 1), 3, "fields"
    word = third.rpartition(",")[0] + ",\n"
    yield "no number", text.replace(third, word, 1), 3, "no number"
    yield "an empty line", text.replace(third, "\n" + third, 1), 3, "fields"
    yield "two at once", text.replace(third, third[:40] + third, 1), 3, "fields"
    yield "zeros", text.replace(third, "\0" * 30 + third, 1), 3, "no text"
    yield "no header", text.partition("\n")[2], 1, "header"
    yield "an open quote", text.replace(third, '"' + third, 1), None, ""


CASES = ("cut", "cut in a field before", "no end", "a field less", "a field more", "no number")
CASES += ("an empty line", "two at once", "zeros", "no header", "an open quote")


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_file_is_refused_with_its_line_and_stays(rows, path, case):
    ordered = rows[[*(name for name in rows.columns if name != "value"), "value"]]
    append_rows(path, ordered)
    found = {name: rest for name, *rest in damaged(path.read_text())}
    text, line, reason = found[case]
    path.write_text(text)
    where = "line" if line is None else f"line {line}:"
    for act in (read_rows, lambda path: append_rows(path, ordered)):
        with pytest.raises(UserError) as error:
            act(path)
        assert f"{path}, {where}" in str(error.value)
        assert reason in str(error.value)
    assert path.read_text() == text


def test_files_that_are_none(path, rows):
    with pytest.raises(UserError, match=r"rows\.csv: cannot be read"):
        read_rows(path)
    append_rows(path, rows)
    path.write_bytes(path.read_bytes().replace(b"liver", b"l\xffver", 1))
    with pytest.raises(UserError, match=r"rows\.csv, line 2: is no text"):
        read_rows(path)
    path.write_text("")
    with pytest.raises(UserError, match="empty"):
        read_rows(path)


def test_a_write_that_breaks_off_leaves_the_file(rows, path, monkeypatch):
    append_rows(path, rows)
    before = path.read_bytes()

    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("catnet.files.os.replace", broken)
    with pytest.raises(UserError, match="free space"):
        append_rows(path, rows.assign(run="another"))
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} <= {"rows.csv", ".rows.csv.lock"}


def test_another_process_is_waited_for_but_not_forever(rows, path):
    append_rows(path, rows)
    lock = FileLock(path.with_name(".rows.csv.lock"))
    with lock, pytest.raises(UserError, match="another process"):
        append_rows(path, rows, timeout=0.05)
    append_rows(path, rows.assign(run="another"), timeout=0.05)
    assert len(read_rows(path)) == 2 * len(rows)


def test_nothing_is_lost_where_many_add_at_once(rows, path):
    names = [f"run-{number}" for number in range(8)]
    threads = [
        threading.Thread(target=append_rows, args=(path, rows.assign(run=name))) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = read_rows(path)["run"].value_counts().to_dict()
    assert counts == dict.fromkeys(names, len(rows))


def test_every_name_of_a_row_is_kept_as_text(rows):
    words = {name for name in rows.columns if pd.api.types.is_string_dtype(rows[name])}
    assert words == set(module.NAMES)
