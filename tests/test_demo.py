"""The demo without its server: uploads, what is made of them, and the command."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from drawn import drawn
from PIL import Image

from crispseg import CrispsegError, create_model
from crispseg.cli import demo as command
from crispseg.cli.main import main
from crispseg.demo import app
from crispseg.demo.examples import Examples
from crispseg.demo.uploads import Limits, read_upload, sweep
from crispseg.inspection import inspect_image
from crispseg.io.images import read_mask
from crispseg.models import SegmentationModel
from crispseg.models.info import ModelInfo

Refuses = Callable[..., Any]


def noise(height: int, width: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def tiny(name: str = "sfnet") -> SegmentationModel:
    torch.manual_seed(0)
    return create_model(name, num_classes=3, backbone="test_efficientnet", pretrained=False, width=16).eval()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that is not there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def progressive(scans: int) -> bytes:
    """A JPEG of 16×16 pixels in many scans, all but the first of nothing."""

    def part(marker: int, data: bytes) -> bytes:
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data

    start = part(0xDB, bytes([0] + [1] * 64)) + part(0xC2, struct.pack(">BHHB", 8, 16, 16, 1) + b"\x01\x11\x00")
    codes = [part(0xC4, bytes([kind, 1, *[0] * 15, symbol])) for kind, symbol in ((0x00, 0x00), (0x10, 0xE0))]
    first = part(0xDA, b"\x01\x01\x00\x00\x00\x00") + b"\x0f"
    rest = (part(0xDA, bytes([1, 1, 0, 1 + scan % 63, 1 + scan % 63, 0])) + b"\x7f\xff\0" for scan in range(scans - 1))
    return b"\xff\xd8" + start + b"".join(codes) + first + b"".join(rest) + b"\xff\xd9"


def icon() -> bytes:
    """An icon of 16×16 pixels whose picture has many more, which only decoding it would tell."""
    large = io.BytesIO()
    Image.new("L", (600, 400)).save(large, "PNG")
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(large.getvalue()), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + large.getvalue()


def saved(path: Path, pixels: Any, **options: Any) -> dict[str, Any]:
    Image.fromarray(pixels).save(path, **options)
    return {"path": str(path), "orig_name": path.name}


@pytest.fixture(scope="module")
def sfnet() -> SegmentationModel:
    return tiny()


@pytest.fixture
def demo(sfnet: SegmentationModel, tmp_path: Path) -> Any:
    page = pytest.importorskip("crispseg.demo.page", reason="gradio is not installed: pip install 'crispseg[demo]'")
    return page.Demo({"tiny": sfnet}, torch.device("cpu"), tmp_path, Limits(working_pixels=64 * 96))


# Uploads --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.mpo", "a.webp", "a.tif", "a.bmp", "a.gif"])
def test_formats_that_the_page_names_are_read(name: str, tmp_path: Path) -> None:
    saved(tmp_path / name, noise(40, 48))
    assert read_upload(tmp_path / name, 3, Limits()).shape == (40, 48, 3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("note.png", b"hello", "note.png is not an image in a known format; convert it to PNG or JPEG"),
        ("bomb.ico", icon(), "bomb.ico is not an image in a known format"),
        ("run.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image"),
        ("empty.png", b"", "empty.png is empty (0 bytes); send another copy of it"),
        ("bomb.png", bomb(60000, 60000), "bomb.png claims more than 134,217,728 pixels"),
        ("wide.png", bomb(6000, 4000), "wide.png has 6000×4000 pixels, and the limit of this demo is 20,000,000"),
        ("cut.png", bomb(640, 480), "cut.png is broken ("),
        ("many.jpg", progressive(101), "many.jpg is a JPEG of more than 100 scans; save it anew, or as PNG"),
        ("gone.png", None, "gone.png is no longer kept here; upload it again"),
    ],
)
def test_bad_uploads_are_refused_without_the_server_s_path(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CrispsegError) as caught:
        read_upload(tmp_path / name, 3, Limits())
    said = str(caught.value)
    assert message in said and str(tmp_path) not in said and "\n" not in said


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path, refuses: Refuses) -> None:
    saved(tmp_path / "padded.png", noise(4, 4))
    with (tmp_path / "padded.png").open("ab") as file:
        file.write(bytes(20_001))
    with refuses("padded.png is larger than 0.02 MB, the limit of this demo; shrink it"):
        read_upload(tmp_path / "padded.png", 3, Limits(megabytes=0.02))


def test_a_jpeg_of_few_scans_is_read(tmp_path: Path) -> None:
    (tmp_path / "few.jpg").write_bytes(progressive(100))
    assert read_upload(tmp_path / "few.jpg", 3, Limits()).shape == (16, 16, 3)


def test_the_oldest_files_go_first(tmp_path: Path) -> None:
    for index, (age, kilobytes) in enumerate([(1, 400), (2, 400), (3, 400), (2000, 1)]):
        path = tmp_path / f"folder{index}" / "file"
        path.parent.mkdir()
        path.write_bytes(bytes(1000 * kilobytes))
        os.utime(path, (time.time() - age,) * 2)
    for name, age in (("empty", 130), ("fresh", 1)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    sweep(tmp_path, Limits(kept_megabytes=0.9, kept_seconds=1000))
    assert {path.parent.name for path in tmp_path.rglob("file")} == {"folder0", "folder1"}
    assert (tmp_path / "fresh").exists() and not (tmp_path / "empty").exists()


# What is made of them -------------------------------------------------------------------------------------------------


def test_segment_gives_the_page_the_times_and_the_mask(demo: Any, sfnet: SegmentationModel, tmp_path: Path) -> None:
    pixels = noise(64, 96)
    html, times, download = demo.segment(saved(tmp_path / "a b.png", pixels), "tiny")
    expected = inspect_image(sfnet, pixels)
    mask = Path(download.value["path"])
    assert np.array_equal(read_mask(mask), expected.labels) and mask.name == "a b_mask.png"
    with Image.open(mask) as file:
        assert file.mode == "P"
        assert file.getpalette()[:9] == [value for color in expected.label_set.palette for value in color]
    assert 'sandbox="allow-scripts"' in html and "flow F3 → F2" in html and html.count('"') == 8
    network, total = (float(value) for value in re.findall(r"(\d+) ms", times))
    assert 0 < network <= total and times.endswith("on cpu")
    assert "srcdoc" not in demo.segment(None, "tiny")[0]


def test_a_large_image_is_segmented_reduced_and_its_mask_has_its_own_size(demo: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned, too
    upload = saved(tmp_path / "large.jpg", np.repeat(np.repeat(noise(32, 48), 6, 0), 6, 1), exif=exif)
    html, _, download = demo.segment(upload, "tiny")
    assert "reduced copy of the image of 192 × 288 pixels" in html
    assert read_mask(download.value["path"]).shape == (288, 192)


def test_only_uploads_are_read(demo: Any, tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "link.png").symlink_to("/etc/passwd")
    outside = "/etc/passwd", f"{tmp_path}/../x.png", "http://example.com/a.png", str(tmp_path / "link.png")
    for upload in (*({"path": path} for path in outside), "text", {}, {"path": 3}):
        with refuses("this is no uploaded image"):
            demo.inspect(upload, "tiny")
    for model in ("other", None, ["tiny"]):
        with refuses("there is no such model"):
            demo.inspect(saved(tmp_path / "a.png", noise(64, 64)), model)


# Examples -------------------------------------------------------------------------------------------------------------


INFO = ModelInfo("fpn", 3, "test_efficientnet", 3, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of own data: ten images, of which two are validated on; only the last is no picture."""
    run = tmp_path_factory.mktemp("runs") / "nuclei"
    for folder in ("images/a", "masks/a"):
        (run / folder).mkdir(parents=True)
    for index in range(10):
        saved(run / "images/a" / f"n{index}.png", noise(40, 48 + index))
        saved(run / "masks/a" / f"n{index}.png", np.zeros((40, 48 + index), np.uint8))
    (run / "val.txt").write_text("n3\nn5\n")
    data = {"name": "folder", "images": "images", "masks": "masks", "val_list": "val.txt"}
    recorded = {key: str(run / value) if key != "name" else value for key, value in data.items()} | {"num_classes": 3}
    model = tiny("fpn")
    model.info = dataclasses.replace(model.info, recipe={"data": recorded})
    model.save_pretrained(run / "model")
    (run / "config.yaml").write_text(yaml.safe_dump({"data": recorded}))
    return run


