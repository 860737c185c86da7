"""Cards and question files that are none: name -> (maker, command, what the sentence says).

A maker gets a folder that holds `card.yml`, `run.yml` and `raw/`, all of them right, and breaks it.
"""

import os

import yaml

CARD = "prepare {home}/card.yml --raw {home}/raw"
RUN = "train {home}/run.yml"
MANY = 100_000
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


def text(name, content):
    """The file holds this and nothing else."""

    def make(home):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def changed(file, /, **changes):
    """The file with other values; None drops a key."""

    def make(home):
        content = yaml.safe_load((home / file).read_text())
        kept = {key: value for key, value in {**content, **changes}.items() if value is not None}
        (home / file).write_text(yaml.safe_dump(kept, sort_keys=False))

    return make


def line(name, key, value):
    """The file with one key written as it stands here."""

    def make(home):
        changed(name, **{key: None})(home)
        with (home / name).open("a") as file:
            file.write(f"{key}: {value}\n")

    return make


def huge(name, *, head=b""):
    """A line of 1 GB, most of it a hole in the disk."""

    def make(home):
        (home / name).write_bytes(head)
        os.truncate(home / name, 10**9)

    return make


def endless(name):
    def make(home):
        (home / name).unlink()
        (home / name).symlink_to("/dev/zero")

    return make


def in_both(name):
    """What is wrong with a YAML file, whatever it is for."""
    return {
        "a thousand laughs": (text(name, BOMB), f"{name}: not valid YAML at line 2 .*aliases"),
        "a list that holds itself": (text(name, "a: &a [*a]\n"), f"{name}: .*aliases are not"),
        "lists in lists": (text(name, "a: " + "[" * MANY), f"{name}: not valid YAML .*; mend"),
        "mappings in mappings": (text(name, "{a: " * MANY), f"{name}: not valid YAML .*; mend"),
        "dashes in dashes": (text(name, "- " * 5000 + "1"), f"{name}: not valid YAML .*; mend"),
        "a line of 1 GB": (
            huge(name, head=b"name: "),
            f"{name}: cannot be .*larger than 1 MB",
        ),
        "a file without end": (endless(name), f"{name}: cannot be .*larger than 1 MB"),
        "zeros": (text(name, bytes(5000)), f"{name}: not valid YAML .*special characters"),
        "UTF-16": (text(name, "name: tiny\n".encode("utf-16")), f"{name}: cannot be read"),
        "a picture": (text(name, b"\x89PNG\r\n\x1a\n" + bytes(99)), f"{name}: cannot be read"),
        "tabs": (text(name, "a:\n\tb: 1\n"), f"{name}: not valid YAML at line 2"),
        "two documents": (text(name, "a: 1\n---\nb: 2\n"), f"{name}: not valid YAML at line 2"),
        "a list": (text(name, "- 1\n- 2\n"), f"{name}: holds no `key: value` lines"),
        "comments alone": (text(name, "# later\n"), f"{name}: holds no `key: value` lines"),
        "a key that is a list": (text(name, "? [a]\n: 1\n"), f"{name}: not valid .*unhashable"),
        "a key that is a number": (text(name, "1: 2\n"), f"{name}: 1: keys should be strings"),
        "a merge of nothing": (text(name, "<<: 5\n"), f"{name}: not valid YAML at line 1"),
        "an impossible day": (text(name, "a: 2020-99-99\n"), f"{name}: not valid YAML .*month"),
        "a tag of Python": (text(name, "a: !!python/name:os.system\n"), "constructor for the tag"),
        "an unknown directive": (text(name, "%YAML 9.9\n---\na: 1\n"), f"{name}: not valid YAML"),
        "half a quotation": (text(name, 'a: "b\n'), f"{name}: not valid YAML at line"),
    }


