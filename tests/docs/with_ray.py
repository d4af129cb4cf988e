"""A program that predicts with a real Ray, for tests/docs/test_ray.py.

Ray ends the whole process that called it when its own server does not answer for a minute, as on a very busy machine.

    python with_ray.py MODEL PHOTOS PHOTOS.parquet OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray

sys.path.append(str(Path(__file__).parents[2] / "examples"))
import ray_predict


def run(model: str, photos: str, parquet: str, out: Path) -> None:
    """Writes `rows/`, of the Parquet file, and `files/`, of the folder."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
    print("Ray has started", flush=True)
    try:
        pictures = ray.data.read_parquet(parquet)
        ray_predict.predict(pictures, model, objects="class 1", objects_border="class 2").write_parquet(out / "rows")
        files = ray.data.read_binary_files(photos, include_paths=True)
        ray_predict.predict(files, model).write_parquet(out / "files")
    finally:
        ray.shutdown()


if __name__ == "__main__":
    run(*sys.argv[1:4], Path(sys.argv[4]))
