"""Every mechanism as one compiled graph, by itself, and as an exported file, with a context."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from zoo import build, everywhere, features, normal

from catnet.model.attention import ATTENTION

ROOT = Path(__file__).parents[3]
COMPILE = """
import json, torch
from catnet.model.attention import ATTENTION, build_attention
torch.manual_seed(0)
torch.set_num_threads(1)
torch.set_grad_enabled(False)
x = torch.randn(2, 32, 9, 10)
differences = {}
for name in ATTENTION:
    module = build_attention(name, 32, {}).eval()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    differences[name] = (compiled(x) - module(x)).abs().max().item()
    torch._dynamo.reset()
print(json.dumps(differences))
"""


@pytest.mark.slow
def test_all_compile_to_one_graph_that_says_the_same():
    """In a process of its own: the shape checks that the tests install cannot be compiled."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    differences = json.loads(done.stdout.splitlines()[-1])
    assert set(differences) == set(ATTENTION)
    assert {name: gap for name, gap in differences.items() if gap > 1e-5} == {}


@everywhere
@torch.no_grad()
def test_exported_to_a_file_and_read_back_it_says_the_same(name, tmp_path):
    module = build(name)
    inputs = (features(), features((8, 11), seed=1)) if module.cross else (features(),)
    torch.export.save(torch.export.export(module, inputs), tmp_path / "mechanism.pt2")
    restored = torch.export.load(tmp_path / "mechanism.pt2").module()
    others = tuple(normal(*tensor.shape, seed=7 + at) for at, tensor in enumerate(inputs))
    torch.testing.assert_close(restored(*others), module(*others))
