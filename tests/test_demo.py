"""The parts of the demo that need no Gradio: uploads, what the page shows, results kept for clicks, the command."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from crispseg import CrispsegError, create_model
from crispseg.cli.main import main
from crispseg.demo import app, view
from crispseg.demo.alignment import Step
from crispseg.demo.engine import Engine
from crispseg.demo.guard import Guard
from crispseg.demo.service import Service
from crispseg.demo.session import Kept, Store
from crispseg.demo.uploads import Limits, enlarged, inside, read_upload, reduced, shown_name, trim, uploaded_path
from crispseg.imaging import read_mask, write_image
from crispseg.inference.segmenter import Segmentation
from crispseg.labels import LabelSet

Refuses = Callable[..., Any]
CLASSES = LabelSet(("road", "sky", "car"), ((128, 64, 128), (70, 130, 180), (0, 0, 142)))


def noise(height: int, width: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def engine(name: str = "sfnet", **options: Any) -> Engine:
    torch.manual_seed(0)
    return Engine(create_model(name, num_classes=3, backbone="test_efficientnet", pretrained=False, **options), "cpu")


@pytest.fixture(scope="module")
def sfnet() -> Engine:
    return engine(width=16)


@pytest.fixture
def service(sfnet: Engine, tmp_path: Path) -> Service:
    return Service({"tiny": sfnet}, tmp_path, Limits(working_pixels=64 * 96))


def saved(folder: Path, name: str, pixels: Any, **options: Any) -> dict[str, Any]:
    (folder / "upload").mkdir(exist_ok=True)
    path = folder / "upload" / name
    Image.fromarray(pixels).save(path, **options)
    return {"path": str(path), "orig_name": name}


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that is not there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_segment_gives_picture_times_legend_mask_and_token(service: Service, sfnet: Engine, tmp_path: Path) -> None:
    pixels = noise(64, 96)
    picture, times, legend, mask, token = service.segment(saved(tmp_path, "a b.png", pixels), "tiny", None)
    expected = sfnet(pixels).labels
    assert np.array_equal(read_mask(mask), expected)
    with Image.open(mask) as file:
        assert file.mode == "P" and file.getpalette()[:9] == [v for c in sfnet.label_set.palette for v in c]
    assert Path(mask).name == "a b_mask.png" and inside(mask, tmp_path)
    assert 'data-width="96" data-height="64"' in picture
    network, rest = (float(re.search(rf"{name} <b>(\d+) ms", times)[1]) for name in ("network", "the rest"))  # type: ignore[index]
    assert network > 0 and rest >= 0 and "reading" in times and "96×64 pixels, on cpu" in times
    shares = [float(value) for value in re.findall(r">([\d.]+) %<", legend)]
    assert sum(shares) == pytest.approx(100, abs=0.3) and shares == sorted(shares, reverse=True)
    kept = service.store.get(token)
    assert kept is not None and np.array_equal(kept.labels, expected)


def test_layers_are_the_photo_the_classes_in_their_colours_and_lines_between_them() -> None:
    pixels = noise(64, 96)
    labels = np.zeros((64, 96), np.uint8)
    labels[20:, 30:] = 1
    labels[40:, 60:] = 2
    html = view.stage(Segmentation("x", pixels, labels, CLASSES, None, torch.zeros(1, 3, 16, 24), (64, 96)))
    layers = {
        kind: Image.open(io.BytesIO(base64.b64decode(data)))
        for kind, data in re.findall(r'<img class="cs-(\w+)" src="data:image/\w+;base64,([^"]+)"', html)
    }
    assert np.array_equal(np.array(layers["labels"].convert("RGB")), np.array(CLASSES.palette)[labels])
    assert (
        np.corrcoef(np.array(layers["photo"]).mean(-1).ravel(), pixels.mean(-1).ravel())[0, 1] > 0.8
    )  # a JPEG of noise
    edges = np.array(layers["edges"].convert("RGBA"))
    line, seen = edges[..., 0] == 255, edges[..., 3] > 0
    assert line[20:, 30].all() and line[20, 30:].all() and line[40:, 60].all() and line[40, 60:].all()
    assert line.sum() == 44 + 66 + 24 + 36 - 2
    assert seen[21:39, 29:32].all() and not seen[:18].any() and not seen[23:38, 34:94].any()


def test_a_large_image_is_segmented_reduced_and_its_mask_has_its_own_size(service: Service, tmp_path: Path) -> None:
    upload = saved(tmp_path, "large.jpg", np.repeat(np.repeat(noise(32, 48), 6, 0), 6, 1))
    picture, times, _, mask, token = service.segment(upload, "tiny", None)
    kept = service.store.get(token)
    assert kept is not None and kept.labels.shape == (64, 96)
    assert "96×64 pixels, reduced from 288×192; the mask has the image's own size" in times
    labels = read_mask(mask)
    assert labels.shape == (192, 288) and np.array_equal(labels[1::3, 1::3], kept.labels)
    assert 'data-width="96"' in picture


def test_orientation_is_applied(service: Service, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture, _, _, mask, _ = service.segment(saved(tmp_path, "turned.jpg", noise(64, 96), exif=exif), "tiny", None)
    assert 'data-width="64" data-height="96"' in picture and read_mask(mask).shape == (96, 64)


@pytest.mark.parametrize(
    ("name", "content", "phrases"),
    [
        ("note.png", b"hello", ("note.png is not an image in a known format; convert it to PNG or JPEG",)),
        ("empty.png", b"", ("empty.png is empty",)),
        ("bomb.png", bomb(60000, 60000), ("bomb.png claims more than 134,217,728 pixels",)),
        ("wide.png", bomb(6000, 4000), ("wide.png has 6000×4000 pixels", "20,000,000")),
        ("claims.png", bomb(640, 480), ("claims.png is broken", "send another copy")),
    ],
)
def test_bad_uploads_are_refused_without_the_servers_path(
    service: Service, tmp_path: Path, name: str, content: bytes, phrases: tuple[str, ...]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CrispsegError) as caught:
        service.segment({"path": str(tmp_path / name), "orig_name": name}, "tiny", None)
    message = str(caught.value)
    assert all(phrase in message for phrase in phrases) and str(tmp_path) not in message and "\n" not in message


def test_truncated_images_are_refused(service: Service, tmp_path: Path, refuses: Refuses) -> None:
    upload = saved(tmp_path, "cut.jpg", noise(64, 96))
    path = Path(upload["path"])
    path.write_bytes(path.read_bytes()[:1500])
    with refuses("cut.jpg is broken (", "send another copy"):
        service.segment(upload, "tiny", None)


def progressive(scans: int) -> bytes:
    """A JPEG of 16×16 pixels in many scans, all but the first of nothing."""

    def part(marker: int, data: bytes) -> bytes:
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data

    start = part(0xDB, bytes([0] + [1] * 64)) + part(0xC2, struct.pack(">BHHB", 8, 16, 16, 1) + b"\x01\x11\x00")
    codes = [part(0xC4, bytes([kind, 1, *[0] * 15, symbol])) for kind, symbol in ((0x00, 0x00), (0x10, 0xE0))]
    first = part(0xDA, b"\x01\x01\x00\x00\x00\x00") + b"\x0f"
    rest = (part(0xDA, bytes([1, 1, 0, 1 + scan % 63, 1 + scan % 63, 0])) + b"\x7f\xff\0" for scan in range(scans - 1))
    return b"\xff\xd8" + start + b"".join(codes) + first + b"".join(rest) + b"\xff\xd9"


def test_jpegs_of_very_many_scans_are_refused(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "few.jpg").write_bytes(progressive(100))
    assert read_upload(tmp_path / "few.jpg", "few.jpg", 3, Limits()).pixels.shape == (16, 16, 3)
    (tmp_path / "many.jpg").write_bytes(progressive(101))
    with refuses("many.jpg is a JPEG of more than 100 scans; save it anew, or as PNG"):
        read_upload(tmp_path / "many.jpg", "many.jpg", 3, Limits())


def test_only_the_formats_that_the_page_names_are_read(tmp_path: Path, refuses: Refuses) -> None:
    picture = Image.fromarray(noise(40, 48))
    for name in ("a.png", "a.jpg", "a.mpo", "a.webp", "a.tif", "a.bmp", "a.gif"):
        picture.save(tmp_path / name)
        assert read_upload(tmp_path / name, name, 3, Limits()).size == (40, 48)
    # An icon of 16×16 pixels whose picture has many more, which only decoding it would tell.
    large = io.BytesIO()
    Image.new("L", (600, 400)).save(large, "PNG")
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(large.getvalue()), 22)
    (tmp_path / "bomb.ico").write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + large.getvalue())
    (tmp_path / "run.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    for name in ("bomb.ico", "run.eps"):
        with refuses(f"{name} is not an image in a known format; convert it to PNG or JPEG"):
            read_upload(tmp_path / name, name, 3, Limits())


@pytest.mark.parametrize(
    ("mode", "ending"), [("L", "png"), ("LA", "png"), ("RGBA", "webp"), ("P", "gif"), ("1", "png"), ("I;16", "png")]
)
def test_other_kinds_of_images_are_segmented(service: Service, tmp_path: Path, mode: str, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.new(mode, (50, 40), 1 if mode in ("L", "P", "1", "I;16") else None).save(path)
    *_, mask, token = service.segment({"path": str(path), "orig_name": path.name}, "tiny", None)
    assert read_mask(mask).shape == (40, 50) and "Pixel x 49, y 39" in service.pixel(token, [49, 39])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7000), (300, 2)])
def test_images_of_extreme_shapes(service: Service, sfnet: Engine, tmp_path: Path, height: int, width: int) -> None:
    picture, times, _, mask, token = service.segment(saved(tmp_path, "a.png", noise(height, width)), "tiny", None)
    assert read_mask(mask).shape == (height, width)
    result = service.store.get(token)
    assert result is not None
    seen = result.labels.shape
    assert max(seen[0], 32) * max(seen[1], 32) <= service.limits.working_pixels
    assert f'data-width="{seen[1]}" data-height="{seen[0]}"' in picture and f"{seen[1]}×{seen[0]} pixels" in times
    assert f"Pixel x {seen[1] - 1}, y {seen[0] - 1}:" in service.pixel(token, [1e300, 1e300])


def test_limits_of_bytes_and_vanished_files(tmp_path: Path, refuses: Refuses) -> None:
    write_image(tmp_path / "a.png", noise(64, 96))
    with refuses("a.png is larger than 0.01 MB"):
        read_upload(tmp_path / "a.png", "a.png", 3, Limits(megabytes=0.01))
    with refuses("gone.png is no longer kept here; upload it again"):
        read_upload(tmp_path / "gone.png", "gone.png", 3, Limits())
    with refuses("--max-pixels is 0"):
        Limits(pixels=0)
    with refuses("--max-megabytes is -1"):
        Limits(megabytes=-1)


def test_only_uploads_are_read(service: Service, tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "link.png").symlink_to("/etc/passwd")
    for path in (
        "/etc/passwd",
        str(tmp_path / ".." / "x.png"),
        "http://example.com/a.png",
        "a\0b",
        str(tmp_path / "link.png"),
    ):
        with refuses("this is no uploaded image"):
            uploaded_path({"path": path}, tmp_path)
    for upload in (None, "text", {}, {"path": 3}):
        with refuses("this is no uploaded image"):
            uploaded_path(upload, tmp_path)
    upload = saved(tmp_path, "a.png", noise(64, 64))
    for model in ("other", None, ["tiny"]):
        with refuses("there is no such model"):
            service.segment(upload, model, None)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("street.jpg", "street.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\a b.PNG", "a b.PNG"),
        ("<img src=x>.png", "img src=x.png"),
        ("a\n\x1b[31m.png", "a[31m.png"),
        ("..", "image"),
        (None, "image"),
        ("x" * 300 + ".jpeg", "x" * 55 + ".jpeg"),
    ],
)
def test_names_that_are_shown(sent: object, shown: str) -> None:
    assert shown_name(sent) == shown


def test_reducing_and_enlarging() -> None:
    image = noise(80, 120)
    assert reduced(image, 9600) is image
    assert reduced(image, 2400).shape == (40, 60, 3)
    assert np.array_equal(reduced(np.repeat(np.repeat(image, 2, 0), 2, 1), 9600), image)
    # The network sees no side shorter than 32.
    assert reduced(noise(1, 9000), 9600).shape == (1, 300, 3) and reduced(noise(9000, 2), 9600).shape == (300, 1, 3)
    assert reduced(noise(40, 9000), 9600).shape == (7, 300, 3) and reduced(noise(1, 300), 9600).shape == (1, 300, 3)
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(enlarged(labels, (4, 6)), np.repeat(np.repeat(labels, 2, 0), 2, 1))


def test_the_oldest_files_go_first(tmp_path: Path) -> None:
    now = time.time()
    for index, (age, kilobytes) in enumerate([(1, 400), (2, 400), (3, 400), (2000, 1)]):
        path = tmp_path / f"folder{index}" / "file"
        path.parent.mkdir()
        path.write_bytes(bytes(1000 * kilobytes))
        os.utime(path, (now - age, now - age))
    os.utime(tmp_path / "folder3", (now - 9000, now - 9000))
    assert trim(tmp_path, Limits(cache_megabytes=0.9, cache_seconds=1000), now) == 800_000
    assert {path.parent.name for path in tmp_path.rglob("file")} == {"folder0", "folder1"}
    os.utime(tmp_path / "folder3", (now - 9000, now - 9000))  # empty for long
    trim(tmp_path, Limits(), now)
    assert {path.name for path in tmp_path.iterdir()} == {"folder0", "folder1", "folder2"}


def test_empty_files_are_bounded_too(tmp_path: Path) -> None:
    for index in range(10):
        (tmp_path / str(index)).touch()
    assert trim(tmp_path, Limits(cache_megabytes=0.02)) == 4 * 4096 and len(list(tmp_path.iterdir())) == 4


def test_ending_waits_for_what_is_under_way(sfnet: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask that is written later would bring the removed folder back."""
    begun, see, masks = Event(), sfnet.see, []

    def slow(picture: Any) -> Any:
        begun.set()
        time.sleep(0.3)
        return see(picture)

    monkeypatch.setattr(sfnet, "see", slow)
    service = Service({"one": sfnet}, tmp_path, Limits())
    upload = saved(tmp_path, "a.png", noise(64, 64))
    thread = Thread(target=lambda: masks.append(service.segment(upload, "one", None)[3]))
    thread.start()
    assert begun.wait(30)
    service.close()
    assert list(tmp_path.glob("*/a_mask.png"))
    thread.join()
    assert Path(masks[0]).exists()


