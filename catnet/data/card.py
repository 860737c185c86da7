"""A dataset card: everything that the code must know of a data set, as one YAML file.

A new data set is a new card and no code. `datasets/README.md` explains every key.
"""

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from catnet.config import digest
from catnet.errors import UserError
from catnet.paths import cards_home
from catnet.strict import Strict, check, read_yaml

AXES = ({"L", "R"}, {"A", "P"}, {"S", "I"})
MOST_FOLDS = 1 << 20
Number = Annotated[int, Field(ge=1, le=65535)]


class Clip(Strict):
    """Where intensities are cut off: a window in the image's units, or percentiles of the case."""

    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None

    @model_validator(mode="after")
    def one_of_two(self) -> "Clip":
        """Exactly one rule, its bounds in order."""
        given = [bounds for bounds in (self.window, self.percentiles) if bounds is not None]
        if len(given) != 1:
            raise ValueError("clip needs either window: [low, high] or percentiles: [low, high]")
        if given[0][0] >= given[0][1]:
            raise ValueError(f"the lower bound of {list(given[0])} must be below the upper one")
        if self.percentiles and not (self.percentiles[0] >= 0 and self.percentiles[1] <= 100):
            raise ValueError("percentiles lie between 0 and 100")
        return self


class SupervoxelSettings(Strict):
    """How pseudo-labels are cut."""

    min_size: int = Field(ge=1, description="smallest supervoxel, in voxels of the prepared grid")


class Fetch(Strict):
    """Where the raw files may be had without an account."""

    url: str = Field(pattern=r"^https?://[^\s]+$", description="a zip or tar archive")
    checksum: str = Field(
        pattern=r"^(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})$", description="of the archive"
    )
    folder: str = Field(
        "", description="the folder in the archive that --raw means; nothing else is unpacked"
    )

    @field_validator("url")
    @classmethod
    def of_a_server(cls, url: str) -> str:
        """An address names a server, and a port that there is."""
        parts = urlsplit(url)  # a ValueError of its own for brackets and ports that are none
        if not parts.hostname or parts.port == 0:
            raise ValueError("url names no server")
        return url

    @field_validator("folder")
    @classmethod
    def within(cls, folder: str) -> str:
        """A folder is named from the root of the archive, lies in it, and has one spelling."""
        if not folder.isprintable() or "\\" in folder:
            raise ValueError("folder has letters that cannot be read, or a backslash; use a slash")
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError("folder is a path within the archive, such as Train_Sets/MR")
        return "" if path == PurePosixPath() else str(path)


