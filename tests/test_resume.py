import resource
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load
from trials import assert_same, finish, killed, run, start, wait_for_line, weights_of

from catnet.checkpoint import checkpoints
from catnet.cli import main
from catnet.errors import UserError
from catnet.model.networks import initial_model


def damage(path, how):
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "garbage":
        path.write_bytes(b"\xff" * 64 + content[64:])


@pytest.mark.parametrize(
    ("stop", "optimizer"), [(2, "sgd"), (5, "sgd"), (5, "adamw"), (6, "sgd"), (9, "adamw")]
)
def test_resumed_equals_uninterrupted_bit_for_bit(stop, optimizer, tiny):
    settings = ("train.steps=9", f"train.optimizer={optimizer}", "train.rate=0.003")
    straight = run(tiny("name=straight", *settings))
    again = killed(tiny("name=again", *settings), stop=stop)
    said = []
    run(again, say=said.append)
    saved = (stop - 1) // 3 * 3
    assert [text.partition(" (")[0] for text in said] == (
        [f"going on from step {saved}"] if saved else []
    )
    assert_same(straight, again)


def test_a_stage_that_is_fixed_stays_as_it_was(tiny):
    settings = ("model.prior=fixed", "train.optimizer=adamw")
    straight = run(tiny("name=straight", *settings))
    end = load(weights_of(straight))
    network = initial_model(straight.run.model, seed=straight.run.seed)
    fixed = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    same = {name for name, weight in network.named_parameters() if end[name].equal(weight)}
    assert fixed
    assert same == fixed
    assert_same(straight, run(killed(tiny("name=again", *settings), stop=5)))


def test_an_encoder_that_leaves_layers_out_at_random_leaves_out_the_same(tiny):
    settings = ("model.encoder=efficientnet-b0", "train.steps=5")
    straight = run(tiny("name=straight", *settings))
    torch.manual_seed(7)
    assert_same(straight, run(killed(tiny("name=again", *settings), stop=5)))


def test_a_run_may_be_killed_again_and_again(tiny):
    straight = run(tiny("name=straight"))
    again = tiny("name=again")
    for stop in (1, 4, 5, 6):
        killed(again, stop=stop)
    assert_same(straight, run(again))


def test_a_process_that_is_killed_ends_bit_equal(tiny, tiny_home):
    settings = ("train.steps=40", "machine.checkpoint_every=4")
    straight, again = tiny("name=straight", *settings), tiny("name=again", *settings)
    finish(start(tiny_home, "name=straight", *settings))
    process = start(tiny_home, "name=again", *settings)
    wait_for_line(process, again, step=6)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not again.trained
    _, err = finish(start(tiny_home, "name=again", *settings))
    assert "going on from step" in err
    assert_same(straight, again)


def test_a_finished_run_is_left_alone(tiny, tiny_home, capsys):
    command = ["train", str(tiny_home / "tiny.yml"), "train.steps=2"]
    main(command)
    folder = tiny("train.steps=2")
    assert capsys.readouterr().out == f"trained: {folder.path}\n"

    def files():
        found = {path: path.stat() for path in folder.path.rglob("*")}
        return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}

    before = files()
    main([*command, "machine.log_every=7", "question=another"])
    assert capsys.readouterr().out == f"already trained: {folder.path}\n"
    assert files() == before


def test_what_a_run_leaves_behind(tiny):
    folder = run(tiny("train.steps=7"))
    assert {path.name for path in folder.path.iterdir()} == {
        *("run.yml", "card.yml", "provenance.json", "cost.json", "timing.jsonl"),
        *("log.jsonl", "tensorboard", "checkpoints", "model"),
    }
    assert [path.name for path in checkpoints(folder.checkpoints)] == [
        "step-00000003.safetensors",
        "step-00000006.safetensors",
    ]
    everything = [path for path in folder.path.rglob("*") if path.is_file()]
    assert {path.name for path in everything if path.name.startswith(".")} <= {".lock"}
    assert len({path.stat().st_mode for path in everything}) == 1  # the weights can be read too


def test_a_damaged_checkpoint_is_passed_over_aloud(tiny):
    straight = run(tiny("name=straight", "train.steps=9"))
    for how in ("truncated", "empty", "garbage"):
        again = killed(tiny(f"name={how}", "train.steps=9"), stop=8)
        older, newer = checkpoints(again.checkpoints)
        damage(newer, how)
        said = []
        run(again, say=said.append)
        assert_same(straight, again)
        assert said[0].startswith(f"{newer}: damaged checkpoint")
        assert said[0].endswith("; trying the checkpoint before it")
        assert said[1] == f"going on from step 3 ({older})"


def test_only_damaged_checkpoints_are_the_users_to_mend(tiny):
    folder = killed(tiny("train.steps=9"), stop=8)
    older, newer = checkpoints(folder.checkpoints)
    damage(older, "truncated")
    damage(newer, "empty")
    said = []
    with pytest.raises(UserError, match=rf"^{older}: damaged checkpoint .*; delete it$"):
        run(folder, say=said.append)
    assert len(said) == 1
    assert said[0].startswith(str(newer))
    older.unlink()
    newer.unlink()
    assert run(folder).trained


def test_a_checkpoint_of_another_run_is_refused(tiny):
    folder, other = tiny("train.steps=9"), tiny("train.steps=9", "seed=1")
    killed(folder, stop=5)
    killed(other, stop=5)
    (path,) = checkpoints(folder.checkpoints)
    shutil.copy(checkpoints(other.checkpoints)[0], path)
    with pytest.raises(UserError, match=f"belongs to run {other.identity}, not {folder.identity}"):
        run(folder)


def test_a_full_disk_keeps_the_checkpoint_before(tiny):
    folder = killed(tiny(), stop=4)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(UserError, match=r"step-00000006.safetensors: cannot be written \("):
            run(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [path.name for path in folder.checkpoints.iterdir()] == ["step-00000003.safetensors"]
    assert_same(run(tiny("name=straight")), run(folder))


def test_weights_that_were_cut_off_are_no_trained_network(tiny):
    folder = tiny("train.steps=2")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(UserError, match=r"model.safetensors: cannot be written \("):
            run(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert not folder.trained
    assert run(folder).trained


def test_other_data_than_a_run_was_begun_with_is_refused(tiny, tiny_home, tmp_path, monkeypatch):
    folder = killed(tiny(), stop=5)
    shutil.copytree(tiny_home / "data", tmp_path / "changed")
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "changed"))
    shutil.rmtree(tmp_path / "changed" / "tiny" / "6")
    with pytest.raises(UserError, match="or their supervoxels have changed since this run"):
        run(folder)
    shutil.copytree(tiny_home / "data" / "tiny" / "6", tmp_path / "changed" / "tiny" / "6")
    assert run(folder).trained


def test_supervoxels_of_another_card_are_refused(tiny):
    folder = tiny()
    other = folder.card.supervoxels.model_copy(update={"min_size": 99})
    card = folder.card.model_copy(update={"supervoxels": other})
    with pytest.raises(UserError, match="cut with min_size 100, card tiny says 99; run `catnet su"):
        run(replace(folder, card=card))