def test_the_result_before_can_be_clicked_until_the_next_one_is_there(
    service: Service, sfnet: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    upload = saved(tmp_path, "a.png", noise(64, 64))
    first = service.segment(upload, "tiny", None)[-1]
    see, meanwhile = sfnet.see, []

    def seen(picture: Any) -> Any:
        meanwhile.append(service.pixel(first, [1, 1]))
        return see(picture)

    monkeypatch.setattr(sfnet, "see", seen)
    second = service.segment(upload, "tiny", first)[-1]
    assert "Pixel x 1, y 1" in meanwhile[0] and len(service.store) == 1
    (tmp_path / "empty.png").touch()
    with refuses("empty.png is empty"):
        service.segment({"path": str(tmp_path / "empty.png")}, "tiny", second)
    assert len(service.store) == 0


def kept(pixels: int) -> Kept:
    return Kept(np.zeros((1, pixels), np.uint8), CLASSES, ())


def test_results_are_kept_within_bounds_and_apart() -> None:
    store = Store(capacity=250)
    first, second = store.put(kept(100)), store.put(kept(100))
    assert first != second and store.get(first) is not store.get(second) and store.nbytes() == 200
    assert store.get(first) is not None  # used last: the second goes
    third = store.put(kept(100))
    assert store.get(second) is None and store.get(first) is not None and store.get(third) is not None
    fourth = store.put(kept(1000))  # the last one stays, however large it is
    assert store.get(third) is None and store.get(fourth) is not None and len(store) == 1
    store.drop(fourth)
    store.drop(None)
    assert store.get(fourth) is None and store.get(None) is None and store.nbytes() == 0


def test_flow_of_a_pixel_is_told_and_drawn_where_it_points() -> None:
    # A level of 3×5 pixels over an image of 9×17: its pixels are 4 apart. All look 0.5 to the right and 1 up.
    xs, ys = np.arange(5, dtype=np.float32) * 4, np.arange(3, dtype=np.float32) * 4
    ends = np.stack(np.meshgrid(xs + 2, ys - 4), axis=-1)[:, :, None]
    step = Step("F5 → F4", xs, ys, ends, None, (4.0, 4.0))
    look = step.at(7, 5)
    assert look.start == (8, 4) and look.vector == (0.5, -1) and look.points.tolist() == [[10, 0]]
    html = view.pixel(Kept(np.ones((9, 17), np.uint8), CLASSES, (step,)), 7, 5)
    assert "Pixel x 7, y 5:" in html and "sky" in html and "road" not in html
    assert "flow (+0.50, −1.00) pixels of its 5×3 level, 4.5 of the image" in html
    assert "M8.00 4.00L10.00 0.00" in html and "Arrows have their length" in html
    short = Step("F5 → F4", xs, ys, np.stack(np.meshgrid(xs + 0.5, ys), axis=-1)[:, :, None], None, (4.0, 4.0))
    html = view.pixel(Kept(np.ones((9, 17), np.uint8), CLASSES, (short,)), 7, 5)
    assert "drawn 4 times as long" in html and "M8.00 4.00L10.00 4.00" in html


def test_points_of_a_pixel_are_drawn_where_they_lie() -> None:
    xs, ys = np.array([0, 8], np.float32), np.array([0, 8], np.float32)
    points = np.zeros((2, 2, 2, 2), np.float32)
    points[1, 0] = [[3.25, 8], [0, np.inf]]
    weights = np.zeros((2, 2, 2), np.float32)
    weights[1, 0] = [0.5, 0.0]
    html = view.pixel(Kept(np.zeros((9, 9), np.uint8), CLASSES, (Step("F5 → F4", xs, ys, points, weights),)), -5, 99)
    assert "Pixel x 0, y 8: " in html and html.count("<circle") == 1 and "nan" not in html
    assert '<circle cx="3.25" cy="8.00"' in html and "2 points" in html


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [("sfnet", {"width": 16}, "flow ("), ("ddsm_upernet", {"width": 16}, " points, "), ("unept", {}, " points, ")],
)
def test_each_system_tells_where_it_looked(name: str, options: dict[str, Any], expected: str, tmp_path: Path) -> None:
    service = Service({"one": engine(name, **options)}, tmp_path, Limits())
    token = service.segment(saved(tmp_path, "a.png", noise(64, 96)), "one", None)[-1]
    html = service.pixel(token, [40, 30])
    assert expected in html and "nan" not in html
    result = service.store.get(token)
    assert result is not None and len(result.steps) == html.count("<tr>")


