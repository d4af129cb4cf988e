"""The demo: what it makes of an upload, and its server over HTTP and in a browser."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from separate_processes import free_port

from crispseg import CrispsegError, SegmentationModel, create_model
from crispseg.cli.demo import val_images
from crispseg.inspection import inspect_image
from crispseg.inspection.demo import segmented, serve
from crispseg.io.images import read_image, read_mask

httpx = pytest.importorskip("httpx")
gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed: pip install 'crispseg[demo]'")
CPU = torch.device("cpu")


def save(path: Path, height: int = 64, width: int = 96, **options: Any) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    torch.manual_seed(0)
    return create_model("sfnet", num_classes=3, backbone="test_efficientnet", width=16).eval()


def test_an_upload_gives_the_inspection_and_the_mask(model: SegmentationModel, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    image = Path(save(tmp_path / "a b.png", exif=exif))
    html, seconds, mask = segmented(model, image, tmp_path, CPU)
    assert mask.name == "a b_mask.png" and np.array_equal(read_mask(mask), inspect_image(model, image).labels)
    assert 'sandbox="allow-scripts"' in html and seconds.endswith("on cpu")
    (tmp_path / "text.png").write_bytes(b"hello")
    with pytest.raises(CrispsegError, match=r"^text\.png"):
        segmented(model, tmp_path / "text.png", tmp_path, CPU)


@pytest.fixture(scope="module")
def url(model: SegmentationModel, folder: Path) -> Iterator[str]:
    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crispseg.inspection.demo.MAX_UPLOAD", 500_000)
        with serve({"tiny": model}, folder, CPU, port=free_port()) as url:
            yield url
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    return gradio_client.Client(url, verbose=False, download_files=False)


def test_over_http(client: Any, tmp_path: Path) -> None:
    upload = gradio_client.handle_file(save(tmp_path / "street.png"))
    html, _, mask = client.predict(upload, "tiny", api_name="/segment")
    assert "srcdoc=" in html and "street_mask.png" in str(mask)
    large = gradio_client.handle_file(save(tmp_path / "large.bmp", 500, 500))
    with pytest.raises(Exception, match=r"413|maximum"):
        client.predict(large, "tiny", api_name="/segment")


def test_what_is_refused(client: Any, tmp_path: Path) -> None:
    """A file of the server, a broken upload, and a model that is not there."""
    private = {"path": save(tmp_path / "private.png"), "meta": {"_type": "gradio.FileData"}}
    address = f"{client.src_prefixed}call/segment"
    event = httpx.post(address, json={"data": [private, "tiny"]}).json()["event_id"]
    assert "event: error" in httpx.get(f"{address}/{event}", timeout=60).text
    (tmp_path / "no.png").write_bytes(b"hello")
    for name, chosen, said in (("no.png", "tiny", r"no\.png is not an image"), ("private.png", "other", "exception")):
        with pytest.raises(Exception, match=said):
            client.predict(gradio_client.handle_file(str(tmp_path / name)), chosen, api_name="/segment")


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "FOLDER/../../etc/passwd", "http://127.0.0.1/"])
def test_no_file_of_the_server_is_read(client: Any, folder: Path, path: str) -> None:
    answer = httpx.get(f"{client.src_prefixed}file={path.replace('FOLDER', str(folder))}")
    assert answer.status_code in (400, 403, 404)


@pytest.mark.browser
def test_it_opens_with_an_image(model: SegmentationModel, folder: Path, browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    images = [Path(save(tmp_path / name)) for name in ("first.png", "second.png")]
    with serve({"tiny": model}, folder, CPU, port=free_port(), images=images) as url:
        browser.get(url)
        wait = WebDriverWait(browser, 30)
        frame = wait.until(lambda page: page.find_element(By.CSS_SELECTOR, "iframe[title=segmentation]"))
        assert "first" in frame.get_attribute("srcdoc")
        assert len(browser.find_elements(By.CSS_SELECTOR, ".gallery img, button.gallery-item")) >= 2
        given, whole = "return arguments[0].clientHeight", "return document.documentElement.scrollHeight"
        wait.until(lambda page: page.execute_script(given, frame) != page.execute_script("return innerHeight * 0.9"))
        height = browser.execute_script(given, frame)
        browser.switch_to.frame(frame)
        assert browser.execute_script(whole) <= height  # nothing in the frame scrolls


def test_val_images_of_a_run() -> None:
    images = val_images("nuclei")
    assert len(images) == 8 and all(path.is_file() for path in images)
    assert read_image(images[0]).std() == max(read_image(path).std() for path in images)
    assert val_images("model.onnx") == []


def test_a_port_in_use_and_an_impossible_host_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, refuses: Callable[..., Any], model: SegmentationModel
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host in ("127.0.0.1", 64 * "a"):  # a label of a host's name has 63 characters at most
            with refuses(host, str(port)), serve({"tiny": model}, folder, CPU, host, port):
                pass
