"""The demo's server: over HTTP, also as no browser would ask it, and in a real browser."""

from __future__ import annotations

import importlib
import io
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from drawn import drawn
from PIL import Image
from test_demo import noise, tiny

from crispseg.demo import app
from crispseg.demo.examples import Examples
from crispseg.demo.guard import Guard
from crispseg.demo.uploads import Limits
from crispseg.inspection import inspect_image

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'crispseg[demo]'")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODELS = {name: tiny(name) for name in ("sfnet", "fpn")}


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """The script that loads a demo, for its client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("demo_load")


@pytest.fixture(scope="module")
def url(load: Any) -> Iterator[str]:
    limits = Limits(megabytes=0.5, pixels=200_000, working_pixels=100_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("no_proxy", raising=False)
        patch.setenv("NO_PROXY", "example.org")
        environment = dict(os.environ)
        patch.setattr(app, "TIDY", 0.2)
        options = {"limits": limits, "examples": {"fpn": Examples(drawn(val=2, height=192, width=256).dataset("val"))}}
        with app.served(MODELS, torch.device("cpu"), port=load.free_port(), **options) as running:
            folder = Path(os.environ["GRADIO_TEMP_DIR"])
            assert folder.stat().st_mode & 0o077 == 0
            assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost,127.0.0.1"
            yield running
        assert not folder.exists() and dict(os.environ) == environment


def test_no_place_for_uploads(load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refuses: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with refuses("no folder for uploads", "TMPDIR"), app.served(MODELS, torch.device("cpu"), port=load.free_port()):
        pass


@pytest.fixture
def page(url: str, load: Any) -> Any:
    return load.Page(url)


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


def test_an_image_is_segmented_and_its_mask_downloaded(page: Any, load: Any) -> None:
    pixels = noise(64, 96)
    outputs = page.segment(page.upload("../../street.png", png(pixels)), "sfnet")
    assert "srcdoc=" in outputs[0] and "network " in outputs[1]
    path = load.mask_path(outputs)
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert path.endswith("/street_mask.png") and Path(path).resolve().is_relative_to(folder)
    mask = np.array(Image.open(io.BytesIO(page.file(path))))
    assert np.array_equal(mask, inspect_image(MODELS["sfnet"], pixels).labels)


def test_bad_and_oversize_images_get_a_message_and_the_server_goes_on(page: Any, load: Any) -> None:
    for name, content, message in (
        ("a&b<i>.png", b"hello", "a&amp;bi.png is not an image in a known format; convert it to PNG or JPEG"),
        ("cut.png", png(noise(64, 96))[:9000], "cut.png is broken (image file is truncated"),
        ("wide.png", png(np.zeros((400, 600, 3), np.uint8)), "wide.png has 600×400 pixels, and the limit of this demo"),
    ):
        with pytest.raises(load.Refused) as caught:
            page.segment(page.upload(name, content), "sfnet")
        assert message in str(caught.value) and os.environ["GRADIO_TEMP_DIR"] not in str(caught.value)
    with pytest.raises(load.Refused, match=r"413: .*maximum allowed size of 500000 bytes"):
        page.upload("large.png", bytes(2_000_000))
    assert "srcdoc=" in page.segment(page.upload("street.png", png(noise(64, 96))), "sfnet")[0]


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=%2Fetc%2Fpasswd",
        "gradio_api/file=FOLDER/../../etc/passwd",
        "gradio_api/file=http://127.0.0.1/",
        "gradio_api/file=file:///etc/passwd",
        "gradio_api/file=pyproject.toml",
        "gradio_api/proxy=http://127.0.0.1/",
        "static/%2e%2e/%2e%2e/routes.py",
        "monitoring",
        "gradio_api/vibe-code/",
    ],
)
def test_no_file_of_the_server_is_read(page: Any, path: str) -> None:
    answer = page.http.get(path.replace("FOLDER", os.environ["GRADIO_TEMP_DIR"]))
    assert answer.status_code in (400, 403, 404) and "root:" not in answer.text and "import" not in answer.text


def test_events_name_uploads_only(page: Any, load: Any) -> None:
    for path in ("/etc/passwd", "http://127.0.0.1/a.png", str(Path(__file__).resolve())):
        for upload in ({"path": path, "meta": {"_type": "gradio.FileData"}}, {"path": path}):
            with pytest.raises(load.Refused):
                page.segment(upload, "sfnet")
    with pytest.raises(load.Refused, match="there is no such model here"):
        page.segment(page.upload("a.png", png(noise(64, 96))), "../sfnet")


def test_users_do_not_see_each_others_results(url: str, load: Any) -> None:
    """Four at once, each with an image and a size of its own."""

    def user(index: int) -> bool:
        pixels = np.full((64 + index, 96, 3), 30 * index, np.uint8)
        page = load.Page(url)
        outputs = page.segment(page.upload("same.png", png(pixels)), "sfnet")
        return f"96 × {64 + index} pixels" in outputs[0]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(user, range(4)))


def test_old_files_are_removed(page: Any, load: Any) -> None:
    upload = page.upload("old.png", png(noise(64, 96)))
    os.utime(upload["path"], (0, 0))
    assert wait_for(lambda: not Path(upload["path"]).exists())
    with pytest.raises(load.Refused, match=r"old\.png is no longer kept here; upload it again"):
        page.segment(upload, "sfnet")


def test_settings_that_keep_everything_here(url: str, page: Any) -> None:
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False" and url.startswith("http://127.0.0.1:")
    for address in ("", "theme.css"):
        text = page.http.get(address).text
        assert "fonts.googleapis" not in text and "cdnjs" not in text
    assert page.http.get("config").json()["max_file_size"] == 500_000


@pytest.mark.browser
@pytest.mark.slow
def test_in_a_browser(url: str, browser: Any, tmp_path: Path) -> None:
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 60, ignored_exceptions=[WebDriverException])

    def one(selector: str) -> Any:
        return wait.until(lambda running: running.find_element("css selector", selector))

    browser.get(url)
    (tmp_path / "street.png").write_bytes(png(noise(64, 96)))
    one("#upload input[type=file]").send_keys(str(tmp_path / "street.png"))
    browser.switch_to.frame(one("iframe.seen"))
    wait.until(lambda running: running.execute_script("return document.body.dataset.ready"))
    ActionChains(browser).move_to_element_with_offset(one("#stage"), 30, 20).click().perform()
    wait.until(lambda _: "Pinned" in one("#pinned").text)
    assert "px of its level" in one("#field").text and one("#stage svg .vector")
    browser.switch_to.default_content()

    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    one("#download").click()
    mask = tmp_path / "street_mask.png"
    wait.until(lambda _: mask.exists() and not list(tmp_path.glob("*.crdownload")))
    assert np.array_equal(np.array(Image.open(mask)), inspect_image(MODELS["sfnet"], noise(64, 96)).labels)

    (tmp_path / "note.png").write_bytes(b"hello")
    one("#upload input[type=file]").send_keys(str(tmp_path / "note.png"))
    wait.until(lambda running: "note.png is not an image" in running.page_source)
    one(".empty")  # nothing of the image before is left
    assert not browser.find_elements("css selector", "#examples img")  # the first model has none
    one("#model label:nth-of-type(2)").click()
    wait.until(lambda running: running.find_elements("css selector", "#examples img")[1:])[0].click()
    wait.until(lambda running: "fpn on test_efficientnet: val_0001" in one("iframe.seen").get_attribute("srcdoc"))
    resources = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert resources and all(name.startswith((url, "data:", "blob:")) for name in resources)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_other_names_and_other_pages_are_refused(url: str, page: Any) -> None:
    """The first is what DNS rebinding looks like, the second what any page in the browser may send."""
    port = url.rstrip("/").rpartition(":")[2]
    own = f"127.0.0.1:{port}"
    for headers, status in (
        ({"Host": f"rebound.example:{port}"}, 403),
        ({"Host": f"localhost.example:{port}", "Origin": f"http://localhost.example:{port}"}, 403),
        ({"Host": own, "Origin": "http://example.org"}, 403),
        ({"Host": own, "Origin": "null"}, 403),
        ({"Host": own, "Origin": f"http://localhost:{port}"}, 403),
        ({"Host": own, "Origin": f"http://{own}"}, 200),
        ({"Host": f"localhost:{port}"}, 200),
    ):
        for method in ("GET", "OPTIONS"):
            asked = headers | ({"Access-Control-Request-Method": "POST"} if method == "OPTIONS" else {})
            answer = page.http.request(method, "config", headers=asked)
            foreign = status == 403
            assert (answer.status_code == 403) == foreign, (headers, method, answer.status_code)
            allowed = answer.headers.get("Access-Control-Allow-Origin")
            assert allowed is None or (not foreign and allowed == headers.get("Origin"))


@pytest.mark.parametrize(
    "host", ["[", "[x]", "localhost:1/x", "evil.com@127.0.0.1", "127.0.0.1#evil", "127.0.0.1:port", "", "1.2.3.4.5"]
)
def test_malformed_names_are_none_of_the_demo_s(host: str) -> None:
    guard = Guard(None, ["lab"])
    assert guard.foreign([(b"host", host.encode())])
    assert guard.foreign([(b"host", b"lab"), (b"origin", f"http://{host}".encode())])
    for own in (b"lab", b"LAB:7860", b"[::1]:7860", b"127.0.0.1"):
        assert not guard.foreign([(b"host", own), (b"origin", b"http://" + own)])


def test_an_upload_that_breaks_off_is_no_error(url: str, page: Any) -> None:
    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append  # type: ignore[method-assign]
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    try:
        host = url.rstrip("/").rpartition("/")[2]
        with socket.create_connection(("127.0.0.1", int(host.rpartition(":")[2]))) as connection:
            head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n"
            connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
            time.sleep(1)
        time.sleep(1)
        assert page.http.get("config").status_code == 200
    finally:
        logger.removeHandler(handler)
    assert not [record.getMessage() for record in logged]


@pytest.mark.browser
@pytest.mark.slow
def test_pages_of_other_origins_in_a_browser(url: str, browser: Any) -> None:
    """A page elsewhere can neither send an upload nor read; a name that leads here is none of the demo's."""
    import http.server

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<title>elsewhere</title>")

        def log_message(self, *_: Any) -> None: ...

    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    before = set(folder.rglob("*"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        browser.get(f"http://127.0.0.1:{server.server_port}/")
        script = """
            const [url, done] = arguments, form = new FormData();
            form.append("files", new Blob(["x"]), "stolen.png");
            const send = fetch(url + "gradio_api/upload", {method: "POST", body: form, mode: "no-cors"});
            const read = fetch(url + "config").then((answer) => "read " + answer.status, () => "refused");
            send.catch(() => 0).then(() => read).then(done);
        """
        assert browser.execute_async_script(script, url) == "refused"
        server.shutdown()
    assert set(folder.rglob("*")) <= before
    browser.get(url.replace("127.0.0.1", "rebound.localhost"))
    assert "This demo has other names" in browser.page_source