def test_examples_are_val_images_of_the_run(nuclei: Path) -> None:
    found = command.examples_of(str(nuclei), INFO)
    assert found and [found.name(at) for at in range(len(found))] == ["n3", "n5"]
    assert np.array_equal(found.image(1), noise(40, 53)) and found.thumbnails[1].shape == (40, 53, 3)


def test_at_most_six_examples_small_beside_each_other() -> None:
    found = Examples(drawn(val=9, height=128, width=320).dataset("val"))
    assert [thumbnail.shape for thumbnail in found.thumbnails] == [(64, 160, 3)] * 6
    assert [found.name(at) for at in (0, 5)] == ["val_0000", "val_0008"]


def test_what_a_model_of_others_says_of_its_data_is_not_followed(nuclei: Path, tmp_path: Path) -> None:
    assert command.examples_of(str(nuclei / "model"), INFO) is None
    tiny("fpn").save_pretrained(tmp_path / "plain")
    assert command.examples_of(str(tmp_path / "plain"), INFO) is None


def test_data_that_are_gone_are_no_examples(nuclei: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (nuclei / "config.yaml").read_text().replace(str(nuclei / "images"), str(tmp_path / "gone"))
    shutil.copytree(nuclei / "model", tmp_path / "moved/model")
    (tmp_path / "moved/config.yaml").write_text(text)
    assert command.examples_of(str(tmp_path / "moved"), INFO) is None
    said = capsys.readouterr().err
    assert said.startswith(f"no examples for {tmp_path / 'moved'}: ") and f"{tmp_path / 'gone'} is missing" in said


def test_only_examples_can_be_chosen(demo: Any, nuclei: Path, tmp_path: Path) -> None:
    own = command.examples_of(str(nuclei), INFO)
    demo.examples = {"tiny": own}
    path = Path(demo.example("tiny", SimpleNamespace(index=1)))
    assert path.name == "n5.png" and path.resolve().is_relative_to(tmp_path)
    assert np.array_equal(read_upload(path, 3, Limits()), noise(40, 53))
    for name, index in (("tiny", 2), ("tiny", -1), ("tiny", "0"), ("tiny", None), ("other", 0), (["tiny"], 0)):
        with pytest.raises(Exception, match="there is no such example"):
            demo.example(name, SimpleNamespace(index=index))
    assert [demo.offer(name).visible for name in ("tiny", "other")] == [True, False]


# The command ----------------------------------------------------------------------------------------------------------


def test_mistakes_are_told_before_models_are_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> str:
        assert main(["demo", *arguments]) == 2
        return capsys.readouterr().err

    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert "pip install 'crispseg[demo]'" in said("nowhere")
    monkeypatch.setattr(app, "find_spec", lambda name: True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen on --host 127.0.0.1, --port {port} (Address already in use)" in said(
            "nowhere", "--port", port
        )
    assert "--port is 0" in said("nowhere", "--port", "0")
    assert "cannot listen on --host a..b" in said("nowhere", "--host", "a..b")
    assert "--max-megabytes is 0" in said("nowhere", "--max-megabytes", "0")
    assert "--max-pixels is -5" in said("nowhere", "--max-pixels=-5")
    assert "a is given more than once" in said("a", "a", "--port", port)
    assert "does not exist" in said(str(tmp_path / "nowhere"), "--port", port)


@pytest.fixture
def _same_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_same_signals")
def test_signals_that_end_it_unless_they_are_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    command._end_cleanly_by("SIGTERM", "SIGHUP", "SIGOFNOSYSTEM")
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    with pytest.raises(SystemExit) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 0


@pytest.mark.usefixtures("_same_signals")
def test_the_command_serves_the_models_until_it_is_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def wait(self) -> None:
            raise KeyboardInterrupt

    def served(models: Any, device: torch.device, **options: Any) -> Any:
        assert list(models) == ["streets"] and models["streets"].info.name == "fpn"
        assert options["limits"] == Limits(megabytes=3) and options["bf16"] is True and options["examples"] == {}
        return nullcontext("http://here/")

    tiny("fpn").save_pretrained(tmp_path / "streets")
    monkeypatch.setattr(app, "check", lambda host, port: None)
    monkeypatch.setattr(app, "served", served)
    monkeypatch.setattr(command, "Event", Interrupted)
    flags = ["--host", "0.0.0.0", "--max-megabytes", "3", "--bf16", "true"]
    assert main(["demo", str(tmp_path / "streets"), *flags]) == 0
    said = capsys.readouterr().out
    assert "Everyone who reaches this address" in said and "streets at http://here/ (Ctrl+C ends it)" in said


@pytest.mark.slow
def test_a_signal_ends_the_server_and_removes_its_files(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'crispseg[demo]'")
    tiny("fpn").save_pretrained(tmp_path / "streets")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    arguments = ["demo", str(tmp_path / "streets"), "--port", port, "--device", "cpu", "--max-megabytes", "3"]
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    server = subprocess.Popen(
        [sys.executable, "-m", "crispseg", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == f"streets at http://127.0.0.1:{port}/ (Ctrl+C ends it)\n"
        assert list((tmp_path / "temporary").glob("crispseg-demo-*"))
        server.send_signal(signal.SIGTERM)  # SIGHUP may be ignored here, as under nohup
        _, said = server.communicate(timeout=60)
    finally:
        server.kill()
    assert server.returncode == 0 and "Traceback" not in said
    assert not list((tmp_path / "temporary").glob("crispseg-demo-*"))
