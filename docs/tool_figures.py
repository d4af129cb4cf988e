"""Make the pictures of docs/open-tools.md in the tools themselves; benchmarks/window.py makes that of napari.

    python docs/tool_figures.py qgis --data DATA --plugin PLUGIN    # a checkout of Deepness; DATA has the folder aerial
    python docs/tool_figures.py bioimageio
    python docs/tool_figures.py label-studio
    python docs/tool_figures.py cvat

The tools are named by the variables of `make test-tools`: CRISPSEG_QGIS_PYTHON, CRISPSEG_BIOIMAGEIO_PYTHON,
CRISPSEG_LABEL_STUDIO and CRISPSEG_CVAT_PYTHON. QGIS needs xvfb-run too, and Label Studio Chromium.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import rasterio
from figures import ROOT, browser, photograph, save

import crispseg
from crispseg.io.images import read_image
from crispseg.visualization.pictures import OBJECT_CLASSES, for_display, object_colors, overlay, panels

NUCLEI = ROOT / "src/crispseg/data/free/nuclei/images"
CELLS = ("0121d6759c5a", "65c8527c16a0", "308084bdd358", "751f421d3229")  # val images
MAP = "tile3_003"  # of val
EAST, NORTH, ZONE = 400_000, 2_700_000, "EPSG:32640"  # a place of the map
PIXEL = 0.5  # metres
STUDIO_PORT, BACKEND_PORT = 7872, 7873
LOGIN = {"username": "user@example.com", "password": "secret123", "user-token": "secret123"}
CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="label" toName="image"><Label value="nucleus" background="#f0a000"/></BrushLabels></View>"""

IN_BIOIMAGEIO = """
import sys
import numpy as np
from bioimageio.core import predict

package, image, out = sys.argv[1:]
images = np.load(image).transpose(2, 0, 1)[None].astype(np.float32)
np.save(out, predict(model=package, inputs={"images": images}).members["probabilities"].data.to_numpy()[0])
"""

IN_CVAT = """
import sys
import numpy as np
from cvat_cli._internal.common import FunctionLoader
from cvat_sdk.auto_annotation import DetectionFunctionContext
from cvat_sdk.masks import decode_mask
from PIL import Image

class Context(DetectionFunctionContext):
    frame_name, conf_threshold, conv_mask_to_poly = "", None, False

program, image, out = sys.argv[1:]
picture = Image.open(image).convert("RGB")
ids = np.zeros((picture.height, picture.width), np.int32)
for number, shape in enumerate(FunctionLoader(None, program, {"model": "nuclei"}).load().detect(Context(), picture), 1):
    ids[decode_mask(shape.points, image_width=picture.width, image_height=picture.height)] = number
np.save(out, ids)
"""


def program(variable: str) -> str:
    """The program that a variable of the environment names."""
    if variable not in os.environ:
        raise SystemExit(f"{variable} is not set; it names the tool, as for make test-tools")
    return os.environ[variable]


def qgis(data: Path, plugin: Path) -> None:
    """A window of QGIS with the plug-in, and a map that it has segmented by the bundled model."""
    image = read_image(data / f"aerial/images/{MAP}.jpg")
    height, width, channels = image.shape
    place = {"crs": ZONE, "transform": rasterio.Affine(PIXEL, 0, EAST, 0, -PIXEL, NORTH)}
    size = {"height": height, "width": width, "count": channels, "dtype": "uint8"}
    palette = crispseg.from_pretrained("aerial").info.label_set().palette
    colors = ",".join("#" + bytes(color).hex() for color in palette)
    with TemporaryDirectory() as folder:
        model, raster, out = (Path(folder, name) for name in ("aerial.onnx", "map.tif", "window.png"))
        with rasterio.open(raster, "w", driver="GTiff", **size, **place) as file:
            file.write(image.transpose(2, 0, 1))
        export = "export aerial --format deepness --size 512 512"
        run([sys.executable, "-m", "crispseg", *export.split(), f"--pixel_size={PIXEL}m", f"--out={model}"])
        window = [program("CRISPSEG_QGIS_PYTHON"), ROOT / "docs/qgis_window.py", plugin, model, raster, colors, out]
        run(["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", *window])
        save("qgis", read_image(out), "tools", 96)


