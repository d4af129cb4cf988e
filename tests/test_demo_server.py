"""The demo's server: over HTTP, also as no browser would ask it, and in a real browser."""

from __future__ import annotations

import importlib
import io
import os
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_demo import bomb, noise

from crispseg import create_model
from crispseg.demo import app
from crispseg.demo.app import Demo
from crispseg.demo.engine import Engine
from crispseg.demo.uploads import Limits

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'crispseg[demo]'")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """The script that loads a demo, for its client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("demo_load")


@pytest.fixture(scope="module")
def demo(load: Any) -> Iterator[Demo]:
    torch.manual_seed(0)
    engines = {
        name: Engine(create_model(name, num_classes=3, backbone="test_efficientnet", pretrained=False, width=16), "cpu")
        for name in ("sfnet", "fpn")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "TIDY", 0.2)
        with Demo(engines, port=load.free_port(), limits=Limits(megabytes=0.5, pixels=200_000)) as running:
            yield running
    assert not running.folder.exists()


@pytest.fixture
def page(demo: Demo, load: Any) -> Any:
    return load.Page(demo.url)


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def wait_for(value: Callable[[], Any]) -> Any:
    """The first value that is true, or the last one after 20 seconds."""
    until = time.monotonic() + 20
    while not (found := value()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def works(page: Any, load: Any) -> None:
    """The server still serves."""
    outputs = page.segment(page.upload("street.png", png(noise(64, 96))), "sfnet")
    mask = Image.open(io.BytesIO(page.file(load.mask_path(outputs))))
    assert mask.mode == "P" and mask.size == (96, 64) and np.array(mask).max() < 3


def test_an_image_is_segmented_and_clicked(page: Any, load: Any, demo: Demo) -> None:
    pixels = noise(64, 96)
    outputs = page.segment(page.upload("street.png", png(pixels)), "sfnet")
    assert "cs-stage" in outputs[0] and "network <b>" in outputs[1] and "Share of pixels" in outputs[2]
    path = load.mask_path(outputs)
    assert path.endswith("/street_mask.png")
    expected = demo.service.engines["sfnet"](pixels).labels
    assert np.array_equal(np.array(Image.open(io.BytesIO(page.file(path)))), expected)
    answer = page.click(40, 30)
    assert "Pixel x 40, y 30" in answer and "flow (" in answer and "cs-source" in answer


def test_a_sample_is_drawn_anew(page: Any) -> None:
    one, other = (page.event("sample", [])[0]["path"] for _ in range(2))
    assert page.file(one) != page.file(other)
    assert "512×384 pixels" in page.segment({"path": one, "meta": {"_type": "gradio.FileData"}}, "fpn")[1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("note.png", b"hello", "note.png is not an image in a known format; convert it to PNG or JPEG"),
        ("cut.png", png(noise(64, 96))[:9000], "cut.png is broken (image file is truncated"),
        ("bomb.png", bomb(60000, 60000), "bomb.png claims more than 134,217,728 pixels"),
        ("wide.png", bomb(600, 400), "wide.png has 600×400 pixels, and the limit of this demo is 200,000 in all"),
        ("a&b<i>.png", b"hello", "a&amp;bi.png is not an image"),
    ],
)
def test_bad_images_get_a_message(page: Any, load: Any, demo: Demo, name: str, content: bytes, message: str) -> None:
    upload = page.upload(name, content)
    with pytest.raises(load.Refused) as caught:
        page.segment(upload, "sfnet")
    assert message in str(caught.value) and str(demo.folder) not in str(caught.value)
    works(page, load)


@pytest.mark.parametrize("size", [510_000, 2_000_000])
def test_oversize_uploads_are_refused(page: Any, load: Any, demo: Demo, size: int) -> None:
    with pytest.raises(load.Refused, match=r"413: .*(maximum allowed size of 500000 bytes|larger than 0\.5 MB)"):
        page.upload("large.png", bytes(size))
    assert not [path for path in demo.folder.rglob("*") if path.is_file() and path.stat().st_size > 500_000]
    with pytest.raises(load.Refused, match=r"413: .*the request is larger"):
        page.event("segment", ["x" * 2_000_000, "sfnet", None])
    answer = page.http.post("gradio_api/upload", content=iter([b"no length is stated"]))
    assert answer.status_code == 411
    works(page, load)


def test_names_of_files_lead_nowhere(page: Any, load: Any, demo: Demo) -> None:
    for name in ("../../../escaped.png", "/etc/escaped.png", "..\\..\\escaped.png", "a/../../escaped.png"):
        upload = page.upload(name, png(noise(64, 96)))
        path = Path(upload["path"])
        assert path.resolve().is_relative_to(demo.folder) and path.name.endswith("escaped.png")
        mask = Path(load.mask_path(page.segment(upload, "sfnet")))
        assert mask.parents[1] == demo.folder and mask.name == "escaped_mask.png"
    assert not list(demo.folder.parent.glob("*escaped*"))