CARDS = {name: (maker, CARD, hint) for name, (maker, hint) in in_both("card.yml").items()} | {
    "a number of 100000 bits": (
        line("card.yml", "size", f"[0x{'f' * MANY}, 64]"),
        CARD,
        "card.yml: size: size is two multiples of 32",
    ),
    "folds without end": (
        line("card.yml", "folds", f"0x{'f' * MANY}"),
        CARD,
        "card.yml: folds: give a number of folds from 2",
    ),
    "a name cut by a zero": (
        line("card.yml", "image", '"image\\0{case}.nii.gz"'),
        CARD,
        "card.yml: image: .*unreadable letters",
    ),
    "half a letter": (
        line("card.yml", "title", '"\\ud800"'),
        CARD,
        "card.yml: not valid YAML .*surrogates",
    ),
    "an organ of two lines": (
        line("card.yml", "organs", '{"liver\\n": 1}'),
        CARD,
        "card.yml: organs: .*unreadable letters",
    ),
    "an organ that leads out of the folder": (
        changed(
            "card.yml", label="{case}_{organ}.nii.gz", label_values={"liver": "x/../../../secret"}
        ),
        CARD,
        "card.yml: label_values: .*stays in the folder of --raw",
    ),
    "a pattern that leads out of the folder": (
        changed("card.yml", label="../{case}.nii.gz"),
        CARD,
        "card.yml: label: a file pattern stays in the folder of --raw",
    ),
    "a name that leads out of the folder": (
        changed("card.yml", name="../../evil"),
        CARD,
        "card.yml: name: .*pattern",
    ),
    "a name of two lines": (line("card.yml", "name", '"tiny\\n"'), CARD, "card.yml: name: .*patt"),
    "a name without end": (changed("card.yml", name="x" * 5000), CARD, "card.yml: name: .*at most"),
    "a threshold that is none": (
        changed("card.yml", body_threshold=float("inf")),
        CARD,
        "card.yml: body_threshold: .*finite",
    ),
    "a local file to fetch": (
        changed("card.yml", fetch={"url": "file:///etc/passwd", "checksum": "sha256:" + "0" * 64}),
        "fetch {home}/card.yml --raw {home}/new",
        "card.yml: fetch.url: .*pattern",
    ),
}

SETTINGS = {
    f"settings: {name}": (maker, RUN, hint) for name, (maker, hint) in in_both("run.yml").items()
} | {
    "a group that is a number": (changed("run.yml", model=5), RUN, "run.yml: model: .*not 5"),
    "a group that is a list": (changed("run.yml", data=[1]), RUN, r"run.yml: data: .*not \[1\]"),
    "a base that is itself": (changed("run.yml", base="run.yml"), RUN, "has a base too; one level"),
    "a base that is a folder": (changed("run.yml", base="raw"), RUN, "raw: cannot be read"),
    "a base cut by a zero": (
        line("run.yml", "base", '"a\\0b.yml"'),
        RUN,
        "cannot be read .*null byte",
    ),
    "a base that is a number": (changed("run.yml", base=7), RUN, "base must be the path .*not 7"),
    "a card cut by a zero": (
        line("run.yml", "data", '{card: "a\\0b.yml"}'),
        RUN,
        "cannot be read .*null byte",
    ),
    "vary is a word": (changed("run.yml", vary="all"), RUN, "run.yml: vary needs lines such as"),
    "more runs than atoms": (
        changed("run.yml", vary={f"augment.{n}": list(range(1, 900)) for n in "abcdefgh"}),
        "sweep {home}/run.yml",
        "run.yml: asks for more than 100000 runs",
    ),
    "a seed of many digits": (
        line("run.yml", "seed", f"0x{'f' * MANY}"),
        RUN,
        "run.yml: seed: .*, not a whole number of 400000 bits",
    ),
    "a rate of 5000 digits": (
        line("run.yml", "train", f"{{rate: {'9' * 5000}}}"),
        RUN,
        "run.yml: not valid YAML .*4300 digits",
    ),
    "a name that is a path": (changed("run.yml", name="../up"), RUN, "run.yml: name: .*pattern"),
    "a name longer than a disk takes": (
        changed("run.yml", name="x" * 5000),
        RUN,
        "run.yml: name: .*at most",
    ),
    "options that hold options": (
        line("run.yml", "model", "{attention_options: {a: " + "[" * 100 + "]" * 100 + "}}"),
        RUN,
        "has no option 'a'",
    ),
}
