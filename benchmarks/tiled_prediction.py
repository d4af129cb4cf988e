"""Time and peak memory of tiled prediction on a large GeoTIFF.

    python benchmarks/tiled_prediction.py --size 20000

Another process writes a GeoTIFF of SIZE×SIZE RGB pixels, and `crispseg predict` segments it. The model has random
weights, which affect neither time nor memory.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio

from crispseg import create_model

SIDE = 256
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.2, 0, 4e5, 0, -0.2, 5e6)}


def make(path: Path, size: int) -> None:
    """Write a GeoTIFF of repeating noise tiles."""
    random = np.random.default_rng(0)
    pieces = [random.integers(0, 256, (3, SIDE // 8, SIDE // 8), np.uint8).repeat(8, 1).repeat(8, 2) for _ in range(8)]
    options = {"width": size, "height": size, "count": 3, "dtype": "uint8", "photometric": "rgb", **PLACE}
    tiled = {"tiled": True, "blockxsize": SIDE, "blockysize": SIDE, "interleave": "pixel", "compress": "deflate"}
    with rasterio.open(path, "w", driver="GTiff", **options, **tiled) as file:
        for top in range(0, size, SIDE):
            for left in range(0, size, SIDE):
                piece = pieces[(top + 3 * left) // SIDE % len(pieces)][:, : size - top, : size - left]
                rows, columns = (top, top + piece.shape[1]), (left, left + piece.shape[2])
                file.write(piece, window=(rows, columns))


def main() -> None:
    """Write a GeoTIFF, segment it, check the result, and print time and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20000, help="height and width of the GeoTIFF, pixels")
    parser.add_argument("--tile", type=int, default=1024, help="side of the tiles, pixels")
    parser.add_argument("--model", default="sfnet")
    parser.add_argument("--backbone", default="mobilenetv3_small_050")
    parser.add_argument("--classes", type=int, default=19)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(folder / "map.tif", given.size))
        maker.start()
        maker.join()
        model = create_model(given.model, num_classes=given.classes, backbone=given.backbone, width=32)
        model.save_pretrained(folder / "model")
        argv = ["predict", str(folder / "model"), str(folder / "map.tif"), "--device=cpu", f"--tiles={given.tile}"]
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "crispseg", *argv, f"--out={folder / 'out'}"])
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        with rasterio.open(folder / "out/map.tif") as written:
            assert written.shape == (given.size, given.size)
            assert (written.crs, written.transform) == (PLACE["crs"], PLACE["transform"])
        peak, seconds = usage.ru_maxrss / 2**20, time.perf_counter() - start
        print(f"{given.size}×{given.size} pixels, {given.classes} classes: {seconds:.0f} s, peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
