"""Peak memory of segmenting a TIFF that is larger than memory, in tiles.

python benchmarks/tiled_prediction.py --size 20000 --threads 2

Another process makes the TIFF of SIZE×SIZE RGB pixels, deflated, in tiles or strips: its memory does not count.
The model has random weights: neither time nor memory depends on them.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from rich.console import Console
from rich.progress import Progress

from crispseg import Segmenter, create_model
from crispseg.inference.tiled import segment_tiff

SIDE = 256


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
        path, "w", driver="GTiff", compress="deflate", zlevel=1, blockysize=SIDE, **options, **chunks
    ) as file:
        for top in range(0, height, SIDE):
            for left in range(0, width, step):
                piece = pieces[(top + 3 * left) // SIDE % len(pieces)][: height - top, : width - left]
                rows, columns = (top, top + piece.shape[0]), (left, left + piece.shape[1])
                file.write(piece.transpose(2, 0, 1), window=(rows, columns))


def peak() -> float:
    """Largest resident set of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Make the TIFF, segment it, check the result's size, print time and peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20000, help="width of the TIFF, and its height")
    parser.add_argument("--height", type=int, default=None, help="another height; the peak does not depend on it")
    parser.add_argument("--layout", choices=["tiles", "strips"], default="tiles")
    parser.add_argument("--tile", type=int, default=1024, help="side of the tiles that the model sees")
    parser.add_argument("--model", default="sfnet")
    parser.add_argument("--backbone", default="mobilenetv3_small_050")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    height = arguments.height or arguments.size
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "image.tif", Path(folder) / "labels.tif"
        maker = multiprocessing.get_context("spawn").Process(
            target=make, args=(source, height, arguments.size, arguments.layout)
        )
        maker.start()
        maker.join()
        model = create_model(
            arguments.model, num_classes=arguments.classes, backbone=arguments.backbone, width=arguments.width
        )
        segmenter = Segmenter(model, arguments.device)
        before = peak()
        start = time.perf_counter()
        with Progress(console=Console(stderr=True)) as bars:
            bar = bars.add_task("Segmenting")
            size = segment_tiff(
                segmenter, source, target, arguments.tile, lambda done, of: bars.update(bar, completed=done, total=of)
            )
        seconds = time.perf_counter() - start
        with rasterio.open(target) as written:
            assert written.shape == size == (height, arguments.size)
        stored = [path.stat().st_size / 2**20 for path in (source, target)]
    print(f"{arguments.model} on {arguments.backbone}, {arguments.classes} classes, tiles of {arguments.tile} px")
    whole = 3 * size[0] * size[1] / 2**30
    print(f"{size[1]}×{size[0]} pixels, {whole:.2f} GiB as RGB, {stored[0]:.0f} MiB in {arguments.layout}")
    print(f"{seconds:.0f} s on {arguments.device} with {arguments.threads} threads, {stored[1]:.0f} MiB of labels")
    print(f"peak resident {peak():.2f} GiB, of which {before:.2f} GiB before the first tile")


if __name__ == "__main__":
    main()