def test_the_flow_that_is_told_is_that_of_the_network(sfnet: Engine, tmp_path: Path) -> None:
    from crispseg.inspection import inspect_image
    from crispseg.inspection.flow import flows

    torch.manual_seed(0)
    model = create_model("sfnet", num_classes=3, backbone="test_efficientnet", pretrained=False, width=16)
    service = Service({"one": Engine(model, "cpu")}, tmp_path, Limits())
    pixels = noise(64, 96)
    result = service.store.get(service.segment(saved(tmp_path, "a.png", pixels), "one", None)[-1])
    assert result is not None
    expected = flows(inspect_image(model, pixels, device="cpu"))
    assert [step.title for step in result.steps] == [flow.title for flow in expected] and len(expected) > 1
    for step, flow in zip(result.steps, expected, strict=True):
        look = step.at(40, 30)
        row, column = np.abs(step.ys - 30).argmin(), np.abs(step.xs - 40).argmin()
        assert look.vector == pytest.approx(flow.pixels[:, row, column].tolist(), abs=1e-3)


def test_a_model_without_alignment_tells_the_class_only(tmp_path: Path) -> None:
    service = Service({"one": engine("fpn", width=16)}, tmp_path, Limits())
    token = service.segment(saved(tmp_path, "a.png", noise(64, 96)), "one", None)[-1]
    assert "This model computes no flow and samples no points" in service.pixel(token, [3, 4])


