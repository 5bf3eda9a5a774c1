"""Replace a file as a whole: written under another name, then renamed."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, data: bytes, *, temporary: Path | None = None) -> None:
    """Give a path new content, so that readers see all of the old or all of the new.

    `temporary` is the name that it is written under, in the same folder. A link of that name is not followed.
    Nothing is synced. Raises `OSError`; the temporary file is then removed.
    """
    new = temporary or path.with_name(f"{path.name}-{os.getpid()}.new")
    try:
        with open(new, "wb", opener=_open) as file:
            file.write(data)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
