"""Files that a program writes and reads by itself, safe in a directory that others may have made.

A run directory may come from a stranger, or be open to other users of the machine. So nothing is
written or removed through a symbolic link, what is read is a regular file of bounded size, and no
call waits for somebody at the other end of a pipe. What does not fit is an OSError with a sentence
of ours as its `strerror`. `decoded` is for files of the user's, too.
"""

import codecs
import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

# Where a system lacks one of them, as Windows does, nothing is lost but that protection.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Writes the file so that it is old or new at every instant, and durable afterwards.

    A symbolic link of that name is replaced, and what it leads to is left alone. Data in pieces are
    written as they come, so that the whole is never held. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
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


def remove_leftovers(folder: Path, name: str) -> None:
    """Removes what a kill has left of `write_atomically`, for names of a pattern as `glob` has it.

    Until 0.2 the number of a process stood where now are 16 hex digits. Raises OSError.
    """
    for path in folder.glob(f".{name}.*.tmp"):
        if re.fullmatch(r"[0-9a-f]{16}|[0-9]{1,10}", path.name.split(".")[-2]) and (
            path.is_symlink() or path.is_file()
        ):
            path.unlink(missing_ok=True)


def open_to_append(path: Path, *, buffering: int = -1) -> BinaryIO:
    """Opens a file for writing at its end, and makes it if it is not there.

    Raises OSError, also when the name belongs to a symbolic link or to no regular file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    return os.fdopen(_opened(path, flags, 0o666, follow=False), "ab", buffering=buffering)


def open_for_its_owner(path: Path) -> int:
    """Opens a file for reading and writing, and makes it, so that no other user can open it.

    One of ours that others could open is closed to them. Returns the file descriptor. Raises
    OSError as `open_to_append`.
    """
    descriptor = _opened(path, os.O_RDWR | os.O_CREAT, 0o600, follow=False)
    found = os.fstat(descriptor)
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077:
        with contextlib.suppress(OSError):  # a file system without modes
            os.fchmod(descriptor, 0o600)
    return descriptor


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
        # By the size that it has: what only claims to be long, as a sparse file, is not read, and
        # no memory is taken for more than there is.
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            why = f"{path.name} is longer than {most_bytes:,} bytes"
            raise OSError(errno.EFBIG, why, str(path))
        return file.read(size)


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, unless it is there. Raises OSError, also for a link."""
    refuse_link(path)
    path.mkdir(parents=True, exist_ok=True)


def refuse_link(path: Path) -> None:
    """Raises OSError if the name, of a folder that was found in a directory, is that of a link."""
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


def decoded(raw: bytes) -> str:
    """UTF-8 as text, without the byte-order mark that editors of Windows put in front.

    Raises ValueError with a sentence: it is UTF-16 or UTF-32, or no text.
    """
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw[:4]:
        raise ValueError("it is UTF-16 or UTF-32: save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it holds no text in UTF-8") from error


def _is_a_link(path: Path) -> OSError:
    why = f"{path.name} is a symbolic link, which is not followed there"
    return OSError(errno.ELOOP, why, str(path))


def _is_not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, f"{path.name} is no regular file", str(path))
