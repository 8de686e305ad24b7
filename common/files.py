"""Files that a program writes and reads by itself, safe in a directory that others may have made.

A run directory may come from a stranger, or be open to other users of the machine. So nothing is
written or removed through a symbolic link, what is read is a regular file of bounded size, and no
call waits for somebody at the other end of a pipe. What does not fit is an OSError with a sentence
of ours as its `strerror`.
"""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO

# Where a system lacks one of them, as Windows does, nothing is lost but that protection.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes the file so that it is old or new at every instant, and durable afterwards.

    A symbolic link of that name is replaced, and what it leads to is left alone. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # not every file system lets a directory be synced
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_to_append(path: Path, *, mode: int = 0o666, buffering: int = -1) -> BinaryIO:
    """Opens a file for writing at its end, and makes it, with `mode`, if it is not there.

    Raises OSError, also when the name belongs to a symbolic link or to no regular file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    return os.fdopen(_opened(path, flags, mode, follow=False), "ab", buffering=buffering)


def open_to_read(path: Path, *, follow: bool = False) -> BinaryIO:
    """Opens a regular file, for a reader that bounds what it takes.

    Args:
      path: the file's name.
      follow: whether the name may be that of a symbolic link: for what a user has named, not for
        what was found in a directory.

    Raises OSError, also when it is a link, a pipe, a device or a directory.
    """
    return os.fdopen(_opened(path, os.O_RDONLY, 0, follow), "rb")


def read_whole(path: Path, most_bytes: int, *, follow: bool = False) -> bytes:
    """What a regular file of at most `most_bytes` holds. Raises OSError as `open_to_read`."""
    with open_to_read(path, follow=follow) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"it is longer than {most_bytes:,} bytes", str(path))
    return data


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, unless it is there. Raises OSError, also for a link."""
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise _is_a_link(path)


def _opened(path: Path, flags: int, mode: int, follow: bool) -> int:
    try:
        descriptor = os.open(path, flags | _NO_WAIT | (0 if follow else _NO_LINK), mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and path.is_symlink():
            raise _is_a_link(path) from error
        if error.errno in (errno.ENXIO, errno.EISDIR):  # nobody reads the pipe; a directory
            raise _is_not_regular(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _is_not_regular(path)
    os.set_blocking(descriptor, True)
    return descriptor


def _is_a_link(path: Path) -> OSError:
    return OSError(errno.ELOOP, "it is a symbolic link, which is not followed there", str(path))


def _is_not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "it is no regular file", str(path))