def test_places_that_are_none_and_results_that_are_gone(service: Service, tmp_path: Path, refuses: Refuses) -> None:
    token = service.segment(saved(tmp_path, "a.png", noise(64, 64)), "tiny", None)[-1]
    for place in (None, [1], ["1", "2"], [float("nan"), 0], {"x": 1}):
        with refuses("this is no place in the picture"):
            service.pixel(token, place)
    service.segment(saved(tmp_path, "a.png", noise(64, 64)), "tiny", token)  # replaces it
    for gone in (token, None, "guess"):
        with refuses("this result is no longer kept; segment the image again"):
            service.pixel(gone, [1, 1])


def test_names_of_classes_are_text(service: Service) -> None:
    html = view.legend({"<b>": 0.9996, "&": 0.0004, "<i>": 0.0}, LabelSet(("<b>", "&", "<i>"), CLASSES.palette))
    assert "&lt;b&gt;" in html and "<b>" not in html and "&lt;0.1 %" in html
    assert "Not in this image: &lt;i&gt;." in html


def test_what_the_guard_lets_through(tmp_path: Path) -> None:
    guard = Guard(None, folder=tmp_path, limits=Limits())  # type: ignore[arg-type]
    for path in ("/", "/config", "/assets/index.js", "/gradio_api/queue/join", "/gradio_api/upload"):
        assert guard.refusal("POST", path) is None
    assert guard.refusal("GET", f"/gradio_api/file={tmp_path}/a/mask.png") is None
    for path in (
        "/etc/passwd",
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={tmp_path}/../x",
        "/gradio_api/file=http://example.com/",
        "/gradio_api/proxy=http://example.com/",
        "/gradio_api/vibe-code/",
        "/gradio_api/component_server",
        "/monitoring",
        "/static/../../x",
        "/assets/%2e%2e/x",
    ):
        assert guard.refusal("GET", path) is not None, path
    assert guard.refused_body(b'{"data": [{"path": "/etc/passwd"}]}') is not None
    assert guard.refused_body(b'{"data": [[{"x": {"path": "https://example.com/a.png"}}]]}') is not None
    assert guard.refused_body(f'{{"data": [{{"path": "{tmp_path}/a.png"}}, "path"]}}'.encode()) is None
    assert guard.refused_body(b"[" * 100_000) is not None and guard.refused_body(b"no") is not None


