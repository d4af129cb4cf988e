"""Takes the pictures of pages that the docs show: `python docs/pages.py NUCLEI WEIGHTS [MINUTES]`

NUCLEI is the folder of the data set, WEIGHTS a file of the backbone's ImageNet weights. It needs the extras demo and
dev, chromium and chromedriver, and on one processor MINUTES (5) and some more.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from PIL import Image
from selenium import webdriver

import crispseg

OUT = Path(__file__).resolve().parent / "assets/pages"
WIDTH, PORT = 1280, 7871


@contextmanager
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        running = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            size = {"width": WIDTH, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            running.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            yield running
        finally:
            running.quit()


def shoot(page: Any, name: str, height: int, width: int = WIDTH) -> None:
    """The upper part of what the browser shows, in all its colours: fewer take away dark nuclei, or thin borders."""
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB").save(OUT / f"{name}.png", optimize=True)


@contextmanager
def demo(url: str) -> Iterator[None]:
    """`crispseg demo nuclei`, once it answers."""
    server = subprocess.Popen([sys.executable, "-m", "crispseg", "demo", "nuclei", "--port", str(PORT)])
    try:
        for _ in range(300):
            try:
                urlopen(url).close()
                break
            except OSError:
                time.sleep(1)
        yield
    finally:
        server.terminate()
        server.wait()


def main(nuclei: str, weights: str, minutes: float = 5) -> None:
    OUT.mkdir(exist_ok=True)
    with browser() as page, tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "page.html"
        flags = ["--data", "nuclei", "--data.root", nuclei, "--boundary", "--workers", "0", "--html", str(html)]
        subprocess.run([sys.executable, "-m", "crispseg", "evaluate", "nuclei", *flags], check=True)
        page.get(html.as_uri())
        shoot(page, "evaluation", 1480)

        os.chdir(folder)  # so that the page names the run as a reader's would
        run = crispseg.train(data="nuclei", root=nuclei, pretrained=weights, minutes=minutes, out="runs/nuclei")
        html.write_text(f"<body style='background: white'>{run._repr_html_()}</body>", encoding="utf-8")
        page.get(html.as_uri())
        shoot(page, "notebook", page.execute_script("return document.documentElement.scrollHeight"), 900)

        url = f"http://127.0.0.1:{PORT}"
        with demo(url):
            page.get(url)
            time.sleep(10)
            image = next((Path(nuclei) / "images").rglob("*.png"))
            page.find_element("css selector", "input[type=file]").send_keys(str(image))
            time.sleep(30)
            shoot(page, "demo", 1480)


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()), str(Path(sys.argv[2]).resolve()), *map(float, sys.argv[3:]))
