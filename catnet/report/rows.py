"""A file of tidy rows (CSV): whole or refused, and added to by one process at a time."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from catnet.errors import UserError, writing
from catnet.files import write_text

NAMES = (  # may look like numbers, and are none
    *("variant", "run", "question", "card", "setting", "policy", "support", "query", "organ"),
    *("model", "protocol", "metric"),
)
REMEDY = "delete it and give the same command again"


def read_rows(path: Path) -> pd.DataFrame:
    """Every row of the file; names stay text (`01` is not 1, `null` is a word), "" stays "".

    Raises `UserError` that names file and line for a line that is cut off, has too few or too many
    fields, or has no number in `value`; a damaged file is never read in part.
    """
    text = read_text(path)
    if not text:
        raise UserError(f"{path} is empty; {REMEDY}")
    check_lines(path, text)
    return pd.read_csv(
        StringIO(text),
        dtype=dict.fromkeys(NAMES, str),
        converters={"value": float},  # exact in every version of pandas
        keep_default_na=False,
    )


def append_rows(
    path: Path, rows: pd.DataFrame, *, instead: Sequence[str] = (), timeout: float = 60.0
) -> None:
    """Add rows to the file, or begin it; another process that reads sees all of them or none.

    Rows that share the new ones' values in the columns `instead` give way to them.

    Waits up to `timeout` seconds for a process that is adding. Raises `UserError` where it takes
    longer, where the columns are others than the file's (their order may be), where a value is no
    finite number, and where the file is damaged, which then stays as it is.
    """
    check_values(path, rows)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise UserError(
            f"{path}: another process has been adding rows for {timeout:g} s; wait for it to end"
        ) from None
    try:
        write_text(path, extended(path, rows, instead=list(instead)))
    finally:
        lock.release()


def extended(path: Path, rows: pd.DataFrame, *, instead: list[str]) -> str:
    """The file's text, as it is, with the new rows after it."""
    if not path.exists():
        return rows.to_csv(index=False, lineterminator="\n")
    text = read_text(path)
    former = read_rows(path)
    known = list(former.columns)
    odd = sorted(set(known) ^ set(rows.columns))
    if odd:
        raise UserError(
            f"{path}: its columns are not those of the new rows ({', '.join(odd)}); they answer "
            "another question, report them in another folder"
        )
    if instead:
        new = pd.MultiIndex.from_frame(rows[instead].drop_duplicates())
        stays = ~pd.MultiIndex.from_frame(former[instead]).isin(new)
        text = former[stays].to_csv(index=False, lineterminator="\n")
    return text + rows[known].to_csv(index=False, header=False, lineterminator="\n")


def read_text(path: Path, *, remedy: str = REMEDY) -> str:
    """The file's text; raises `UserError` where it cannot be read as UTF-8."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); evaluate the runs") from None
    try:
        if b"\0" in content:  # what some disks leave where the power failed
            raise UnicodeDecodeError("utf-8", content, content.index(b"\0"), len(content), "zeros")
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: is no text; {remedy}") from None


def check_lines(path: Path, text: str, *, remedy: str = REMEDY) -> None:
    """Raise `UserError`, which ends with the remedy, for the first line that is not whole."""
    if not text.endswith("\n"):
        last = text.count("\n") + 1
        raise UserError(f"{path}, line {last}: is cut off; {remedy}")
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        header = next(reader)
        if "value" not in header or len(set(header)) != len(header):
            raise UserError(f"{path}, line 1: is no header of tidy rows; {remedy}")
        for fields in reader:
            wrong = fault(fields, header)
            if wrong:
                raise UserError(f"{path}, line {reader.line_num}: {wrong}; {remedy}")
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; {remedy}") from None


def fault(fields: list[str], header: list[str]) -> str:
    """What is wrong with a line: the number of its fields, or no number where one belongs."""
    if len(fields) != len(header):
        return f"has {len(fields)} fields instead of {len(header)}"
    value = fields[header.index("value")]
    return "" if is_number(value) else f"value {value!r} is no number"


def is_number(text: str) -> bool:
    """Whether it reads as a finite number; Python's own `1_0` does not."""
    try:
        return "_" not in text and bool(np.isfinite(float(text)))
    except ValueError:
        return False


def check_values(path: Path, rows: pd.DataFrame) -> None:
    """Raise `UserError` for new rows that could not be read again."""
    if "value" not in rows.columns:
        raise UserError(f"{path}: the new rows have no column value; evaluate the runs again")
    bad = [value for value in rows["value"] if not is_number(str(value))]
    if bad:
        raise UserError(f"{path}: the new rows hold {bad[0]!r} for a number; evaluate them again")
