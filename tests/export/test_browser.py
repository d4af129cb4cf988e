"""The page that segments in the browser: as `crispseg demo --static` writes it, and as Vite builds it."""

import base64
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crispseg import Segmenter, create_model
from crispseg.cli.main import main
from crispseg.data import FileDataset
from crispseg.data.named import build_data
from crispseg.export import browser as page_files
from crispseg.export.browser import DIST, PAGE_FOLDER, write_browser_page
from crispseg.io.images import write_image
from tests.exports import INFO, exported

ROOT = Path(__file__).parents[2]
WIDTHS = (1280, 400)
CLASSES = replace(INFO, class_names=("sky", "road", "sign", "a_class_with_a_very_long_name_" * 4))
PALETTE = CLASSES.label_set().palette

FAKE = """
import * as real from "./real.mjs";
export const { Tensor, env } = real;
export const InferenceSession = {
  async create(file, { executionProviders: [provider] }) {
    const session = await real.InferenceSession.create(file, { executionProviders: ["wasm"] });
    let known;
    const run = async (feeds) => {
      %s
    };
    return provider === "wasm" ? session : { run, release: async () => {} };
  },
};
"""
"""onnxruntime-web with another WebGPU."""


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """Folder of npm packages: npm install onnxruntime-web vite."""
    named = os.environ.get("CRISPSEG_NODE_MODULES")
    if not named:
        pytest.skip("CRISPSEG_NODE_MODULES names no node_modules with onnxruntime-web")
    return Path(named).resolve(strict=True)


