"""Prediction of videos, frame by frame, by PyAV."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from crispseg.errors import CrispsegError, CrispsegWarning, check_installed
from crispseg.inference.image_files import unused_folder
from crispseg.inference.segmenter import Segmenter
from crispseg.io.files import atomic_path, check_new_folder, regular_file, user_path
from crispseg.io.images import write_labels
from crispseg.io.progress import progress

WRITTEN_SUFFIXES = (".mp4", ".mov", ".mkv")
VIDEO_SUFFIXES = (*WRITTEN_SUFFIXES, ".m4v", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv")
BT_709 = 1  # colour standard of players that know no other, and the number of its limited range


def is_video(source: str | Path) -> bool:
    """Return whether a source has the suffix of a video and is not a folder."""
    return Path(source).suffix.lower() in VIDEO_SUFFIXES and not user_path(source).is_dir()


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
    video = user_path(video)
    folder = unused_folder([video], [video]) if out is None else user_path(out)
    overlay = folder if is_video(folder) else folder / f"{video.stem}_overlay.mp4"
    masks = overlay.with_name(f"{video.stem}_masks")
    check_video_files(video, overlay)
    if frame_masks:
        check_new_folder(masks)
    import av

    with opened_video(video) as source, written(overlay) as target:
        stream, times = source.streams.video[0], deque[int]()
        frames = decoded(source, video, times)
        number, encoder = 0, None
        with closing(segmenter.stream(frames)) as segmented:
            for number, result in enumerate(progress(segmented, "Segmenting", stream.frames or None, console), 1):
                picture = av.VideoFrame.from_ndarray(even_sides(result.overlay(outlines=outlines)))
                is_turned = result.image.shape[1] != stream.width
                encoder = encoder or added_stream(target, stream, picture, is_turned)
                picture = picture.reformat(format=encoder.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
                picture.pts, picture.time_base = times.popleft(), stream.time_base
                target.mux(encoder.encode(picture))
                if frame_masks:
                    write_labels(masks / f"frame_{number:06}.png", result.labels, segmenter.label_set.palette)
            if encoder is None:
                raise CrispsegError(f"{video} has no frames that can be read; check the file")
            target.mux(encoder.encode(None))
            warn_of_early_end(video, source, picture.time)
    return overlay, number


def check_video_files(video: Path, overlay: Path) -> None:
    """Raise a CrispsegError if PyAV is missing, or the video of overlays cannot be written."""
    check_installed("av", f"{video} is a video, which", "'crispseg[video]'")
    if overlay.suffix.lower() not in WRITTEN_SUFFIXES:
        raise CrispsegError(f"out is {overlay}; give a folder, or a file that ends in {', '.join(WRITTEN_SUFFIXES)}")
    if overlay.exists():
        raise CrispsegError(f"{overlay} exists and would be overwritten; remove it, or give another out")


@contextmanager
def opened_video(video: Path) -> Iterator[Any]:
    """Open a file that has a video stream, or raise a CrispsegError."""
    import av

    try:
        file = regular_file(video).open("rb")  # a name with a protocol would be an address to FFmpeg
        source = av.open(file, options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (OSError, av.FFmpegError) as error:
        raise CrispsegError(f"{video} cannot be read as a video ({error.strerror}); check the file") from None
    with file, source:
        if not source.streams.video:
            raise CrispsegError(f"{video} contains no video stream; give a video")
        if source.streams.video[0].codec_context is None:
            raise CrispsegError(f"{video} has a codec that cannot be read; convert it to H.264 or another one")
        yield source


@contextmanager
def written(overlay: Path) -> Iterator[Any]:
    """Open a file to write that becomes `overlay`, see `atomic_path`; errors of PyAV become a CrispsegError."""
    import av

    try:
        with atomic_path(overlay) as temporary, av.open(f"file:{temporary}", "w") as target:
            yield target
    except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        remedy = "give an out that ends in .mkv, or repair the video"
        raise CrispsegError(f"{overlay} cannot be written ({getattr(error, 'strerror', error)}); {remedy}") from None


def warn_of_early_end(video: Path, source: Any, end: float) -> None:
    """Warn if the last frame, at `end` seconds, is long before the end that the file states."""
    import av

    seconds = (source.duration or 0) / av.time_base
    from_start = end - (source.start_time or 0) / av.time_base
    if max(end, from_start) < 0.9 * seconds - 1:  # the duration of some files includes their start
        line = f"the frames of {video} end after {from_start:.1f} of {seconds:.1f} seconds"
        warnings.warn(f"{line}; the file may be damaged", CrispsegWarning, stacklevel=3)


def even_sides(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row and column `(H, W, 3)` of odd sides, since browsers and phones only play even sides."""
    height, width = image.shape[:2]
    return np.pad(image, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")


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


def added_stream(target: Any, source: Any, picture: Any, is_turned: bool) -> Any:
    """Add a video stream for pictures to a file, with the rate, time base and pixel aspect of the stream `source`."""
    stream = target.add_stream("libx264", rate=source.guessed_rate or 25, options={"crf": "18", "preset": "veryfast"})
    stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
    context = stream.codec_context
    context.time_base = source.time_base
    if ratio := source.sample_aspect_ratio:
        context.sample_aspect_ratio = 1 / ratio if is_turned else ratio
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = BT_709
    return stream
