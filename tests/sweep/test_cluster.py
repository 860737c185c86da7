"""The same runs on a Ray cluster of a head and two nodes, one of which dies on the way."""

import os
import sys
import threading
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from trials import complaint, end_of

from catnet.errors import UserError
from catnet.question import load_question
from catnet.report.rows import read_rows
from catnet.sweep.cluster import check_room, connect
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


def test_a_run_that_fits_nowhere_is_one_sentence(asked, capsys, monkeypatch):
    """On a cluster of this machine alone, which no other one can reach."""
    pytest.importorskip("ray")
    seen = []

    def look(ray, machine):
        seen.extend(listening())
        check_room(ray, machine)

    monkeypatch.setattr("catnet.sweep.cluster.check_room", look)
    sentence = complaint(["sweep", asked, "machine.gpu_share=3", "--ray"], capsys)
    assert "no machine of the cluster has 1 CPUs and 3 GPUs for a run" in sentence
    assert len(seen) > 2
    assert not [place for place in seen if not place.is_loopback]


def listening():
    """The addresses at which this process and those it started wait for others."""
    sockets = set()
    for process in family(os.getpid()):
        with suppress(OSError):
            links = (os.readlink(path) for path in Path(f"/proc/{process}/fd").iterdir())
            sockets |= {link[8:-1] for link in links if link.startswith("socket:[")}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                yield address(fields[1].partition(":")[0])


def family(process):
    """A process and all that it started."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found


def address(text):
    """What the kernel writes: words of four bytes, each of them turned around."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    found = ip_address(b"".join(words))
    return getattr(found, "ipv4_mapped", None) or found


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'catnet\[sweep\]'"):
        connect("auto")
