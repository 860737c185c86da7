"""The same runs on a Ray cluster of a head and two nodes, one of which dies on the way."""

import os
import sys
import threading
import time

import pytest
from trials import complaint, end_of

from catnet.errors import UserError
from catnet.question import load_question
from catnet.report.rows import read_rows
from catnet.sweep.cluster import connect
from catnet.sweep.store import Sweep

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
SLOW = ("train.steps=250", "machine.checkpoint_every=5")


@pytest.fixture
def cluster(monkeypatch):
    """A head that takes no work, and two nodes that take a run each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    yield made, nodes
    made.shutdown()


def kill_one(made, nodes, sweep):
    """Wait until two runs are in flight and have saved something, then kill a node."""

    def in_flight():
        return [
            job
            for job in sweep.jobs
            if not job.folder.trained and list(job.folder.checkpoints.glob("step-*"))
        ]

    end = time.monotonic() + 240
    while len(in_flight()) < 2:
        assert time.monotonic() < end, "two runs never were in flight"
        time.sleep(0.05)
    made.remove_node(nodes[0], allow_graceful=False)


@pytest.mark.timeout(560)
@pytest.mark.slow
def test_every_run_ends_once_though_a_node_dies(asked, cluster, capsys):
    made, nodes = cluster
    sweep = Sweep(load_question(asked, [*SLOW, "seed=0"]))
    killer = threading.Thread(target=kill_one, args=(made, nodes, sweep))
    killer.start()
    status, out, err = end_of(["sweep", asked, *SLOW, "seed=0", "--ray", made.address], capsys)
    killer.join()
    assert status == 0, out + err
    assert all(job.finished for job in sweep.jobs)
    logs = [job.log.read_text() for job in sweep.jobs]
    assert [log.count("trained: ") for log in logs] == [1, 1]  # none twice, none lost
    assert sum("going on from step" in log for log in logs) == 1
    rows = read_rows(sweep.folder / "rows.csv")
    key = ["variant", "seed", "model", "protocol", "support", "query", "organ", "metric"]
    assert not rows.duplicated(key).any()
    assert set(rows["variant"]) == {"rounds=0", "rounds=1"}


def test_an_address_that_does_not_answer_is_one_sentence(asked, capsys):
    pytest.importorskip("ray")
    sentence = complaint(["sweep", asked, "--ray", "127.0.0.1:1"], capsys)
    assert "--ray 127.0.0.1:1: no Ray cluster answers there" in sentence


@pytest.mark.parametrize("address", ["nosuchhost", "ray://nosuchhost"])
def test_an_address_without_a_port_is_one_sentence(asked, address, capsys):
    """Ray would look for it for minutes."""
    pytest.importorskip("ray")
    sentence = complaint(["sweep", asked, "--ray", address], capsys)
    assert f"--ray {address}: an address has a port, such as nosuchhost:6379" in sentence


def test_a_run_that_fits_nowhere_is_one_sentence(asked, capsys):
    pytest.importorskip("ray")
    sentence = complaint(["sweep", asked, "machine.gpu_share=3", "--ray"], capsys)
    assert "no machine of the cluster has 1 CPUs and 3 GPUs for a run" in sentence


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'catnet\[sweep\]'"):
        connect("auto")
