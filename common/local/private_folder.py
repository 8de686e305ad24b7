"""A folder that only this user can enter, and that goes with the process that made it.

It is locked as long as its process lives, and names its machine. So a later process of the same
user can tell one that was left behind there, as after kill -9, from one in use.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

PREFIX = "impala-"
# In it is the name of the machine on which the folder is locked. It is written once it is.
LOCKED_BY = "locked-by"
# A Unix socket's path must fit in 108 bytes, and in 104 on some systems.
LONGEST_SOCKET_PATH = 100


class PrivateFolder:
    """A new folder of mode 0700 among the temporary files; `remove` ends it."""

    def __init__(self) -> None:
        """Makes and locks the folder.

        Raises OSError when it cannot be made, PermissionError when other users could put another
        in its place.
        """
        parent = Path(tempfile.gettempdir())
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PermissionError(
                0,
                "every user may rename what others have in it: it lacks the sticky bit",
                str(parent),
            )
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock: int | None = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        # Where there are no locks, nobody could tell that it was left behind, and it would stay.
        with contextlib.suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            (self.path / LOCKED_BY).write_bytes(_this_machine())

    def remove(self) -> None:
        """Removes the folder with all that is in it; a second time does no harm."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def folder_for_socket(name: str, whose: str) -> PrivateFolder:
    """A private folder in which a Unix socket of that name has room.

    `whose` is the owner of the socket for the error's sentence, as in "the embedded server's".
    Raises ValueError with a sentence and the remedy.
    """
    try:
        folder = PrivateFolder()
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise ValueError(
            f"the folder for temporary files{where} cannot hold {whose} socket "
            f"({error.strerror}); set TMPDIR to a folder of your own"
        ) from error
    if len(os.fsencode(folder.path / name)) <= LONGEST_SOCKET_PATH:
        return folder
    folder.remove()
    raise ValueError(
        f"the path of the folder for temporary files, {folder.path.parent}, is too long for "
        f"{whose} socket ({LONGEST_SOCKET_PATH} bytes at most); set TMPDIR to a short one"
    )


def remove_those_left_behind() -> None:
    """Removes the folders of this user and machine whose processes are gone."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    _remove_if_left_behind(Path(entry.path))


def _this_machine() -> bytes:
    return os.fsencode(os.uname().nodename)


def _remove_if_left_behind(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        status = os.fstat(folder)
        ours = status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700
        # Some file systems that machines share keep locks to each machine.
        if ours and (path / LOCKED_BY).read_bytes() == _this_machine():
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
            shutil.rmtree(path)
    finally:
        os.close(folder)
