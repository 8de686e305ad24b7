"""TensorBoard's event file, written at once and on the caller's thread.

Its own writer has a thread that prints a traceback and dies when the disk is full.
"""

import contextlib
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MultilineChartContent,
)
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG, PLUGIN_NAME

from impala_redis.common.files import open_to_append
from impala_redis.common.records import figures
from impala_redis.common.records.figure import Figure
from impala_redis.common.records.tfrecord import framed


class EventFile:
    """Scalars of one part of a run. Its methods may raise OSError."""

    def __init__(self, run_dir: Path, purge_step: int | None) -> None:
        """Hides the events of earlier files from `purge_step` on, if there is one."""
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
        self._file = open_to_append(run_dir / name)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self._write(Event(wall_time=time.time(), summary=Summary(value=[_layout()])))

    def add(self, scalars: Mapping[str, float], step: int, unix_s: float) -> None:
        """Writes each scalar by its name."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(Event(wall_time=unix_s, step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Closes the file; after an error it is closed already."""
        self._file.close()

    def _write(self, event: Event) -> None:
        try:
            self._file.write(framed(event.SerializeToString()))
            self._file.flush()
        except OSError:
            with contextlib.suppress(OSError):  # what was refused is refused once more
                self._file.close()
            raise


def _layout() -> Summary.Value:
    """The page "Custom Scalars": a category for each group of figures, a chart for each row."""
    categories: dict[str, list[Chart]] = {}
    for row in figures.rows():
        drawn = [figure for figure in row if figure.in_tensorboard]
        if drawn:
            categories.setdefault(drawn[0].group, []).append(_chart(drawn))
    layout = Layout(
        category=[Category(title=title, chart=charts) for title, charts in categories.items()]
    )
    plugin = SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME)
    return Summary.Value(
        tag=CONFIG_SUMMARY_TAG,
        metadata=SummaryMetadata(plugin_data=plugin),
        tensor=TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString()]),
    )


def _chart(drawn: list[Figure]) -> Chart:
    """A chart of figures, which it finds by regular expressions."""
    names = [
        figure.name.replace(":*", ":.+").replace("*", r"\d+")  # a word, or a number
        for figure in drawn
    ]
    return Chart(
        title=", ".join(figure.name for figure in drawn),
        multiline=MultilineChartContent(tag=[f"^{name}$" for name in names]),
    )
