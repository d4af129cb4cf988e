"""`python -m crispseg.annotation.child train ...`: a command that is ended when the process that started it ends."""

from __future__ import annotations

import os
import runpy
import signal
import threading

STDIN = 0  # number of the file


def end_with_parent() -> None:
    """Wait until the other end of the standard input is closed, as by a killed parent; then end as by SIGTERM."""
    os.read(STDIN, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    runpy.run_module("crispseg", run_name="__main__")