def test_a_full_queue_says_so(page: Any, load: Any, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = demo.blocks._queue
    assert queue.max_size == 64
    with monkeypatch.context() as patch:
        patch.setattr(queue, "max_size", 0)
        with pytest.raises(load.Refused, match=r"503: .*Queue is full"):
            page.event("sample", [])
    works(page, load)


def test_an_upload_that_breaks_off_leaves_nothing(page: Any, load: Any, demo: Demo) -> None:
    """What it left on the disk counts, and goes like everything else that is too old."""
    before = set(demo.folder.iterdir())
    address = demo.url.removeprefix("http://").rstrip("/")
    host, port = address.split(":")
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {address}\r\nContent-Length: 400000"
    part = '--B\r\nContent-Disposition: form-data; name="files"; filename="a.png"'
    request = f"{head}\r\nContent-Type: multipart/form-data; boundary=B\r\n\r\n{part}"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(request.encode() + b"\r\n\r\n" + bytes(200_000))
        left = wait_for(lambda: set(demo.folder.iterdir()) - before)
    for path in left:
        os.utime(path, (0, 0))
    assert wait_for(lambda: not any(path.exists() for path in left))
    works(page, load)


def test_pages_that_are_no_images_are_downloaded_not_shown(page: Any) -> None:
    for name in ("a.html", "a.svg"):
        path = page.upload(name, b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")["path"]
        headers = page.http.get(f"gradio_api/file={path}").headers
        assert headers["content-disposition"].startswith("attachment")
        assert headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=//etc/passwd",
        "gradio_api/file=%2Fetc%2Fpasswd",
        "gradio_api/file=FOLDER/../../etc/passwd",
        "gradio_api/file=FOLDER/%2e%2e/%2e%2e/etc/passwd",
        "gradio_api/file=http://127.0.0.1/",
        "gradio_api/file=file:///etc/passwd",
        "gradio_api/file=pyproject.toml",
        "gradio_api/proxy=http://127.0.0.1/",
        "gradio_api/stream/a/b/1/playlist.m3u8",
        "static/%2e%2e/%2e%2e/routes.py",
        "assets/..%2f..%2froutes.py",
        "monitoring",
        "gradio_api/vibe-code/",
        "gradio_api/deep_link",
    ],
)
def test_no_file_of_the_server_is_read(page: Any, demo: Demo, path: str) -> None:
    answer = page.http.get(path.replace("FOLDER", str(demo.folder)))
    assert answer.status_code in (403, 404) and "root:" not in answer.text and "import" not in answer.text
    assert answer.json()["detail"]


def test_events_name_uploads_only(page: Any, load: Any) -> None:
    for path in ("/etc/passwd", "http://127.0.0.1/a.png", str(Path(__file__).resolve())):
        upload = {"path": path, "meta": {"_type": "gradio.FileData"}}
        with pytest.raises(load.Refused, match=r"400: .*only uploaded images can be named"):
            page.segment(upload, "sfnet")
    with pytest.raises(load.Refused, match="this is no uploaded image"):
        page.segment({"url": "data:image/png;base64,AAAA", "path": None, "meta": {"_type": "gradio.FileData"}}, "sfnet")
    with pytest.raises(load.Refused, match="there is no such model here"):
        page.segment(page.upload("a.png", png(noise(64, 96))), "../sfnet")
    with pytest.raises(load.Refused, match="this result is no longer kept"):
        load.Page(str(page.http.base_url)).click(1, 1)


def test_users_do_not_see_each_others_results(demo: Demo, load: Any) -> None:
    """Eight at once, each with an image and a size of its own, click on their own one."""
    expected = {}

    def user(index: int) -> str:
        pixels = np.full((64 + index, 96, 3), 30 * index, np.uint8)
        expected[index] = demo.service.engines["sfnet"](pixels).labels
        page = load.Page(demo.url)
        outputs = page.segment(page.upload("same.png", png(pixels)), "sfnet")
        mask = np.array(Image.open(io.BytesIO(page.file(load.mask_path(outputs)))))
        assert np.array_equal(mask, expected[index])
        return str(page.click(5, 1000))  # the last row, which no other image has

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(user, range(8)))
    for index, answer in enumerate(answers):
        assert f"Pixel x 5, y {63 + index}:" in answer


def test_old_files_are_removed(page: Any, demo: Demo, load: Any) -> None:
    path = Path(page.upload("old.png", png(noise(64, 96)))["path"])
    os.utime(path, (0, 0))
    assert wait_for(lambda: not path.exists())
    with pytest.raises(load.Refused, match=r"old\.png is no longer kept here; upload it again"):
        page.segment({"path": str(path), "orig_name": "old.png", "meta": {"_type": "gradio.FileData"}}, "sfnet")


