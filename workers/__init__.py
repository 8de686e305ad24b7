"""The programs, one file each, and what they share. No program imports another."""

import os
import sys

for number, stream, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
    try:
        os.fstat(number)
    except OSError:
        # Closed, as by `>&-`: the next file or connection would get its number, and then what is
        # meant for a terminal. It is the lowest one that is free.
        os.open(os.devnull, os.O_RDWR)
        setattr(sys, stream, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115

if os.getpid() == 1:
    # In a container without an init. To process 1 the kernel delivers only signals that have a
    # handler, and the imports of a program take a second before it puts up its own.
    import signal

    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