@pytest.fixture
def fake_package(tmp_path: Path) -> Path:
    """The npm package with empty files."""
    package = tmp_path / "onnxruntime-web"
    (package / "dist").mkdir(parents=True)
    for name in DIST:
        (package / "dist" / name).touch()
    return package


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder, and yield its address and the requests so far."""
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            requests.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", requests
        server.shutdown()


class Page:
    """The page in a browser."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        self.set_width(WIDTHS[0])
        browser.get(url)
        self.wait()

    def wait(self, script: str = "return document.body.dataset.ready") -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 120).until(lambda browser: browser.execute_script(script))

    def text(self, name: str) -> str:
        return str(self.browser.find_element("id", name).get_attribute("textContent"))

    def choose(self, name: str, path: Path) -> None:
        self.browser.find_element("id", name).send_keys(str(path))
        self.wait()

    def drop(self, name: str, content: bytes) -> None:
        script = """
          const file = new File([Uint8Array.from(atob(arguments[1]), (letter) => letter.charCodeAt(0))], arguments[0]);
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(file);
          const stage = document.getElementById("stage");
          stage.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        """
        self.browser.execute_script(script, name, base64.b64encode(content).decode())
        self.wait()

    def labels(self, palette: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        """Return the class ids of the drawn labels."""
        script = """
          const { width, height } = document.getElementById("labels");
          const context = document.getElementById("labels").getContext("2d");
          const { data } = context.getImageData(0, 0, width, height);
          return [height, width, Array.from(data)];
        """
        height, width, values = self.browser.execute_script(script)
        colors = np.array(values).reshape(height, width, 4)
        assert (colors[..., 3] == 255).all()
        equal = (colors[:, :, None, :3] == np.array(palette)).all(3)
        assert (equal.sum(2) == 1).all()
        return equal.argmax(2)

    def shares(self) -> dict[str, float]:
        """Return percentages of the classes in the legend."""
        rows = [row.find_elements("tag name", "td") for row in self.browser.find_elements("css selector", "tbody tr")]
        return {cells[0].text: float(cells[2].text.removesuffix(" %")) for cells in rows}

    def set_width(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def is_cut_off(self) -> bool:
        """Return whether something is outside the screen or its cell at any width."""
        cut = False
        for width in WIDTHS:
            self.set_width(width)
            script = """
              const edge = document.documentElement.clientWidth;
              const nodes = [...document.querySelectorAll("body *")];
              return nodes.some((node) => node.getBoundingClientRect().right > edge + 1)
                || document.documentElement.scrollWidth > edge;
            """
            cut |= self.browser.execute_script(script)
        return cut


@pytest.fixture(scope="module")
def nuclei_page(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser") / "page"
    package = node_modules / "onnxruntime-web"
    assert main(["demo", "--static", str(folder), "--model", "nuclei", "--onnxruntime_web", str(package)]) == 0
    return folder


def copied_page(folder: Path, node_modules: Path) -> Path:
    """Copy the page without a model."""
    shutil.copytree(PAGE_FOLDER, folder)
    (folder / "onnxruntime-web").mkdir()
    for name in DIST:
        shutil.copy(node_modules / "onnxruntime-web/dist" / name, folder / "onnxruntime-web")
    return folder


def built_page(folder: Path, node_modules: Path) -> Path:
    """Build the page with Vite."""
    vite = node_modules / "vite/bin/vite.js"
    if not vite.is_file():
        pytest.skip("vite is not in CRISPSEG_NODE_MODULES")
    example = folder / "examples/browser"
    shutil.copytree(PAGE_FOLDER, folder / PAGE_FOLDER.relative_to(ROOT))
    example.mkdir(parents=True)
    for name in ("package.json", "vite.config.js"):
        shutil.copy(ROOT / "examples/browser" / name, example)
    (example / "node_modules").symlink_to(node_modules)
    subprocess.run(["node", vite, "build"], cwd=example, check=True, timeout=120)
    return example / "dist"


@pytest.fixture
def static_page(node_modules: Path, tmp_path: Path) -> Path:
    return copied_page(tmp_path / "page", node_modules)


@pytest.fixture(scope="module", params=[copied_page, built_page])
def small_page(request: Any, node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page without a model, written and built."""
    page: Path = request.param(tmp_path_factory.mktemp("repository") / "page", node_modules)
    return page


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "photograph.png"
    write_image(path, np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8))
    return path


@pytest.mark.parametrize(
    ("flags", "phrases"),
    [
        (["--static", "new"], ["RUNS is missing"]),
        (["nuclei", "leaf", "--static", "new"], ["--static", "nuclei, leaf"]),
        (["--static", "new", "--model", "nuclei"], ["--onnxruntime_web", "npm install"]),
        (["nuclei", "--static", "new", "--onnxruntime_web", "."], ["dist/ort.webgpu.min.mjs", "npm install"]),
        (["nuclei", "--static", ".", "--onnxruntime_web", "onnxruntime-web"], [". is not empty"]),
        (["nuclei", "--static", "a.txt", "--onnxruntime_web", "onnxruntime-web"], ["a.txt is a file"]),
        (["nuclei", "--static", "a.txt/new", "--onnxruntime_web", "onnxruntime-web"], ["a.txt/new", "cannot write"]),
    ],
)
def test_refusals_come_before_the_export(
    flags: list[str], phrases: list[str], fake_package: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (fake_package.parent / "a.txt").touch()
    monkeypatch.chdir(fake_package.parent)
    monkeypatch.delattr(page_files, "export_model")
    assert main(["demo", *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(phrase in error for phrase in phrases)
    assert not Path("new").exists()


@pytest.mark.parametrize(("in_chans", "value_range"), [(4, None), (3, (100, 3000)), (1, "image")])
def test_images_that_browsers_cannot_read(
    in_chans: int, value_range: Any, fake_package: Path, tmp_path: Path, refuses: Any
) -> None:
    model = create_model("fpn", num_classes=3, backbone="test_efficientnet", in_chans=in_chans)
    model.info = replace(model.info, value_range=value_range)
    with refuses("fpn on test_efficientnet", f"{in_chans} channels"):
        write_browser_page(model, tmp_path / "new", fake_package)


def test_the_folder_has_all_that_the_page_needs(fake_package: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(page_files, "export_model", lambda model, path, *_, **options: path.touch())
    write_browser_page(create_model("fpn", num_classes=3, backbone="test_efficientnet"), tmp_path / "new", fake_package)
    files = {str(file.relative_to(tmp_path / "new")) for file in (tmp_path / "new").rglob("*") if file.is_file()}
    assert files == {
        *("index.html", "page.css", "page.js", "worker.js", "model.onnx"),
        *(f"onnxruntime-web/{name}" for name in DIST),
    }


@pytest.mark.browser
@pytest.mark.slow
class TestInBrowser:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        """A file of pixels, which is fast."""
        pytest.importorskip("onnxruntime")
        return exported(tmp_path / "pixels.onnx", CLASSES, input="uint8", output="labels")

    def test_labels_are_those_of_a_segmenter(self, nuclei_page: Path, browser: Any) -> None:
        segmenter = Segmenter("nuclei", "cpu")
        classes = segmenter.info.label_set()
        dataset = build_data({"name": "nuclei"}).dataset("val")
        assert isinstance(dataset, FileDataset)
        with served(nuclei_page) as (url, requests):
            page = Page(browser, url)
            for pair in dataset.pairs[:3]:
                page.choose("file", pair.image)
                labels, expected = page.labels(classes.palette), segmenter(pair.image).labels
                agreement = (labels == expected).mean()
                print(f"{100 * agreement:.3f} % equal labels, {page.text('time')}, {page.text('backend')}")
                assert agreement >= 0.999
                shares = 100 * np.bincount(labels.ravel(), minlength=len(classes)) / labels.size
                assert page.shares() == pytest.approx(dict(zip(classes.names, shares, strict=True)), abs=0.051)
            assert len(requests) == len({*requests}) == 4 + len(("model.onnx", *DIST)) and not page.is_cut_off()

    def test_files_are_dropped(self, small_page: Path, browser: Any, model: Path, photograph: Path) -> None:
        with served(small_page) as (url, _):
            page = Page(browser, url)
            page.drop("photograph.png", photograph.read_bytes())
            assert page.text("status") == "Choose a model first"
            page.drop("pixels.onnx", model.read_bytes())
            page.drop("photograph.png", photograph.read_bytes())
            np.testing.assert_array_equal(page.labels(PALETTE), Segmenter(model)(photograph).labels)
            assert tuple(page.shares()) == CLASSES.class_names and not page.is_cut_off()

    def test_other_files(self, small_page: Path, browser: Any, model: Path, photograph: Path, tmp_path: Path) -> None:
        deep = replace(INFO, value_range=(0, 9))
        write_image(tmp_path / "small.png", np.zeros((20, 40, 3), np.uint8))
        files = {
            "float.onnx": exported(tmp_path / "float.onnx").read_bytes(),
            "deep.onnx": exported(tmp_path / "deep.onnx", deep, input="uint8", output="labels").read_bytes(),
            "other.onnx": b"other" * 100,
            "text.png": b"text",
            "40 × 20": (tmp_path / "small.png").read_bytes(),
        }
        with served(small_page) as (url, _):
            page = Page(browser, url)
            page.choose("model", model)
            for name, content in files.items():
                page.drop(name, content)
                assert name in page.text("status")
            page.choose("file", photograph)
            assert not page.text("status") and page.text("time")

    def test_the_camera(self, small_page: Path, browser: Any, model: Path) -> None:
        camera = """
          const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
          setInterval(() => canvas.getContext("2d").fillRect(0, 0, 64, 48), 30);
          navigator.mediaDevices.getUserMedia = async () => canvas.captureStream(30);
        """
        with served(small_page) as (url, _):
            page = Page(browser, url)
            page.choose("model", model)
            browser.execute_script(camera)
            button = browser.find_element("id", "camera")
            button.click()
            page.wait("return document.getElementById('time').textContent")
            assert "64 × 48" in page.text("time")
            button.click()
            page.wait()
            assert not page.text("status")

    def test_large_images_are_reduced(self, small_page: Path, browser: Any, model: Path, tmp_path: Path) -> None:
        write_image(tmp_path / "large.png", np.zeros((1024, 2048, 3), np.uint8))
        with served(small_page) as (url, _):
            page = Page(browser, url)
            page.choose("model", model)
            page.choose("file", tmp_path / "large.png")
            assert "1448 × 724" in page.text("time") and "2048 × 1024" in page.text("time")

    @pytest.mark.parametrize(
        ("webgpu", "phrases"),
        [
            (None, ["WebGPU takes", "WebGPU; 100.00 %"]),
            ("return (known ??= await session.run(feeds));", ["WebGPU; 100.00 %"]),
            ("return { labels: new Tensor('uint8', new Uint8Array(97 * 131), [1, 97, 131]) };", ["labels differ"]),
            ("throw new Error('no memory');", ["WebGPU fails: no memory"]),
        ],
    )
    def test_webgpu(
        self,
        webgpu: str | None,
        phrases: list[str],
        static_page: Path,
        webgpu_browser: Any,
        model: Path,
        photograph: Path,
    ) -> None:
        """WebGPU is kept if its labels are right and come sooner."""
        adapter = "return navigator.gpu ? navigator.gpu.requestAdapter().then(Boolean) : false"
        script = static_page / "onnxruntime-web" / DIST[0]
        if webgpu:
            script.rename(script.with_name("real.mjs"))
            script.write_text(FAKE % webgpu)
        with served(static_page) as (url, _):
            page = Page(webgpu_browser, url)
            if not webgpu_browser.execute_script(adapter):
                pytest.skip("this Chromium has no WebGPU")
            page.choose("model", model)
            page.choose("file", photograph)
            assert any(phrase in page.text("backend") for phrase in phrases), page.text("backend")
            np.testing.assert_array_equal(page.labels(PALETTE), Segmenter(model)(photograph).labels)
