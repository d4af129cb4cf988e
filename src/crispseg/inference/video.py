"""Prediction of videos, frame by frame, by PyAV."""

from __future__ import annotations

import importlib.util
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from crispseg.errors import CrispsegError, CrispsegWarning
from crispseg.inference.image_files import unused_folder
from crispseg.inference.segmenter import Segmenter
from crispseg.io.files import atomic_path, check_new_folder
from crispseg.io.images import write_labels
from crispseg.io.progress import progress

WRITTEN = (".mp4", ".mov", ".mkv")
SUFFIXES = (*WRITTEN, ".m4v", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv")


def is_video(source: str | Path) -> bool:
    """Return whether a source has the suffix of a video and is not a folder."""
    return Path(source).suffix.lower() in SUFFIXES and not Path(source).is_dir()


def predict_video(
    segmenter: Segmenter,
    video: str | Path,
    out: str | Path | None = None,
    *,
    outlines: bool = False,
    frame_masks: bool = False,
    console: Console | None = None,
) -> tuple[Path, int]:
    """Segment a video and write a video of overlays, upright and with the same times; return its path and frames.

    Missing PyAV, damage and existing results raise a CrispsegError; no video of overlays is then written.

    Args:
        segmenter: the segmenter; only a few frames are in memory.
        video: the video; its first video stream is used.
        out: folder for `NAME_overlay.mp4`, or a file to write, .mp4, .mov or .mkv; by default a new folder.
        outlines: show outlines of areas.
        frame_masks: also write a palette PNG of each frame to `NAME_masks` next to the overlays.
    """
    video = Path(video)
    out = unused_folder([video], [video]) if out is None else Path(out)
    overlay = out if is_video(out) else out / f"{video.stem}_overlay.mp4"
    masks = overlay.with_name(f"{video.stem}_masks")
    if importlib.util.find_spec("av") is None:
        raise CrispsegError(f"{video} is a video, which needs PyAV; pip install 'crispseg[video]'")
    if overlay.suffix.lower() not in WRITTEN:
        raise CrispsegError(f"out is {out}; give a folder, or a file that ends in {', '.join(WRITTEN)}")
    if overlay.exists():
        raise CrispsegError(f"{overlay} exists and would be overwritten; remove it, or give another out")
    if frame_masks:
        check_new_folder(masks)
    import av

    try:
        source = av.open(video)
    except av.FFmpegError as error:
        raise CrispsegError(f"{video} cannot be read as a video ({error.strerror}); check the file") from None
    with source:
        if not source.streams.video:
            raise CrispsegError(f"{video} contains no video stream; give a video")
        stream, times = source.streams.video[0], deque[int]()
        number, encoder = 0, None
        with (
            closing(segmenter.stream(decoded(source, video, times))) as segmented,
            atomic_path(overlay) as temporary,
            temporary.open("wb") as file,
            av.open(file, "w") as target,
        ):
            for number, result in enumerate(progress(segmented, "Segmenting", stream.frames or None, console), 1):
                picture = av.VideoFrame.from_ndarray(result.overlay(outlines=outlines))
                encoder = encoder or added_stream(target, stream, picture)
                picture = picture.reformat(format=encoder.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
                picture.pts, picture.time_base = times.popleft(), stream.time_base
                target.mux(encoder.encode(picture))
                if frame_masks:
                    write_labels(masks / f"frame_{number:06}.png", result.labels, segmenter.label_set.palette)
            if encoder is None:
                raise CrispsegError(f"{video} has no frames that can be read; check the file")
            target.mux(encoder.encode(None))
            end, seconds = picture.time - (source.start_time or 0) / av.time_base, (source.duration or 0) / av.time_base
            if max(end, picture.time) < 0.9 * seconds - 1:  # the duration of some files includes their start
                found = f"the frames of {video} end after {end:.1f} of {seconds:.1f} seconds"
                warnings.warn(f"{found}; the file may be damaged", CrispsegWarning, stacklevel=2)
    return overlay, number


def decoded(source: Any, path: Path, times: deque[int]) -> Iterator[NDArray[np.uint8]]:
    """Yield the upright frames `(H, W, 3)` of a video as RGB, and append their times; damage raises a CrispsegError."""
    import av

    stream, read, last = source.streams.video[0], 0, -1
    size = {"width": stream.width, "height": stream.height}  # later frames may have another size
    step = max(1, round(1 / (stream.guessed_rate or 25) / stream.time_base))
    try:
        for frame in source.decode(stream):
            read, last = read + 1, max(last + 1, last + step if frame.pts is None else frame.pts)
            times.append(last)
            yield np.rot90(frame.to_ndarray(format="rgb24", **size), frame.rotation // 90)
    except av.FFmpegError as error:
        raise CrispsegError(f"{path} is damaged after frame {read} ({error.strerror}); repair or cut it") from None


def added_stream(target: Any, source: Any, picture: Any) -> Any:
    """Add a video stream for pictures to a file, with the rate, time base and pixel aspect of the stream `source`."""
    stream = target.add_stream("libx264", rate=source.guessed_rate or 25, options={"crf": "18", "preset": "veryfast"})
    stream.width, stream.height = picture.width, picture.height
    stream.pix_fmt = "yuv444p" if picture.width % 2 or picture.height % 2 else "yuv420p"
    context = stream.codec_context
    context.time_base = source.time_base
    if ratio := source.sample_aspect_ratio:
        context.sample_aspect_ratio = ratio if picture.width == source.width else 1 / ratio
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1  # BT.709, limited range
    return stream