class Card(Strict):
    """One data set; see `datasets/README.md` for the meaning of every key."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$", max_length=100)
    title: str
    source: str
    license: str
    citation: str
    modality: Literal["CT", "MR"]
    fetch: Fetch | None = None
    image: str = Field(description="file or DICOM folder of a case's image, {case} for its name")
    label: str = Field(
        description="file or folder of a case's label; {organ} where every organ has its own"
    )
    label_values: dict[str, Number | str] = Field(
        {}, description="how the label writes an organ, where not by its number"
    )
    cases: str | None = Field(None, description="names of the cases, such as 0[0-4]*")
    orientation: str = Field(description="axis codes that every case is brought to, such as LAS")
    spacing: tuple[float | None, float | None, float | None] = Field(
        description="mm along these axes; null keeps the case's own"
    )
    clip: Clip
    body_threshold: float | None = Field(
        None, description="crop around, and keep only, the largest body above this intensity"
    )
    size: tuple[int, int] = Field(description="voxels in the plane after crop and pad")
    organs: dict[str, Number] = Field(min_length=1)
    other_labels: tuple[Number, ...] = ()
    groups: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        {}, description="organs tested together"
    )
    supervoxels: SupervoxelSettings
    folds: int | tuple[tuple[int, ...], ...] = Field(
        description="how many, or lists of indices into the cases sorted by number"
    )

    @field_validator("image", "label")
    @classmethod
    def one_place_for_the_case(cls, pattern: str) -> str:
        """A file pattern says once where the name of the case stands, within the raw folder."""
        if not pattern.isprintable():
            raise ValueError("a file pattern with unreadable letters; write it anew")
        if pattern.count("{case}") != 1:
            raise ValueError("a file pattern holds {case} exactly once")
        if Path(pattern).is_absolute():
            raise ValueError("a file pattern starts in the folder of --raw, without a leading /")
        if ".." in Path(pattern).parts:
            raise ValueError("a file pattern stays in the folder of --raw, without ..")
        return pattern

    @field_validator("organs", "groups", "label_values")
    @classmethod
    def names(cls, known: dict) -> dict:
        """What stands in tables, and in file names, is of letters that one can see."""
        for name in (*known, *(word for word in known.values() if isinstance(word, str))):
            if not name.isprintable() or not name.strip():
                raise ValueError(f"{name!r} is empty, or has unreadable letters; write it anew")
        return known

    @field_validator("orientation")
    @classmethod
    def three_axes(cls, codes: str) -> str:
        """Left-right, then front-back, then head-feet."""
        if len(codes) != 3 or any(c not in axis for c, axis in zip(codes, AXES, strict=True)):
            raise ValueError("orientation is three letters, R or L, A or P, S or I, such as LAS")
        return codes

    @field_validator("spacing", mode="before")
    @classmethod
    def one_an_axis(cls, spacing: object) -> object:
        """Three values, of which each may be null."""
        if spacing is None:
            raise ValueError(
                "give mm for each of the three axes, or null for one that keeps the case's own, "
                "such as [null, null, 3.0]"
            )
        return spacing

    @field_validator("spacing")
    @classmethod
    def positive(cls, spacing: tuple) -> tuple:
        """Millimeters are positive."""
        if any(mm is not None and not 0.01 <= mm < 1000 for mm in spacing):
            raise ValueError("spacing is in mm, from 0.01 (or null to keep the case's own)")
        return spacing

    @field_validator("size")
    @classmethod
    def divisible(cls, size: tuple[int, int]) -> tuple[int, int]:
        """The encoder halves a slice five times."""
        if any(not 32 <= voxels <= 4096 or voxels % 32 for voxels in size):
            raise ValueError("size is two multiples of 32, up to 4096")
        return size

    @field_validator("folds", mode="before")
    @classmethod
    def number_or_lists(cls, folds: object) -> object:
        """A number of folds, or the cases of each: at least two, none of them twice."""
        if isinstance(folds, int) and 2 <= folds <= MOST_FOLDS:
            return folds
        lists = folds if isinstance(folds, list | tuple) and folds else [None]
        if not all(isinstance(fold, list | tuple) for fold in lists):
            raise ValueError("give a number of folds from 2, or lists such as [[0, 1, 2], [2, 0]]")
        for fold in lists:
            if not all(isinstance(index, int) and index >= 0 for index in fold):
                raise ValueError(f"{list(fold)} are not all indices of cases, which count from 0")
            if len(fold) < 2:
                raise ValueError("every fold needs two cases, a query and a support")
            if len(set(fold)) < len(fold):
                raise ValueError(f"{list(fold)} names a case twice, which would support itself")
        return folds

    @model_validator(mode="after")
    def consistent(self) -> "Card":
        """Images are no labels, numbers are given once, groups name organs."""
        if self.image == self.label:
            raise ValueError("image and label are the same file pattern; mend one of them")
        if "mean" in self.organs:
            raise ValueError("organs: mean is the column of the tables; name the organ otherwise")
        numbers = [*self.organs.values(), *self.other_labels]
        if len(set(numbers)) < len(numbers):
            raise ValueError("a label number stands twice in organs and other_labels")
        self.check_label_values()
        for group, organs in self.groups.items():
            for organ in organs:
                if organ not in self.organs:
                    raise ValueError(f"groups.{group} names {organ!r}, which organs does not have")
        return self

    def check_label_values(self) -> None:
        """Raise `ValueError` where it is not clear how the label writes an organ."""
        if "{organ}" in self.image or self.label.count("{organ}") > 1:
            raise ValueError("{organ} stands in label alone, and once")
        for organ in self.label_values:
            if organ not in self.organs:
                raise ValueError(f"label_values names {organ!r}, which organs does not have")
        apart = "{organ}" in self.label
        own = {organ: organ if apart else number for organ, number in self.organs.items()}
        for word in ({**own, **self.label_values}).values() if apart else ():
            path = Path(str(word))
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(
                    f"label_values: {str(word)!r} stays in the folder of --raw, without .."
                )
        written = [*{**own, **self.label_values}.values(), *self.other_labels]
        if len(set(written)) < len(written):
            raise ValueError(
                "the label would write two organs in one way; mend label_values or other_labels"
            )

    def tested_organs(self, group: str | None) -> dict[str, int]:
        """The organs of a group, or all; raises `UserError` for an unknown group."""
        if group is None:
            return self.organs
        if group not in self.groups:
            known = ", ".join(self.groups) or "none"
            raise UserError(f"data.group {group!r} is not in card {self.name} (it has {known})")
        return {organ: self.organs[organ] for organ in self.groups[group]}

    def preparation(self) -> str:
        """Hash of what decides a prepared case."""
        keys = {"orientation", "spacing", "clip", "body_threshold", "size", "organs"}
        if self.label_values:  # a card without them keeps the hash that it had before there were
            keys |= {"label_values"}
        return digest(self.model_dump(mode="json", include=keys))[:16]

    def identity(self) -> str:
        """Hash of what decides a result on this data set."""
        decisive = {"preparation": self.preparation(), "folds": self.folds, "name": self.name}
        decisive |= {"cases": self.cases} if self.cases else {}
        return digest({**decisive, "groups": self.groups, "min_size": self.supervoxels.min_size})


def load_card(name: str) -> Card:
    """A card by path, or by name in the folder of cards."""
    path = Path(name)
    if path.suffix not in {".yml", ".yaml"}:
        path = cards_home() / f"{name}.yml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in cards_home().glob("*.yml"))) or "none"
            raise UserError(
                f"card {name!r} is not in {cards_home().absolute()} (there: {known}), which is "
                "CATNET_CARDS, or else `datasets` in the current folder; give the path of a card, "
                "call it where `datasets` lies, or set CATNET_CARDS to the folder of cards"
            )
    return check(Card, read_yaml(path), source=str(path))
