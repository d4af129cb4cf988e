"""A program that predicts with a real Ray, for tests/inference/test_ray.py.

Ray ends the whole process that called it when its own server does not answer for a minute, as on a very busy machine.

    python with_ray.py MODEL PHOTOS PHOTOS.parquet OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ray

from crispseg.errors import CrispsegError
from crispseg.inference import ray_data


def run(model: str, photos: str, parquet: str, out: Path) -> None:
    """Writes `files/`, `rows/` and `said.json`: the shares of each photo and one error."""
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
    print("Ray has started", flush=True)
    try:
        results = ray_data.predict(photos, model, out=out / "files")
        shares = {row["name"]: row["shares"] for row in results.take_all()}
        pictures = ray.data.read_parquet(parquet)
        error = ""
        try:
            ray_data.predict(pictures, model, column="image")
        except CrispsegError as refusal:
            error = str(refusal)
        said = {"shares": shares, "error": error}
        (out / "said.json").write_text(json.dumps(said))
        ray_data.predict(pictures, model, objects="class 1", objects_border="class 2").write_parquet(out / "rows")
    finally:
        ray.shutdown()


if __name__ == "__main__":
    run(*sys.argv[1:4], Path(sys.argv[4]))
