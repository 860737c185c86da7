import os
import signal
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trials import assert_same, run, weights_of

from catnet.config import Run
from catnet.data import slices
from catnet.data.slices import MappedSlices, ResidentSlices, resident_bytes
from catnet.engine import Engine
from catnet.errors import UserError
from catnet.loading import begin, episodes, finish, has_room, place_cases, training_batch
from catnet.train import open_training

CPU = torch.device("cpu")
ENGINE = Engine(CPU, 0, 1, mixed=False)


def equal(one, other):
    return all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))


@pytest.mark.parametrize("loaders", [1, 2])
def test_loader_processes_change_no_bit_of_a_run(tiny, loaders):
    plain = run(tiny("name=plain", "machine.loaders=0"))
    assert_same(plain, run(tiny("name=ahead", f"machine.loaders={loaders}")))


def test_cases_held_on_the_device_change_no_bit_of_a_run(tiny):
    mapped = run(tiny("name=mapped", "machine.cases=mapped", "data.shots=2"))
    assert_same(mapped, run(tiny("name=resident", "machine.cases=resident", "data.shots=2")))


@pytest.mark.parametrize("settings", [(), ("data.labels=organs", "data.group=kidneys")])
def test_resident_slices_are_the_mapped_ones(tiny, settings):
    folder = tiny("train.batch=3", "data.shots=2", *settings)
    _, mapped = open_training(folder)
    resident = place_cases(mapped, Run(machine={"cases": "resident"}), engine=ENGINE)
    assert isinstance(mapped.slices, MappedSlices)
    assert isinstance(resident.slices, ResidentSlices)
    for step in range(5):
        one, other = (
            training_batch(source, folder.run, engine=ENGINE, step=step)
            for source in (mapped, resident)
        )
        assert equal(one, other)


def test_the_steps_come_in_order_from_where_they_start(tiny):
    folder = tiny("machine.loaders=2", "train.steps=7")
    _, source = open_training(folder)
    made = list(episodes(source, folder.run, engine=ENGINE, start=4))
    assert len(made) == 3
    for step, episode in zip((4, 5, 6), made, strict=True):
        assert equal(episode, training_batch(source, folder.run, engine=ENGINE, step=step))


def test_a_step_is_begun_without_the_device_and_finished_on_it(tiny):
    """What a loader process does for a GPU: pixels where they lie on the host, else numbers."""
    folder = tiny()
    _, source = open_training(folder)
    begun = begin(source, folder.run, engine=ENGINE, step=3)
    assert begun.episode is not None
    numbers = replace(begun, episode=None)
    resident = source.resident(CPU)
    assert equal(finish(begun, source, engine=ENGINE), finish(numbers, resident, engine=ENGINE))


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_slice_that_cannot_be_read_is_one_sentence(tiny, tiny_home, monkeypatch, loaders):
    folder = tiny(f"machine.loaders={loaders}")
    _, source = open_training(folder)

    def damaged(self, name):
        raise UserError(f"{self.folder}/{name}.npy: cannot be read")

    monkeypatch.setattr("catnet.data.store.Case.array", damaged)
    with pytest.raises(UserError, match=r"image\.npy: cannot be read$|supervoxels\.npy: cannot"):
        next(episodes(source, folder.run, engine=ENGINE, start=0))


def test_a_loader_process_that_is_killed_is_one_sentence(tiny, monkeypatch):
    folder = tiny("machine.loaders=1", "train.steps=50")
    _, source = open_training(folder)
    here = os.getpid()

    def die(self, generators):
        assert os.getpid() != here
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("catnet.data.episodes.EpisodeSource.draw", die)
    with pytest.raises(UserError, match=r"a loader process ended .* lower machine\.loaders"):
        next(episodes(source, folder.run, engine=ENGINE, start=0))


def test_not_too_many_arrays_stay_open(tiny, monkeypatch):
    monkeypatch.setattr(slices, "OPEN", 2)
    cases, _ = open_training(tiny())
    mapped = MappedSlices(cases)
    places = torch.tensor([[case, 3] for case in (0, 1, 2, 1, 0)])
    taken = mapped.take("image", places)
    assert len(mapped.opened) == 2
    for (case, row), pixels in zip(places.tolist(), taken, strict=True):
        assert np.array_equal(pixels.numpy(), cases[case].image[row])


def test_a_gpu_holds_the_cases_where_it_has_room(tiny, monkeypatch):
    cases, _ = open_training(tiny())
    needed = resident_bytes(cases)
    assert needed == 6 * 12 * 64 * 64 * 2 * 4
    assert not has_room(cases, CPU)
    for free, expected in ((4 * needed, True), (needed, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert has_room(cases, torch.device("cuda", 0)) is expected


def statistics_of(folder):
    return [v for k, v in folder.items() if k.endswith(("running_mean", "running_var"))]


def test_frozen_statistics_stay_as_they_are(tiny):
    frozen = run(tiny("train.batch_norm=frozen"))
    plain = run(tiny())
    assert weights_of(frozen) != weights_of(plain)
    for folder, moves in ((frozen, False), (plain, True)):
        state = load_file(folder.model / "model.safetensors")
        found = statistics_of(state)
        assert found
        assert any(not torch.isin(v, torch.tensor([0.0, 1.0])).all() for v in found) is moves


def test_the_step_is_compiled_where_a_run_asks(tiny, monkeypatch):
    """The compiler cannot look through the tests' type checks, so it is not let in here."""
    asked = []
    monkeypatch.setattr(torch, "compile", lambda module: asked.append(module) or module)
    plain = run(tiny("name=plain"))
    assert asked == []
    assert_same(plain, run(tiny("name=compiled", "machine.compile=true")))
    assert len(asked) == 1
