"""Videos: times, size, position and pixels of frames, damage, and memory."""

import errno
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from commands import Capture, error_of, output_of, small_files
from numpy.typing import NDArray

from crispseg import Segmenter
from crispseg.cli.main import main
from crispseg.errors import CrispsegWarning
from crispseg.inference.video import predict_video
from crispseg.io.images import read_mask

av: Any = pytest.importorskip("av", reason="PyAV is not installed: pip install 'crispseg[video]'")


def drawn(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A frame with a bar that grows, and another border above than on the left."""
    image = np.full((*size, 3), (30, 90, 160), np.uint8)
    image[:, : 8 + 5 * number % size[1]] = (200, 60, 20)
    image[:9] = (20, 200, 90)
    image[:, :5] = (230, 230, 60)
    return image


def clip(
    path: Path,
    frames: int = 12,
    size: tuple[int, int] = (48, 64),
    rotation: int = 0,
    times: Any = None,
    codec: str = "libx264",
    **of_context: Any,
) -> Path:
    """Write a video of 25 frames per second; `times` are in 1/1000 seconds."""
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(path, "w", options=options) as target:
        stream = target.add_stream(codec, rate=25, options={"crf": "12", "g": "4"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for name, value in of_context.items():
            setattr(stream.codec_context, name, value)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(drawn(number, size))
            if times is not None:
                picture.pts, picture.time_base = times[number], Fraction(1, 1000)
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path


def frames_of(path: Path) -> tuple[NDArray[np.uint8], list[float], Any]:
    """Frames `(N, H, W, 3)`, turned by OpenCV, their times, and an open container."""
    container, frames = av.open(path), []
    times = [frame.time for frame in container.decode(video=0)]
    video = cv2.VideoCapture(str(path))
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1])
    return np.stack(frames), times, container


def near(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Whether images differ as by a lossy encoder only, which blurs colours at edges."""
    return bool(np.abs(first.astype(int) - second).mean() < 15)


@pytest.mark.parametrize("rotation", [0, 90])
def test_every_frame_at_its_time_and_upright(rotation: int, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    ratio = Fraction(4, 3)
    (tmp_path / "clips").mkdir()
    path = clip(tmp_path / "clips/drive.mp4", rotation=rotation, sample_aspect_ratio=ratio)
    shown = output_of(capsys, "predict", folder, path, "--frame_masks")
    out = tmp_path / "drive_predictions"
    assert shown == f"12 frames of {path} segmented into {out / 'drive_overlay.mp4'}\n"
    assert {file.name for file in out.iterdir()} == {"drive_overlay.mp4", "drive_masks"}
    images, times, source = frames_of(path)
    overlays, written_times, written = frames_of(out / "drive_overlay.mp4")
    stream, before = written.streams.video[0], source.streams.video[0]
    assert images.shape == overlays.shape == (12, *((64, 48) if rotation % 180 else (48, 64)), 3)
    assert written_times == times and times[1] == 0.04
    assert stream.average_rate == before.average_rate == 25 and len(written.streams) == 1
    assert before.sample_aspect_ratio == ratio
    assert stream.sample_aspect_ratio == (1 / ratio if rotation % 180 else ratio)
    segmenter = Segmenter(folder, "cpu")
    masks = sorted((out / "drive_masks").iterdir())
    assert [mask.name for mask in masks] == [f"frame_{number:06}.png" for number in range(1, 13)]
    for image, overlay, mask in zip(images, overlays, masks, strict=True):
        expected = segmenter(image)
        assert (read_mask(mask) == expected.labels).mean() > 0.99
        assert near(overlay, expected.overlay())
    assert not near(overlays[0], overlays[11])
    assert "exists and would be overwritten" in error_of(
        capsys, "predict", folder, path, "--out", out / "drive_overlay.mp4"
    )


def test_uneven_times_and_odd_sizes(segmenter: Segmenter, tmp_path: Path) -> None:
    times = [0, 40, 90, 300, 301, 800]
    path = clip(tmp_path / "a.mkv", 6, (48, 64), times=times)
    overlay, count = predict_video(segmenter, path, tmp_path / "out.mkv", outlines=True)
    assert (overlay, count) == (tmp_path / "out.mkv", 6)
    images, _, _ = frames_of(path)
    overlays, stamps, _ = frames_of(overlay)
    assert [round(1000 * time) for time in stamps] == times
    assert near(overlays[3], segmenter(images[3]).overlay(outlines=True))
    odd = clip(tmp_path / "odd.avi", 3, (47, 63), codec="mjpeg", pix_fmt="yuvj420p")
    overlay, _ = predict_video(segmenter, odd, tmp_path / "folder")
    assert overlay == tmp_path / "folder/odd_overlay.mp4" and frames_of(overlay)[0].shape == (3, 48, 64, 3)
    with av.open(overlay) as written:
        assert written.streams.video[0].pix_fmt == "yuv420p"  # browsers and phones play no other


def sound(path: Path) -> Path:
    """Write a file without pictures."""
    with av.open(path, "w") as target:
        stream = target.add_stream("aac", rate=44100)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 44100
        target.mux(stream.encode(samples))
        target.mux(stream.encode(None))
    return path


def test_mistakes_are_one_line(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    path, empty, text = clip(tmp_path / "a.mp4"), tmp_path / "empty.mp4", tmp_path / "text.mov"
    empty.touch()
    text.write_text("no video")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[:700])
    none = clip(tmp_path / "none.mkv", 0)
    given = tmp_path / "given"
    (given / "a_masks").mkdir(parents=True)
    (given / "a_masks/frame.png").touch()
    for words, phrases in (
        ([tmp_path / "missing.mp4"], ["missing.mp4 cannot be read as a video (No such file"]),
        (["http://127.0.0.1:9/a.mp4"], ["a.mp4 cannot be read as a video (No such file"]),
        ([empty], ["empty.mp4 cannot be read as a video", "check the file"]),
        ([text], ["text.mov cannot be read as a video"]),
        ([cut], ["cut.mp4", "check the file"]),
        ([none], ["none.mkv"]),
        ([sound(tmp_path / "sound.mp4")], ["sound.mp4 contains no video stream"]),
        ([path, "--out", path], ["a.mp4 exists"]),
        ([path, "--out", tmp_path / "a.avi"], ["a.avi; give a folder, or a file that ends in .mp4, .mov, .mkv"]),
        ([path, "--frame_masks", "--out", given], ["a_masks is not empty"]),
        ([path, empty], ["one video alone"]),
        ([path, tmp_path], ["one video alone"]),
        ([path, "--objects", "class 1"], ["--objects is for images"]),
        ([path, "--resume"], ["--resume is for images"]),
    ):
        line = error_of(capsys, "predict", folder, *words)
        assert all(phrase in line for phrase in phrases), line
    assert not [*tmp_path.rglob("*_overlay.mp4")] and not [*tmp_path.rglob(".crispseg-*")]
    line = error_of(capsys, "predict", folder, tmp_path / "no.png", "--frame_masks")
    assert "--frame_masks is for a video" in line


def test_without_pyav_the_extra_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("crispseg.errors.find_spec", lambda name: None if name == "av" else name)
    line = error_of(capsys, "predict", folder, clip(tmp_path / "a.mp4", 1))
    assert "a.mp4 is a video, which needs av; pip install 'crispseg[video]'" in line


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_damage_is_one_line_and_leaves_nothing(suffix: str, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    content = bytearray(clip(tmp_path / f"whole{suffix}", 40, (96, 128)).read_bytes())
    middle = len(content) // 2
    for name, damaged in (
        ("cut", content[:middle]),
        ("noise", content[:middle] + np.random.default_rng(0).bytes(600) + content[middle + 600 :]),
    ):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(damaged)
        line = error_of(capsys, "predict", folder, path, "--out", tmp_path / "out")
        assert re.search(rf"{name}{suffix} is damaged after frame \d+ \(.*\); repair or cut it", line)
        assert not [*(tmp_path / "out").iterdir()]


def test_a_video_that_ends_early_is_reported(segmenter: Segmenter, tmp_path: Path, recwarn: Any) -> None:
    content = clip(tmp_path / "whole.mkv", 100).read_bytes()
    assert predict_video(segmenter, tmp_path / "whole.mkv", tmp_path / "whole")[1] == 100
    assert not recwarn
    late = [100_000 + 40 * number for number in range(12)]  # Matroska's duration includes the time before them
    assert predict_video(segmenter, clip(tmp_path / "late.mkv", times=late), tmp_path / "late")[1] == 12
    assert not recwarn
    path = tmp_path / "cut.mkv"
    path.write_bytes(content[: len(content) // 2])
    with pytest.warns(CrispsegWarning, match=r"cut.mkv end after \d.\d of 4.0 seconds; the file may be damaged"):
        overlay, frames = predict_video(segmenter, path, tmp_path / "out")
    assert frames == len(frames_of(overlay)[0]) < 75


@pytest.mark.parametrize(("suffix", "known"), [(".avi", b"FMP4"), (".mkv", b"MPEG4")])
def test_codecs_that_nothing_reads(suffix: str, known: bytes, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    path = clip(tmp_path / f"odd{suffix}", codec="mpeg4" if suffix == ".avi" else "libx264")
    path.write_bytes(path.read_bytes().replace(known, b"X" * len(known)))
    line = error_of(capsys, "predict", folder, path, "--out", tmp_path / "out")
    assert f"odd{suffix} has a codec that cannot be read; convert it to H.264" in line


def test_a_jump_of_times(folder: Path, segmenter: Segmenter, tmp_path: Path, capsys: Capture) -> None:
    path = clip(tmp_path / "jump.mkv", 4, times=[0, 40, 2**41, 2**41 + 40])
    line = error_of(capsys, "predict", folder, path, "--out", tmp_path / "out")
    assert "jump_overlay.mp4 cannot be written (" in line and "give an out that ends in .mkv" in line
    assert not [*(tmp_path / "out").iterdir()]
    assert predict_video(segmenter, path, tmp_path / "jump_out.mkv")[1] == 4


@pytest.mark.parametrize("name", ["a.mp4", pytest.param("a.mkv", marks=pytest.mark.slow)])
def test_a_full_disk_leaves_nothing(name: str, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """After any number of bytes, up to the last ones."""
    path, out = clip(tmp_path / "a.mp4", 8), tmp_path / "out"
    output_of(capsys, "predict", folder, path, "--out", out / name)
    length = (out / name).stat().st_size
    (out / name).unlink()
    for size in (0, 100, 1000, length // 2, length - 100, length - 1):
        with small_files(size):
            line = error_of(capsys, "predict", folder, path, "--out", out / name)
        assert str(out / name) in line and os.strerror(errno.EFBIG) in line
        assert not [*out.iterdir()]


def test_an_interrupt_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = clip(tmp_path / "a.mp4", 30), tmp_path / "out"

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crispseg.inference.segmentation.Segmentation.overlay", stop)
    assert main(["predict", str(folder), str(path), "--out", str(out)]) == 130
    assert not [*out.iterdir()]
