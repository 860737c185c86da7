"""Versions against the ranges that pyproject.toml asks for; torch, its build and its devices."""

import importlib
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from catnet.doctor.line import Line, gigabytes

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
OPTIONAL = {
    "ray": "sweeps on a cluster (catnet sweep --ray)",
    "playwright": "the tests of pages in a browser",
    "SimpleITK": "NRRD and MHA files",
    "pydicom": "DICOM series",
    "highdicom": "DICOM segmentations",
    "pooch": "downloads of data sets",
    "huggingface_hub": "networks from a hub",
}


def packages() -> Iterator[Line]:
    """One line for all that fit, and one for each that does not."""
    needed = [one for one in requirements() if one.marker is None or one.marker.evaluate()]
    wrong = [line for one in needed if (line := misfit(one)) is not None]
    if len(needed) > len(wrong):
        yield Line("packages", "ok", f"{len(needed) - len(wrong)} of {len(needed)} as required")
    yield from wrong


def requirements() -> list[Requirement]:
    """What the checkout's pyproject.toml asks for, or else the installed package."""
    try:
        tomllib = importlib.import_module("tomllib")  # Python 3.10 has none
        project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
        texts = project["dependencies"] if project["name"] == "catnet" else None
    except (ImportError, OSError, KeyError, ValueError):
        texts = None
    texts = texts if texts is not None else requires("catnet") or []
    found = map(Requirement, texts)
    return [one for one in found if "extra" not in str(one.marker or "")]


def misfit(one: Requirement) -> Line | None:
    """A line for a package that is missing, or outside of its range."""
    remedy = f"pip install '{one}' --constraint constraints.txt"
    try:
        here = version(one.name)
    except PackageNotFoundError:
        return Line(one.name, "problem", f"is missing, {one.specifier} is required", remedy)
    if one.specifier.contains(here, prereleases=True):
        return None
    return Line(one.name, "problem", f"{here} is here, {one.specifier} is required", remedy)


def optional_packages() -> Iterator[Line]:
    """What is there, and what cannot be done without the others."""
    names = {one.name.lower() for one in requirements()}
    there = []
    for name, purpose in OPTIONAL.items():
        try:
            there.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            if name.lower() not in names:  # else the line of a required package says it
                remedy = f"pip install {name} --constraint constraints.txt, if you need that"
                yield Line(name, "note", f"is not installed; needed for {purpose}", remedy)
    if there:
        yield Line("optional", "ok", ", ".join(there))


def torch_build() -> Iterator[Line]:
    """The build of torch, and whether torchvision was built for it."""
    torch = importlib.import_module("torch")
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    yield Line("torch", "ok", f"{torch.__version__}, {build}, {torch.get_num_threads()} threads")
    wanted = [Requirement(text) for text in requires("torchvision") or []]
    (pin,) = [one for one in wanted if one.name == "torch"]
    vision, here = version("torchvision"), version("torch")
    if pin.specifier.contains(here, prereleases=True):
        yield Line("torchvision", "ok", f"{vision}, fits torch {here}")
    else:
        remedy = "pip install torch torchvision --constraint constraints.txt"
        what = f"{vision} was built for torch {pin.specifier}, {here} is here"
        yield Line("torchvision", "problem", what, remedy)


def devices() -> Iterator[Line]:
    """The GPUs that torch sees, or why it may see none."""
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") and not torch.version.cuda:
            remedy = "install torch with CUDA (https://pytorch.org/get-started)"
            yield Line("devices", "note", "torch is CPU only, but there is nvidia-smi", remedy)
        elif torch.version.cuda and shutil.which("nvidia-smi"):
            remedy = "check nvidia-smi, the driver's version, and CUDA_VISIBLE_DEVICES"
            yield Line("devices", "problem", "torch sees no GPU, though it was built for", remedy)
        else:
            remedy = "train small cards here (experiments/reduced.yml), or use a machine with one"
            yield Line("devices", "note", "no GPU", remedy)
        return
    built = torch.cuda.get_arch_list()
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        what = f"{facts.name}, {gigabytes(free)} of {gigabytes(total)} free"
        if runs_on(built, major=facts.major, minor=facts.minor):
            yield Line(f"cuda:{number}", "ok", what)
        else:
            remedy = "install a torch that was built for it (https://pytorch.org/get-started)"
            told = f"{what}; torch has no code for sm_{facts.major}{facts.minor}"
            yield Line(f"cuda:{number}", "problem", told, remedy)


def runs_on(built: list[str], *, major: int, minor: int) -> bool:
    """Whether code for any of the `built` architectures runs on a device of this capability.

    Machine code (sm) runs on the same major version; intermediate code (compute) on any later one.
    """
    for name in built:
        kind, _, digits = name.partition("_")
        number = "".join(filter(str.isdigit, digits))
        theirs = (int(number[:-1] or 0), int(number[-1:] or 0))
        if kind == "compute" and theirs <= (major, minor):
            return True
        if kind == "sm" and theirs[0] == major and theirs[1] <= minor:
            return True
    return not built
