"""A sweep does what is missing and nothing else, whatever happens to its runs."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console
from trials import complaint, end_of

from catnet.cli import main
from catnet.commands.sweep import conclude
from catnet.errors import UserError
from catnet.files import alone
from catnet.question import load_question
from catnet.report.rows import read_rows
from catnet.report.study import parted
from catnet.runs import write_settings
from catnet.sweep import jobs as module
from catnet.sweep.board import board, clock
from catnet.sweep.jobs import job_command
from catnet.sweep.local import run_local, share_of_machine
from catnet.sweep.store import Sweep, add_rows, open_sweep, write_sweep

ONE = ("model.rounds=0", "seed=0")


def sweep_of(path, *settings):
    return Sweep(load_question(path, settings))


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def python(code):
    """A command for a job that does nothing else."""
    return lambda job: [sys.executable, "-c", f"number = {job.number}\n{code}"]


def states_of(sweep, command, *, at_once):
    return list(run_local(sweep.jobs, command=command, at_once=at_once, gpus=0))


@pytest.fixture
def done(asked):
    """The question with its first network trained and evaluated."""
    main(["sweep", str(asked), *ONE, "--only", "1"])
    return asked


def test_runs_are_trained_evaluated_and_recorded_once(asked, capsys):
    status, out, _ = end_of(["sweep", asked, "seed=0", "--jobs", "2"], capsys)
    sweep = sweep_of(asked, "seed=0")
    assert status == 0
    assert all(job.finished for job in sweep.jobs)
    assert "2 runs of rounds, 0 finished" in out
    assert Counter(line.split()[4] for line in out.splitlines() if " of 2 " in line) == {
        "running:": 2,
        "done:": 2,
    }
    before = files(sweep.folder.parents[1])
    status, out, _ = end_of(["sweep", asked, "seed=0"], capsys)
    assert (status, "2 runs of rounds, 2 finished" in out) == (0, True)
    after = files(sweep.folder.parents[1])
    changed = {path for path in after if after[path] != before.get(path)}
    written = {sweep.folder / name for name in ("sweep.json", "rows.csv", "costs.csv")}
    assert changed == written

    rows = read_rows(sweep.folder / "rows.csv")
    measured = rows[rows["metric"] == "dice"]
    key = ["variant", "seed", "model", "protocol", "support", "query", "organ", "metric"]
    assert not rows.duplicated(key).any()
    assert set(measured["variant"]) == {"rounds=0", "rounds=1"}
    assert set(measured["model.rounds"]) == {0, 1}
    costs = pd.read_csv(sweep.folder / "costs.csv")
    assert set(costs["metric"]) == {"episode_seconds", "memory_mib", "parameters"}
    assert (costs["value"] > 0).all()
    assert not costs.isna().any(axis=None)


def test_a_run_of_another_name_is_recognized(done, capsys):
    other = done.rename(done.with_name("other.yml"))
    assert [job.finished for job in sweep_of(other).jobs] == [True, False, False, False]
    end_of(["sweep", other, *ONE], capsys)
    sweep = sweep_of(other, *ONE)
    assert sweep.jobs[0].folder.path.name.startswith("rounds-")
    assert set(read_rows(sweep.folder / "rows.csv")["question"]) == {"other"}


def test_a_run_that_has_begun_goes_on_under_its_own_settings(asked):
    job = sweep_of(asked, *ONE).jobs[0]
    write_settings(job.folder)
    other = replace(job.folder, run=job.folder.run.model_copy(update={"name": "mine"}))
    write_settings(other)
    assert "name: rounds" in (job.folder.path / "run.yml").read_text()


def test_one_network_serves_the_variants_that_differ_in_evaluation(asked):
    settings = (*ONE, "vary.evaluate.support=[extra,each]")
    main(["sweep", str(asked), *settings, "--only", "1"])
    sweep = sweep_of(asked, *settings)
    assert [len(job.variants) for job in sweep.jobs] == [2]
    rows = read_rows(sweep.folder / "rows.csv")
    assert set(rows["variant"]) == {"rounds=0, support=extra", "rounds=0, support=each"}
    assert len(list((sweep.jobs[0].folder.path / "evaluations").iterdir())) == 2


def test_a_finished_sweep_is_found_again(done, capsys):
    end_of(["sweep", done, *ONE], capsys)
    study = open_sweep(sweep_of(done, *ONE).folder)
    assert (study.name, study.question) == ("rounds", "How many?")
    assert study.varied == ("model.rounds", "seed")
    stored = read_rows(sweep_of(done, *ONE).folder / "rows.csv")
    measured, costs = parted(study.rows())
    pd.testing.assert_frame_equal(measured.reset_index(drop=True), stored, check_dtype=False)
    assert len(costs) == len(read_rows(sweep_of(done, *ONE).folder / "costs.csv")) == 3


def test_rows_of_a_run_give_way_to_its_new_ones(done):
    sweep = sweep_of(done, *ONE)
    path = sweep.folder / "rows.csv"
    before = path.read_bytes()
    add_rows(sweep, sweep.jobs[0])
    assert path.read_bytes() == before
    rows = read_rows(path)
    rows.assign(value=7.0).to_csv(path, index=False)
    add_rows(sweep, sweep.jobs[0])
    assert path.read_bytes() == before


def test_a_damaged_file_of_rows_is_told_before_anything_begins(done, capsys):
    path = sweep_of(done, *ONE).folder / "rows.csv"
    path.write_text(path.read_text()[:-5])
    for command in (["sweep", done, *ONE], ["sweep", done, *ONE, "--only", "1"]):
        sentence = complaint(command, capsys)
        assert sentence.startswith(f"{path}, line ")
        assert sentence.endswith("is cut off; delete it and give the same command again")
    path.unlink()
    status, out, _ = end_of(["sweep", done, *ONE], capsys)
    assert (status, "1 runs of rounds, 1 finished" in out) == (0, True)
    assert len(read_rows(path))


def test_rows_that_cannot_be_added_make_no_run_fail_and_hide_none(asked, capsys):
    """Whether a run is finished is told by its folder, and the failed ones are told of first."""
    main(["sweep", str(asked), *ONE, "--only", "1"])
    sweep = sweep_of(asked, "seed=0")
    sweep.folder.mkdir(parents=True)
    (sweep.folder / "rows.csv").write_text("damaged\n")
    with pytest.raises(UserError, match=r"rows.csv, line 1: .*; delete it and give the same"):
        conclude(sweep)
    out = capsys.readouterr().out
    assert "run 2 of 2 failed" in out
    assert "run 1 of 2 failed" not in out


def test_the_same_runs_by_other_names_have_rows_of_their_own(asked):
    one = sweep_of(asked, "model.rounds=0", "seed=[0]").folder
    two = sweep_of(asked, "model.rounds=0", "seed=0", "vary.train.steps=[4]").folder
    assert one != two


def test_a_question_that_changes_meanwhile_is_noticed(asked, capsys):
    """A job is asked for by what it is, not by its place in a file that may change."""
    job = sweep_of(asked).jobs[1]
    asked.write_text(asked.read_text().replace("- 1\n", "- 2\n"))
    command = job_command(asked, [], job)
    assert "has its file changed" in complaint(command[3:], capsys)


def test_what_the_list_says_is_how_it_is(done):
    jobs = sweep_of(done).jobs
    for job in jobs[1:]:
        job.folder.path.mkdir()
    jobs[1].log.write_text("catnet: an old complaint\n--- attempt of now\n")
    jobs[2].log.write_text("--- attempt of then\n--- attempt of now\ncatnet: no luck\n")
    with alone(jobs[3].folder.path):
        assert [job.state for job in jobs] == ["done", "waiting", "failed", "running"]
    (jobs[0].folder.path / "provenance.json").write_text("{")
    assert jobs[0].state == "waiting"


def test_a_run_that_was_made_elsewhere_is_found_in_the_end(done, capsys):
    job = sweep_of(done, *ONE).jobs[0]
    other = job.folder.path.rename(job.folder.path.with_name(f"mine-{job.folder.identity}"))
    assert sweep_of(done, *ONE).jobs[0].folder.path == other
    end_of(["sweep", done, *ONE], capsys)
    assert open_sweep(sweep_of(done, *ONE).folder).members[0].folder.path == other


def test_a_job_waits_for_another_that_is_at_the_same_run(asked, capsys):
    job = sweep_of(asked, *ONE).jobs[0]
    with alone(job.folder.path):
        waiting = subprocess.Popen(job_command(asked, [*ONE], job), stdout=subprocess.PIPE)
        time.sleep(8)
        assert waiting.poll() is None
        assert not job.folder.trained
    assert waiting.wait(timeout=120) == 0
    assert job.finished


def test_a_failed_run_stops_no_other(asked, capsys, monkeypatch):
    fails = python("import sys\nif number == 2: sys.exit('catnet: no luck; try again')")
    sweep = sweep_of(asked)
    seen = states_of(sweep, fails, at_once=2)
    assert seen[-1] == {1: "done", 2: "failed", 3: "done", 4: "done"}
    assert all(list(states.values()).count("running") <= 2 for states in seen)
    assert seen[0] == {1: "running", 2: "running", 3: "waiting", 4: "waiting"}

    monkeypatch.setattr("catnet.commands.sweep.job_command", lambda file, settings, job: fails(job))
    write_sweep(sweep, command="again")
    status, out, err = end_of(["sweep", asked], capsys)
    assert status == 2
    assert "4 of 4 runs failed; mend what they say" in err  # the others did nothing, and said so
    log = sweep.jobs[1].log
    assert f"no luck; try again; log: {log}" in out
    assert out.count("ended without a word; see its log") == 3
    assert "run 2 of 4 failed: " in out
    assert "catnet report" not in out
    assert "no luck" in log.read_text()


def test_a_run_without_a_last_word_points_to_its_log(asked):
    sweep = sweep_of(asked, *ONE)
    states_of(sweep, python("raise SystemExit(3)"), at_once=1)
    assert module.error_of(sweep.jobs[0]) == "ended without a word; see its log"


def test_what_still_runs_is_ended_with_the_sweep(asked, tmp_path):
    mark = tmp_path / "pid"
    code = f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(99)"
    engine = run_local(sweep_of(asked, *ONE).jobs, command=python(code), at_once=1, gpus=0)
    next(engine)
    while not (mark.exists() and mark.read_text()):
        time.sleep(0.01)
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)


def test_a_job_ends_with_the_process_that_started_it(asked, tmp_path):
    """Also where that one is killed and cannot end its jobs."""
    mark = tmp_path / "pid"
    job = sweep_of(asked, "train.steps=100000", *ONE).jobs[0]
    command = job_command(asked, ["train.steps=100000", *ONE], job)
    code = f"""
