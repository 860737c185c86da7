"""The one error that is the user's to mend: its text says what, where and how."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can correct; the command line prints it without a traceback."""


@dataclass(eq=False)
class WriteError(UserError):
    """A full disk or a closed folder; `homes` are the variables that name another one."""

    path: Path
    error: OSError
    homes: str = "CATNET_DATA, CATNET_RUNS"

    def __str__(self) -> str:
        full = self.error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None}  # numpy's: None
        remedy = "free space on its disk, or " if full else ""
        return (
            f"{self.path}: cannot be written ({self.error.strerror or self.error}); {remedy}choose "
            f"a folder that you may write to ({self.homes})"
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around code that writes `path`: a full disk or a closed folder is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise WriteError(path, error) from None
