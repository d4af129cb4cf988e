"""Show the overlay of a camera, a video file or a stream in a window; close the window to stop.

python examples/camera.py RUN [0 | drive.mp4 | rtsp://192.168.0.10/stream]
"""

from __future__ import annotations

import queue
import sys
import threading
import tkinter
from collections.abc import Iterator
from contextlib import suppress

import cv2
import numpy as np
from PIL import Image, ImageTk

from crispseg import CrispsegError, Segmenter


def frames(source: str) -> Iterator[np.ndarray]:
    """Yield RGB frames; those that a camera or a stream takes while one is segmented are dropped."""
    video = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not video.isOpened():
        raise CrispsegError(f"{source} cannot be opened; give the number of a camera, a video or an address")
    newest: queue.Queue[np.ndarray | None] = queue.Queue(1)

    def read() -> None:
        while (taken := video.read())[0]:
            if source.isdigit() or "://" in source:
                with suppress(queue.Empty):
                    newest.get_nowait()
            newest.put(taken[1])
        newest.put(None)
        video.release()

    threading.Thread(target=read, daemon=True).start()
    while (frame := newest.get()) is not None:
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def show(run: str, source: str = "0") -> None:
    """Show the overlays in a window until it is closed."""
    segmenter, window = Segmenter(run), tkinter.Tk()
    label, closed = tkinter.Label(window), threading.Event()
    label.pack()
    window.protocol("WM_DELETE_WINDOW", closed.set)
    for frame in frames(source):
        picture = ImageTk.PhotoImage(Image.fromarray(segmenter(frame).overlay()))
        label.configure(image=picture)
        window.update()
        if closed.is_set():
            break


if __name__ == "__main__":
    show(*sys.argv[1:])