import os, subprocess
follow = os.environ | {{"CATNET_FOLLOW": str(os.getpid())}}
job = subprocess.Popen({command!r}, env=follow)
open({str(mark)!r}, "w").write(str(job.pid))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    child = int(mark.read_text())
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the job went on alone")


def test_the_cores_and_gpus_are_shared(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    assert share_of_machine(1, at_once=4, gpus=0) == {"OMP_NUM_THREADS": "2"}
    share = [share_of_machine(slot, at_once=3, gpus=2) for slot in range(3)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in share] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert "CUDA_VISIBLE_DEVICES" not in share_of_machine(0, at_once=2, gpus=2)


def test_the_board_tells_how_far_every_run_is(done):
    sweep = sweep_of(done)
    log = sweep.jobs[1].folder.path
    log.mkdir()
    (log / "log.jsonl").write_text('{"step": 1, "loss": 0.25}\n{"step": 2, "loss": 0.125}\n')
    (log / "timing.jsonl").write_text('{"step": 2, "seconds": 40.0}\n')
    sweep.jobs[2].folder.path.mkdir()
    sweep.jobs[2].log.write_text("catnet: [oh] dear\n")
    states = {1: "done", 2: "running", 3: "failed", 4: "waiting"}
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(board(sweep, states))
    text = console.export_text()
    assert "rounds, 4 runs: 1 waiting, 1 running, 1 done, 1 failed" in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.split()}
    assert lines["1"][1:6] == ["rounds=0", "0", "0", "done", "4/4"]
    assert lines["2"][1:8] == ["rounds=0", "0", "1", "running", "2/4", "0.125", "2:40"]
    assert lines["4"][1:6] == ["rounds=1", "0", "1", "waiting", "0/4"]
    assert "[oh] dear" in text
    assert [clock(s) for s in (5.0, 125.0, 3600.0)] == ["0:05", "2:05", "1:00:00"]


