"""Where things may lie, and which way imports point."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "catnet").rglob("*.py"))
LAYERS = (  # names in one layer are strangers to each other
    {"types", "arrays", "errors", "paths", "allocator", "torchvision_guard"},
    {"episode", "strict", "files", "processes"},
    {"config"},
    {"question"},
    {"data", "augment", "model"},
    {"checkpoint", "runs", "pictures", "views", "engine", "snapshot"},
    {"journal", "evaluations", "guard", "loading"},
    {"train", "evaluate", "report"},
    {"sweep", "view", "check", "doctor", "predict", "export", "replay"},
    {"bench"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """Every module that a file imports, wherever in the file it does."""
    package = module_of(path).split(".")
    package = package if path.stem == "__init__" else package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            whole = origin == "catnet"  # from catnet import data
            yield from (f"catnet.{alias.name}" for alias in node.names) if whole else [origin]


def top(module):
    """`data` of `catnet.data.card`; nothing of other packages."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "catnet" else ""


def test_the_sources_are_found():
    assert {"catnet.config", "catnet.data.card", "catnet.model"} <= {module_of(p) for p in SOURCES}


@pytest.mark.parametrize("path", [path for path in SOURCES if top(module_of(path))], ids=module_of)
def test_imports_point_down(path):
    here = top(module_of(path))
    assert here in LEVEL, f"give catnet.{here} a place in LAYERS"
    for module in filter(top, imports_of(path)):
        there = top(module)
        assert there in LEVEL, f"give catnet.{there} a place in LAYERS"
        assert there == here or LEVEL[there] < LEVEL[here], f"{path} imports {module}"


def test_the_package_itself_imports_nothing_of_its_own():
    assert not [module for module in imports_of(ROOT / "catnet" / "__init__.py") if top(module)]


def reachable(module):
    """Modules that are imported with `module`, itself included, by their names."""
    known = {module_of(path): path for path in SOURCES}
    seen, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += imports_of(known[name]) if name in known else []
    return seen


@pytest.mark.parametrize("module", [m for m in map(module_of, SOURCES) if top(m) == "report"])
def test_a_report_sees_rows_and_never_torch_or_a_model(module):
    found = reachable(module)
    assert not {name.partition(".")[0] for name in found} & {"torch", "torchvision", "lightning"}
    assert not set(map(top, found)) & {"model", "train"}


def test_data_needs_no_torchvision():
    modules = [module_of(path) for path in SOURCES if top(module_of(path)) == "data"]
    code = "import sys; sys.modules['torchvision'] = sys.modules['timm'] = None\n"
    code += "\n".join(f"import {module}" for module in modules)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["datasets", "experiments"])
def test_no_code_lies_where_it_would_shadow_a_package(folder):
    held = {path.name for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".pyc"}}
    assert not held, f"{folder}/ holds no code; it would hide the package of that name"


def test_tests_are_no_packages_and_their_names_are_unique():
    files = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert len(set(files)) == len(files)