def test_settings_that_keep_everything_here(demo: Demo, page: Any) -> None:
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and demo.blocks.share_url is None
    assert demo.url.startswith("http://127.0.0.1:") and demo.folder.stat().st_mode & 0o077 == 0
    html = page.http.get("").text
    assert "fonts.googleapis" not in html and "cdnjs" not in html
    assert "fonts.googleapis" not in page.http.get("theme.css").text


def test_the_load_script(demo: Demo, load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    files = load.images(load.SIZES[:1], 1)
    assert load.put_load_on(demo.url, "sfnet", os.getpid(), files, clients=2, seconds=0.5) == 0
    said = capsys.readouterr().out
    assert ", 0 failures, " in said and all(moment in said for moment in ("start ", "middle ", "end "))
    assert load.put_load_on(demo.url, "fpn", os.getpid(), [("note.png", b"hello", (1, 1))], clients=1, seconds=0.2) > 0
    assert "note.png is not an image" in capsys.readouterr().out


@pytest.mark.browser
def test_in_a_browser(demo: Demo, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException])
    networks = []
    for engine in demo.service.engines.values():
        see = engine.see
        monkeypatch.setattr(engine, "see", lambda picture, see=see: networks.append(picture) or see(picture))

    def one(selector: str) -> Any:
        return wait.until(lambda running: running.find_element("css selector", selector))

    def style(selector: str, key: str) -> str:
        return str(browser.execute_script(f"return getComputedStyle(document.querySelector('{selector}')).{key}"))

    browser.get(demo.url)
    (tmp_path / "street.png").write_bytes(png(noise(64, 96)))
    one("#cs-upload input[type=file]").send_keys(str(tmp_path / "street.png"))
    stage = one(".cs-stage")
    assert "96×64 pixels" in one("#cs-spent").text and "class" in one("#cs-legend").text.lower()

    assert style(".cs-labels", "opacity") == "0.5" and style(".cs-edges", "display") == "none"
    browser.execute_script(
        "const box = document.querySelector('#cs-opacity input[type=number]'); box.value = '0.2';"
        "for (const kind of ['input', 'change']) box.dispatchEvent(new Event(kind, {bubbles: true}));"
    )
    wait.until(lambda _: style(".cs-labels", "opacity") == "0.2")
    one("#cs-boundaries input").click()
    wait.until(lambda _: style(".cs-edges", "display") == "block")
    assert len(networks) == 1

    seen = []
    for right, down in ((0, 0), (100, 60)):
        ActionChains(browser).move_to_element_with_offset(stage, right, down).click().perform()
        wait.until(lambda _: one(".cs-pixel").text not in seen)
        seen.append(one(".cs-pixel").text)
        assert "flow (" in one("#cs-about").text
    wait.until(lambda _: "path" in one(".cs-marks").get_attribute("innerHTML"))
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    place = [int(value) for value in re.findall(r"[xy] (\d+)", seen[1])]
    wait.until(lambda _: one(".cs-pixel").text.startswith(f"Pixel x {place[0] + 1}, y {place[1]}:"))
    ActionChains(browser).send_keys(*[Keys.ARROW_UP] * 3).perform()  # by a 50th of 96 pixels each
    wait.until(lambda _: one(".cs-pixel").text.startswith(f"Pixel x {place[0] + 1}, y {place[1] - 6}:"))

    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    one("#cs-download").click()
    mask = tmp_path / "street_mask.png"
    wait.until(lambda _: mask.exists() and not list(tmp_path.glob("*.crdownload")))
    expected = demo.service.engines["sfnet"](noise(64, 96)).labels
    assert np.array_equal(np.array(Image.open(mask)), expected)

    width = stage.size["width"]
    column = round(48 + 100 / width * 96)
    assert abs(place[0] - column) <= 1, "the pixel told is the one clicked on"
    assert len(networks) == 1

    monkeypatch.setattr(demo.service.store, "_kept", OrderedDict())
    stage.click()
    wait.until(lambda running: "this result is no longer kept; segment the image again" in running.page_source)

    (tmp_path / "note.png").write_bytes(b"hello")
    one("#cs-upload input[type=file]").send_keys(str(tmp_path / "note.png"))
    wait.until(lambda running: "note.png is not an image" in running.page_source)
    one(".cs-empty")  # nothing of the image before is left
    assert browser.page_source.count("note.png is not an image") == 1 and not one("#cs-legend").text
    one("#cs-scene").click()
    one(".cs-stage")
    assert "512×384 pixels" in one("#cs-spent").text and len(networks) == 2
    one("#cs-model label:nth-of-type(2)").click()
    wait.until(lambda _: len(networks) == 3)
    resources = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert resources and all(name.startswith((demo.url, "data:", "blob:")) for name in resources)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
