"""The demo: what it makes of an upload, and its server over HTTP and in a browser."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from crispseg import CrispsegError, create_model
from crispseg.inspection import inspect_image
from crispseg.inspection.demo import Demo, serve
from crispseg.io.images import read_mask

httpx = pytest.importorskip("httpx")
gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed: pip install 'crispseg[demo]'")


def noise(height: int, width: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, pixels: Any, **options: Any) -> str:
    Image.fromarray(pixels).save(path, **options)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def demo(folder: Path) -> Demo:
    torch.manual_seed(0)
    model = create_model("sfnet", num_classes=3, backbone="test_efficientnet", width=16).eval()
    return Demo({"tiny": model}, torch.device("cpu"), folder)


def test_an_upload_gives_the_inspection_and_the_mask(demo: Demo, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    html, seconds, mask = demo.segment(save(folder / "a b.png", noise(64, 96), exif=exif), "tiny")
    expected = inspect_image(demo.models["tiny"], np.rot90(noise(64, 96), -1).copy())
    assert mask and mask.name == "a b_mask.png" and np.array_equal(read_mask(mask), expected.labels)
    assert 'sandbox="allow-scripts"' in html and seconds.endswith("on cpu")
    assert demo.segment(None, "tiny")[2] is None


def test_what_is_refused(demo: Demo, folder: Path, tmp_path: Path, refuses: Callable[..., Any]) -> None:
    (folder / "link.png").symlink_to(save(tmp_path / "private.png", noise(64, 64)))
    (folder / "text.png").write_bytes(b"hello")
    for path in (tmp_path / "private.png", folder / "link.png"):
        with refuses("no uploaded file"):
            demo.segment(str(path), "tiny")
    with pytest.raises(CrispsegError, match=r"text\.png") as caught:
        demo.segment(str(folder / "text.png"), "tiny")
    assert str(folder) not in str(caught.value)
    with refuses("other"):
        demo.segment(save(folder / "c.png", noise(64, 64)), "other")


@pytest.fixture(scope="module")
def url(demo: Demo, folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    before = dict(os.environ)
    with serve(demo, port=port, max_megabytes=0.5, examples=[Path(save(folder / "example.png", noise(64, 64)))]) as url:
        yield url
    os.environ.clear()
    os.environ.update(before)


def test_over_http(url: str, tmp_path: Path) -> None:
    client = gradio_client.Client(url, verbose=False, download_files=False)
    upload = gradio_client.handle_file(save(tmp_path / "street.png", noise(64, 96)))
    html, _, mask = client.predict(upload, "tiny", api_name="/segment")
    assert "srcdoc=" in html and "street_mask.png" in str(mask)
    large = gradio_client.handle_file(save(tmp_path / "large.bmp", noise(500, 500)))
    with pytest.raises(Exception, match=r"413|maximum"):
        client.predict(large, "tiny", api_name="/segment")
    (tmp_path / "no.png").write_bytes(b"hello")
    with pytest.raises(Exception, match=r"no\.png"):
        client.predict(gradio_client.handle_file(str(tmp_path / "no.png")), "tiny", api_name="/segment")


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "FOLDER/../../etc/passwd", "http://127.0.0.1/"])
def test_no_file_of_the_server_is_read(url: str, folder: Path, path: str) -> None:
    client = gradio_client.Client(url, verbose=False)
    answer = httpx.get(f"{client.src_prefixed}file={path.replace('FOLDER', str(folder))}")
    assert answer.status_code in (400, 403, 404)


@pytest.mark.browser
def test_in_a_browser(url: str, browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(url)
    wait = WebDriverWait(browser, 30)
    given = wait.until(lambda page: page.find_element(By.CSS_SELECTOR, "input[type=file]"))
    given.send_keys(save(tmp_path / "seen.png", noise(64, 96)))
    wait.until(lambda page: page.find_element(By.CSS_SELECTOR, "iframe.seen"))


def test_a_port_in_use_is_refused(demo: Demo, monkeypatch: pytest.MonkeyPatch, refuses: Callable[..., Any]) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with refuses("port", str(port)), serve(demo, port=port):
            pass