@pytest.mark.parametrize("command", ["sweep", "report"])
def test_what_only_looks_loads_no_torch(command):
    code = f"import sys, catnet.commands.{command}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_list_writes_nothing(asked, capsys):
    status, out, _ = end_of(["sweep", asked, "--list"], capsys)
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 4)
    assert lines[1].startswith("run 2 of 4 waiting: model.rounds=0 seed=1 (rounds-")
    assert not sweep_of(asked).folder.parents[1].exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "0"], "--only 0: this question has the runs 1 to 4"),
        (["--only", "0123456789"], "has its file changed since the sweep began?"),
        (["--ray", "asked.yml"], "--ray takes asked.yml for its address"),
        (["vary.train=[{steps: 2},{steps: 3}]"], "vary.train is a group of settings"),
        (["--jobs", "0"], "0 is no number of runs"),
        (["model.round=3"], "model.round is not a setting"),
        (["data.card=nowhere"], "card 'nowhere' is not in"),
    ],
)
def test_a_mistake_is_one_sentence(asked, arguments, words, capsys):
    assert words in complaint(["sweep", asked, *arguments], capsys)


def test_a_damaged_sweep_is_not_opened(done, capsys):
    end_of(["sweep", done, *ONE], capsys)
    path = sweep_of(done, *ONE).folder / "sweep.json"
    for text in ("", "[]", '{"runs": [{}]}', path.read_text()[:-40]):
        path.write_text(text)
        with pytest.raises(UserError, match=r"sweep.json: cannot be read .* give `catnet sweep`"):
            open_sweep(path.parent)
