"""TensorBoard's event file, written at once and on the caller's thread.

Its own writer has a thread that prints a traceback and dies when the disk is full.
"""

import contextlib
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """Scalars of one part of a run. Its methods may raise OSError."""

    def __init__(self, run_dir: Path, purge_step: int | None) -> None:
        """Hides the events of earlier files from `purge_step` on, if there is one."""
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
        self._file = (run_dir / name).open("ab")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def add(self, figures: Mapping[str, float], step: int, unix_s: float) -> None:
        """Writes a scalar for each figure."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._write(Event(wall_time=unix_s, step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Closes the file; after an error it is closed already."""
        self._file.close()

    def _write(self, event: Event) -> None:
        try:
            self._records.write(event.SerializeToString())
            self._file.flush()
        except OSError:
            with contextlib.suppress(OSError):  # what was refused is refused once more
                self._file.close()
            raise