def test_mistakes_are_told_before_models_are_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> str:
        assert main(["demo", *arguments]) == 2
        return capsys.readouterr().err

    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert "pip install 'crispseg[demo]'" in said("nowhere")
    monkeypatch.setattr(app, "find_spec", lambda name: True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1, port {port} (Address already in use); give another --port" in said(
            "nowhere", "--port", port
        )
    assert "--port is 0" in said("nowhere", "--port", "0")
    assert "--host a..b is not known" in said("nowhere", "--host", "a..b")
    assert "--max-megabytes is 0" in said("nowhere", "--max-megabytes", "0")
    assert "--max-pixels is -5" in said("nowhere", "--max-pixels=-5")
    assert "a is given more than once" in said("a", "a", "--port", port)
    assert "does not exist" in said(str(tmp_path / "nowhere"), "--port", port)
    assert "did you mean 'port'" in said("nowhere", "--prot", "1")


def test_no_place_for_temporary_files_is_told(sfnet: Engine, monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    def full(prefix: str) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(app, "check_gradio", lambda: None)
    monkeypatch.setattr(app.tempfile, "mkdtemp", full)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with refuses("no folder for uploads can be made (No usable temporary directory", "set TMPDIR"):
        app.Demo({"one": sfnet}, port=port)


def test_signals_that_end_it_unless_they_are_ignored() -> None:
    from crispseg.cli.demo import _end_cleanly_by

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        _end_cleanly_by("SIGTERM", "SIGHUP", "SIGOFNOSYSTEM")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.code == 0
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        _end_cleanly_by("SIGTERM", "SIGHUP")
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGHUP)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.slow
def test_a_signal_ends_the_server_and_removes_its_files(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'crispseg[demo]'")
    create_model("fpn", num_classes=3, backbone="test_efficientnet", pretrained=False, width=16).save_pretrained(
        tmp_path / "streets"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "crispseg", "demo", str(tmp_path / "streets"), "--port", port, "--device", "cpu"]
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None and "Ctrl+C ends it" in server.stdout.readline()
        assert list((tmp_path / "temporary").glob("crispseg-demo-*"))
        server.send_signal(signal.SIGTERM)  # SIGHUP may be ignored here, as under nohup
        _, said = server.communicate(timeout=60)
    finally:
        server.kill()
    assert server.returncode == 0 and "Traceback" not in said
    assert not list((tmp_path / "temporary").glob("crispseg-demo-*"))


def test_the_command_serves_until_it_ends(
    sfnet: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed: pip install 'crispseg[demo]'")
    create_model("fpn", num_classes=3, backbone="test_efficientnet", pretrained=False, width=16).save_pretrained(
        tmp_path / "streets"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = []

    def visit(demo: app.Demo) -> None:
        with urllib.request.urlopen(demo.url) as answer:
            served.append((demo.url, answer.status, demo.folder, demo.folder.is_dir(), dict(demo.service.engines)))
            served.append(demo.service.limits)

    monkeypatch.setattr(app.Demo, "wait", visit)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    environment = dict(os.environ)
    try:
        assert main(["demo", str(tmp_path / "streets"), "--port", str(port), "--max-megabytes", "3"]) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    (url, status, folder, was_there, engines), limits = served
    assert url == f"http://127.0.0.1:{port}/" and status == 200 and was_there and not folder.exists()
    assert list(engines) == ["streets"] and engines["streets"].info.name == "fpn" and limits == Limits(megabytes=3)
    assert f"streets at {url} (Ctrl+C ends it)" in capsys.readouterr().out
    assert {key: os.environ.get(key) for key in environment} == environment and "GRADIO_TEMP_DIR" not in os.environ
    app.check_address("127.0.0.1", port)  # it is free again