def bioimageio() -> None:
    """An image, and the probabilities of a package in bioimageio.core."""
    image = read_image(NUCLEI / f"{CELLS[0]}.png")
    with TemporaryDirectory() as folder:
        package, pixels, out = (Path(folder, name) for name in ("nuclei.zip", "image.npy", "out.npy"))
        run([sys.executable, "-m", "crispseg", "export", "nuclei", "--format=bioimageio", f"--out={package}"])
        np.save(pixels, image)
        run([program("CRISPSEG_BIOIMAGEIO_PYTHON"), "-c", IN_BIOIMAGEIO, package, pixels, out])
        greys = (255 * np.load(out)).astype(np.uint8)
    names = crispseg.from_pretrained("nuclei").info.class_names
    pictures = [image, *(np.repeat(grey[..., None], 3, axis=2) for grey in greys)]
    save("bioimageio", panels([pictures], ["image", *(f"probability of {name}" for name in names)]), "tools")


def cvat() -> None:
    """Images, and the masks that CVAT receives, each in a colour of its own."""
    function, pictures = ROOT / "examples/cvat_function.py", []
    with TemporaryDirectory() as folder:
        for name in CELLS[1::2]:
            path, out = NUCLEI / f"{name}.png", Path(folder, "ids.npy")
            source = os.environ | {"PYTHONPATH": str(ROOT / "src")}
            run([program("CRISPSEG_CVAT_PYTHON"), "-c", IN_CVAT, function, path, out], env=source)
            image = for_display(read_image(path))
            pictures += [image, overlay(image, object_colors(np.load(out)), OBJECT_CLASSES)]
    save("cvat", panels([pictures], ["image", "masks that CVAT receives"] * 2), "tools")


def label_studio() -> None:
    """A task of Label Studio with the first guess of its backend."""
    start = [program("CRISPSEG_LABEL_STUDIO"), "start", "--no-browser", "--enable-legacy-api-token"]
    start += [text for option, value in LOGIN.items() for text in (f"--{option}", value)]
    settings = dict.fromkeys(("ML_BLOCK_LOCAL_IP", "USE_DEFAULT_BANNED_SUBNETS", "COLLECT_ANALYTICS"), "false")
    with TemporaryDirectory() as folder:
        settings["LABEL_STUDIO_BASE_DATA_DIR"] = folder
        with served(start, STUDIO_PORT, settings) as url, browser() as page:
            address = guessed_task(url)
            page.get(f"{url}/user/login")
            for field, value in (("email", LOGIN["username"]), ("password", LOGIN["password"])):
                page.find_element("name", field).send_keys(value)
            page.find_element("css selector", "button[type=submit]").click()
            time.sleep(5)
            page.get(address)
            time.sleep(15)
            save("label_studio", photograph(page, 640), "tools")


def guessed_task(url: str) -> str:
    """The address of the first task of a new project whose tasks have first guesses."""
    client = httpx.Client(base_url=url, headers={"Authorization": f"Token {LOGIN['user-token']}"}, timeout=300)

    def call(method: str, address: str, **content: Any) -> Any:
        return client.request(method, f"/api/{address}", **content).raise_for_status().json()

    project = call("POST", "projects", json={"title": "nuclei", "label_config": CONFIG})["id"]
    files = {name: (f"{name}.png", (NUCLEI / f"{name}.png").read_bytes()) for name in CELLS}
    call("POST", f"projects/{project}/import", files=files)
    settings = {"LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": call("POST", "token/")["token"], "MODEL": "nuclei"}
    backend = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", ROOT / "examples/label_studio"]
    with served(backend, BACKEND_PORT, settings) as address:
        call("POST", "ml", json={"url": address, "project": project, "title": "crispseg"})
        everything = {"selectedItems": {"all": True, "excluded": []}}
        call("POST", f"dm/actions?id=retrieve_tasks_predictions&project={project}", json=everything)
    task = call("GET", f"tasks?project={project}")["tasks"][0]["id"]
    return f"{url}/projects/{project}/data?task={task}"


def run(command: Sequence[Any], **options: Any) -> None:
    subprocess.run([*map(str, command)], check=True, **options)


@contextmanager
def served(command: Sequence[Any], port: int, settings: Mapping[str, str]) -> Iterator[str]:
    """The address of a server, once it answers; it is stopped in the end."""
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([*map(str, command), "--port", str(port)], env={**os.environ, **settings})
    try:
        for _ in range(300):
            try:
                httpx.get(f"{address}/health").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(1)
        yield address
    finally:
        server.kill()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=("qgis", "bioimageio", "label-studio", "cvat"))
    parser.add_argument("--data", type=Path, help="folder of the data set aerial, for QGIS")
    parser.add_argument("--plugin", type=Path, help="checkout of Deepness, for QGIS")
    given = parser.parse_args()
    if given.tool == "qgis":
        qgis(given.data, given.plugin)
    elif given.tool == "bioimageio":
        bioimageio()
    elif given.tool == "cvat":
        cvat()
    else:
        label_studio()


if __name__ == "__main__":
    main()
