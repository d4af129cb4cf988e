"""Peak memory of segmenting a GeoTIFF that is larger than memory, in tiles, and what kills do to it: nothing.

python benchmarks/tiled_prediction.py --size 20000 --kills 10

Another process makes the GeoTIFF of SIZE×SIZE RGB pixels, deflated, in tiles or strips, and `crispseg predict` segments
it. With --kills it does so once more with --resume, killed at random moments, and the two maps are compared byte by
byte. The model has random weights: neither time nor memory depends on them.
"""

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import rasterio

from crispseg import create_model

SIDE = 256
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(0.2, 0, 4e5, 0, -0.2, 5e6)}


def make(path: Path, height: int, width: int, layout: str) -> None:
    """Noise in blocks of 8 pixels, in pieces that take turns."""
    random = np.random.default_rng(0)
    step = SIDE if layout == "tiles" else width
    blocks = [random.integers(0, 256, (SIDE // 8, -(-step // 8), 3), np.uint8) for _ in range(8)]
    pieces = [block.repeat(8, 0).repeat(8, 1)[:, :step] for block in blocks]

    chunks = {"tiled": True, "blockxsize": SIDE} if layout == "tiles" else {}
    options = {
        "width": width,
        "height": height,
        "count": 3,
        "dtype": "uint8",
        "photometric": "rgb",
        "interleave": "pixel",
    }
    with rasterio.open(
        path, "w", driver="GTiff", compress="deflate", zlevel=1, blockysize=SIDE, **PLACE, **options, **chunks
    ) as file:
        for top in range(0, height, SIDE):
            for left in range(0, width, step):
                piece = pieces[(top + 3 * left) // SIDE % len(pieces)][: height - top, : width - left]
                rows, columns = (top, top + piece.shape[0]), (left, left + piece.shape[1])
                file.write(piece.transpose(2, 0, 1), window=(rows, columns))


def ended(command: list[str], killed_after: float | None = None) -> tuple[int, float, float]:
    """Exit status of a command, its seconds, and its largest resident set, GiB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    if killed_after is not None:
        threading.Timer(killed_after, lambda: process.poll() is None and process.send_signal(signal.SIGKILL)).start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.perf_counter() - start, usage.ru_maxrss / 2**20


def main() -> None:
    """Make the GeoTIFF, segment it, check the result, print time and peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20000, help="width of the GeoTIFF, and its height")
    parser.add_argument("--height", type=int, default=None, help="another height; the peak does not depend on it")
    parser.add_argument("--layout", choices=["tiles", "strips"], default="tiles")
    parser.add_argument("--tile", type=int, default=1024, help="side of the tiles that the model sees")
    parser.add_argument("--model", default="sfnet")
    parser.add_argument("--backbone", default="mobilenetv3_small_050")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--work", type=Path, default=None, help="folder for the files; by default a temporary one")
    arguments = parser.parse_args()
    height = arguments.height or arguments.size
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        folder = Path(name)
        source = folder / "map.tif"
        maker = multiprocessing.get_context("spawn").Process(
            target=make, args=(source, height, arguments.size, arguments.layout)
        )
        maker.start()
        maker.join()
        create_model(
            arguments.model, num_classes=arguments.classes, backbone=arguments.backbone, width=arguments.width
        ).save_pretrained(folder / "model")
        predict = [sys.executable, "-m", "crispseg", "predict", str(folder / "model"), str(source), "--device=cpu"]
        predict.append(f"--tiles={arguments.tile}")

        code, seconds, peak = ended([*predict, f"--out={folder / 'once'}"])
        assert code == 0
        once = folder / "once/map.tif"
        with rasterio.open(once) as written:
            assert written.shape == (height, arguments.size)
            assert (written.crs, written.transform) == (PLACE["crs"], PLACE["transform"])
            overviews = written.overviews(1)
        stored = [path.stat().st_size / 2**20 for path in (source, once)]
        print(f"{arguments.model} on {arguments.backbone}, {arguments.classes} classes, tiles of {arguments.tile} px")
        whole = 3 * height * arguments.size / 2**30
        print(f"{arguments.size}×{height} pixels, {whole:.2f} GiB as RGB, {stored[0]:.0f} MiB in {arguments.layout}")
        print(
            f"{seconds:.0f} s, {stored[1]:.0f} MiB of labels with overviews {overviews}, peak {peak:.2f} GiB",
            flush=True,
        )
        if not arguments.kills:
            return

        again = [*predict, "--resume", f"--out={folder / 'again'}"]
        moments, peaks, spent, kills = random.Random(0), [], 0.0, 0
        code = 1
        while code:
            # Any moment of what is left of the work, so that kills fall on all of it.
            after = moments.uniform(5, 2 * seconds / arguments.kills) if kills < arguments.kills else None
            code, took, largest = ended(again, after)
            assert code in (0, -signal.SIGKILL), code
            kills += bool(code)
            spent += took
            peaks.append(largest)
        same = once.read_bytes() == (folder / "again/map.tif").read_bytes()
        print(f"killed {kills} times: {spent:.0f} s in all, peak {max(peaks):.2f} GiB, the same bytes: {same}")
        sys.exit(not same)


if __name__ == "__main__":
    main()
