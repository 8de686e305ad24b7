"""The order of a device's work: what is done beside the computing, and what waits for what.

A CPU does each thing when it is asked for, so that nothing ever waits there.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


class SideStream:
    """Work that is done beside that of the main stream, for example copies."""

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def working(self) -> AbstractContextManager[Any]:
        """What is asked for inside is done on this stream, in turn."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


class Mark:
    """A place in a stream's order of work, which can be set anew."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            # Whoever waits lets go of the processor, which actors may need.
            self._event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def set(self) -> None:
        """Puts it behind all that the present stream has been asked for."""
        if self._event is not None:
            self._event.record()

    def follow(self) -> None:
        """The present stream goes on when the mark has been reached; the caller goes on at once."""
        if self._event is not None:
            self._event.wait()

    def wait(self) -> None:
        """Returns when the mark has been reached, or has never been set."""
        if self._event is not None:
            self._event.synchronize()
