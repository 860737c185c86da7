"""Several queries with the same supports, here or in processes, and the summary of a folder.

DIR/QUERY_pred.nii.gz     the organs' numbers, on the query's own grid
   /QUERY_prob_N.nii.gz   with --probability, that of organ N
   /QUERY_pred.dcm        with --dicom-seg
   /summary.json          of every query: where from, organs (volume, confidence, slices), warnings
   /summary.csv           of these the organs, one a line
"""

import csv
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from io import StringIO
from pathlib import Path

import torch

from catnet.errors import UserError, writing
from catnet.files import alone, clear_named, write_text
from catnet.predict.plan import WRITTEN, Wanted, recorded
from catnet.predict.query import predict_query
from catnet.predict.session import Request, Session, open_session
from catnet.processes import follow, leave_signals_to_parent
from catnet.strict import read_json

SUMMARY, TABLE = "summary.json", "summary.csv"
COLUMNS = ("query", "number", "name", "volume_ml", "confidence", "slices")
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a query: a record for the summary, or the sentence that says why not."""

    name: str
    record: dict | None
    problem: str = ""


def predict(
    request: Request, wanted: Sequence[Wanted], *, jobs: int, keep_going: bool, watch: Watch
) -> Iterator[Outcome]:
    """Segment every query; each is whole and in the summary before the next one is given.

    Without `keep_going` a query that cannot be used raises its `UserError`.
    """
    folder = wanted[0].target.folder
    read_summary(folder)
    session = open_session(request)  # a mistake is said before there is a folder, or a process
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if jobs > 1 and len(wanted) > 1:
        work = in_processes(request, wanted, jobs=jobs, watch=watch)
    else:
        work = one_by_one(session, wanted, watch=watch)
    with (
        alone(folder, clear=partial(clear_named, names=WRITTEN)),
        recorded(wanted) as names,
        closing(work),
    ):
        for outcome in work:
            if outcome.record is not None:
                add_to_summary(folder, outcome.name, outcome.record)
                names.add(outcome.name)
            elif not keep_going:
                raise UserError(outcome.problem)
            yield outcome


def one_by_one(session: Session, wanted: Sequence[Wanted], *, watch: Watch) -> Iterator[Outcome]:
    """In this process."""
    for one in wanted:
        yield attempt(session, one, partial(watch, one.target.name))


def in_processes(
    request: Request, wanted: Sequence[Wanted], *, jobs: int, watch: Watch
) -> Iterator[Outcome]:
    """In so many processes, each with a model of its own."""
    count = min(jobs, len(wanted))
    pool = ProcessPoolExecutor(
        count,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=begin_process,
        initargs=(os.getpid(), max(1, (os.cpu_count() or 1) // count)),
    )
    try:
        futures = [pool.submit(attempt_there, request, one) for one in wanted]
        for done, future in enumerate(as_completed(futures), start=1):
            outcome = future.result()
            watch(outcome.name, done, len(wanted))
            yield outcome
    except BrokenProcessPool:
        raise UserError(
            f"{wanted[0].target.folder}: a process was killed, by lack of memory perhaps; lower "
            "--jobs, and give --again for what is there already"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def begin_process(parent: int, threads: int) -> None:
    """An interrupt is for the process that waits, and this one ends with it; threads are shared."""
    follow(parent)
    leave_signals_to_parent()
    torch.set_num_threads(threads)


def attempt_there(request: Request, one: Wanted) -> Outcome:
    """A query in a process of its own."""
    return attempt(process_session(request), one, lambda done, total: None)


@lru_cache(maxsize=1)
def process_session(request: Request) -> Session:
    """The session of a process, opened with its first query."""
    return open_session(request)


def attempt(session: Session, one: Wanted, watch: Callable[[int, int], None]) -> Outcome:
    """A query's record, or why there is none."""
    try:
        return Outcome(one.target.name, predict_query(session, one.path, one.target, watch))
    except UserError as error:
        return Outcome(one.target.name, None, str(error))


def add_to_summary(folder: Path, name: str, record: dict) -> None:
    """Add a query to the folder's summary, and write its table anew."""
    known = read_summary(folder) | {name: record}
    text = json.dumps(dict(sorted(known.items())), indent=2, ensure_ascii=False)
    write_text(folder / SUMMARY, text + "\n")
    table = StringIO()
    rows = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    rows.writeheader()
    for query, one in sorted(known.items()):
        rows.writerows({"query": query} | organ for organ in one["organs"])
    write_text(folder / TABLE, table.getvalue())


def read_summary(folder: Path) -> dict[str, dict]:
    """The queries of a folder whose labels are still there; none where there is no summary."""
    path = folder / SUMMARY
    try:
        known = read_json(path) if path.is_file() else {}
        json.dumps(known, ensure_ascii=False).encode()
        for one in known.values():
            [[organ[column] for column in COLUMNS[1:]] for organ in one["organs"]]
        return {name: one for name, one in known.items() if (folder / one["label"]).is_file()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        raise UserError(f"{path}: damaged; delete it, and predict with --again") from None
