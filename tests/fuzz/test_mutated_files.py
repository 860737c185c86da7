"""Whatever becomes of a file's bytes, a reader gives a value or a sentence: never anything else."""

import os
import shutil
from datetime import timedelta

import nibabel as nib
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from targets import CARD, QUESTION, TARGETS, attempt, dicom_seed, nifti_seed, read_one_slice

EXAMPLES = int(os.environ.get("CATNET_FUZZ_EXAMPLES", "60"))
many = settings(
    max_examples=EXAMPLES,
    deadline=timedelta(seconds=20),
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FIELDS = list(nib.Nifti1Header().structarr.dtype.names)
edits = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.floats(0, 1), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
        st.tuples(st.just("zeros"), st.floats(0, 1), st.integers(1, 64)),
        st.tuples(st.just("double"), st.floats(0, 1), st.integers(1, 64)),
        st.tuples(st.just("full"), st.floats(0, 1), st.integers(1, 8)),
    ),
    min_size=1,
    max_size=6,
)


def edited(content, changes):
    """The bytes after these changes."""
    found = bytearray(content)
    for kind, where, value in changes:
        at = int(where * max(0, len(found) - 1))
        if kind == "flip" and found:
            found[at] = value
        elif kind == "cut":
            del found[at:]
        elif kind == "zeros":
            found[at : at + value] = bytes(value)
        elif kind == "full":
            found[at : at + value] = b"\xff" * value
        elif kind == "double":
            found[at:at] = found[at : at + value]
    return bytes(found)


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_is_taken(name, tmp_path):
    reader, file, seeds = TARGETS[name]
    if name == "state":
        pytest.skip("its seed is of another format, as users mix them up")
    assert [attempt(reader, tmp_path / file, seed) for seed in seeds] == [""] * len(seeds)


@pytest.mark.parametrize("name", TARGETS)
@many
@given(changes=edits)
def test_changed_bytes(name, tmp_path, changes):
    reader, file, seeds = TARGETS[name]
    attempt(reader, tmp_path / file, edited(seeds[0], changes))


@pytest.mark.parametrize("field", FIELDS)
@settings(many, max_examples=max(8, EXAMPLES // 6))
@given(data=st.data())
def test_every_field_of_a_nifti_header(field, tmp_path, data):
    dtype, start = nib.Nifti1Header().structarr.dtype.fields[field][:2]
    value = data.draw(st.binary(min_size=dtype.itemsize, max_size=dtype.itemsize))
    content = bytearray(nifti_seed())
    content[start : start + dtype.itemsize] = value
    reader, file, _ = TARGETS["nifti"]
    attempt(reader, tmp_path / file, bytes(content))


words = st.one_of(st.text(max_size=20), st.binary(max_size=8))
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(plain, inner), max_leaves=8
)
MORE = ("base", "data", "train", "augment", "fetch", "clip")


@pytest.mark.parametrize("name", ["card", "settings"])
@many
@given(data=st.data())
def test_any_value_of_any_key(name, tmp_path, data):
    reader, file, _ = TARGETS[name]
    content = yaml.safe_load(CARD if name == "card" else QUESTION)
    key = data.draw(st.sampled_from([*content, *MORE]))
    content[key] = data.draw(values)
    attempt(reader, tmp_path / file, yaml.safe_dump(content).encode())


@many
@given(changes=edits)
@example(changes=[("zeros", 0.15625, 2)])  # a kind of value that there is not
@example(changes=[("flip", 0.15569320613733842, 0)])  # a class of objects that is no text
def test_changed_bytes_of_a_dicom_slice(tmp_path, changes):
    folder = tmp_path / "series"
    shutil.rmtree(folder, ignore_errors=True)
    first, _ = dicom_seed(folder)
    path = sorted(folder.iterdir())[0]
    attempt(read_one_slice, path, edited(first, changes))
