"""The one error that is the user's to mend: its text says what, where and how."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can correct; the command line prints it without a traceback."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around code that writes `path`: a full disk or a closed folder is the user's to mend."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None}  # None is numpy's
        remedy = "free space on its disk, or " if full else ""
        raise UserError(
            f"{path}: cannot be written ({why}); {remedy}choose a folder that you may write to "
            "(CATNET_DATA, CATNET_RUNS)"
        ) from None
