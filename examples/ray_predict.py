"""Very many images with Ray Data, on one machine or on a cluster; `pip install 'ray[data]'` installs it.

python examples/ray_predict.py RUN PHOTOS.parquet OUT
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from crispseg.errors import CrispsegError
from crispseg.inference.objects import Object, object_rules
from crispseg.inference.segmenter import Segmenter
from crispseg.io.images import write_labels
from crispseg.models.saving import shipped_folder

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset


def predict(
    dataset: Dataset,
    run: str | Path,
    *,
    column: str = "bytes",
    objects: str | None = None,
    objects_border: str | None = None,
    workers: int = 1,
    cpus: float = 1,
    gpus: float = 0,
    batch_size: int = 16,
    **options: Any,
) -> Dataset:
    """Segment images with Ray Data, by workers each of which holds the model, when the result is used.

    Returns:
        the rows without the pictures, with `labels`, a palette PNG of class ids; `shares` of the classes; `objects`, if
        a class is named; and `error`, None but for a picture that cannot be read.

    Args:
        dataset: with a column of encoded pictures, as of `ray.data.read_binary_files` or `read_parquet`.
        run: as for `Segmenter`; every worker must be able to read it.
        column: that holds the pictures as bytes.
        objects: class whose single objects are to be found.
        objects_border: class of the pixels between objects.
        workers: processes that segment.
        cpus: cores that Ray reserves for each; reading a dataset needs one more, without which Ray waits for ever.
        gpus: the same of GPUs; without them a worker computes on the CPU.
        batch_size: images that a worker is given at a time.
        **options: further options of `Segmenter`: `precision`, `protocol`, `value_range`, `tile`.

    Raises:
        CrispsegError: no such model, class or protocol.
    """
    from ray import cloudpickle
    from ray.data import ActorPoolStrategy

    labels = Segmenter(run, "cpu", **options).label_set  # mistakes are found before Ray starts
    wanted = () if objects is None else (objects, objects_border)
    if wanted:
        object_rules(labels, *wanted)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not have this file
    run = Path(run).absolute() if Path(run).is_dir() and shipped_folder(run) is None else run  # workers start elsewhere
    return dataset.map_batches(
        Worker,
        fn_constructor_args=(run, column, wanted, {"device": "cuda" if gpus else "cpu", **options}),
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers),
        num_cpus=cpus,
        num_gpus=gpus or None,
    )


class Worker:
    """Segments batches, with a model of its own."""

    def __init__(self, run: str | Path, column: str, objects: tuple[Any, ...], options: dict[str, Any]) -> None:
        import pyarrow as pa

        self.segmenter, self.column, self.objects = Segmenter(run, **options), column, objects
        types = {int: pa.int64(), str: pa.string()}
        fields = [(key, types.get(kind, pa.float64())) for key, kind in get_type_hints(Object).items()]
        self.types = {
            "labels": pa.binary(),
            "shares": pa.struct([(name, pa.float64()) for name in self.segmenter.label_set.names]),
            **({"objects": pa.list_(pa.struct(fields))} if objects else {}),
            "error": pa.string(),
        }

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """The same rows with results."""
        import pyarrow as pa

        rows = [self.row(value) for value in batch.column(self.column).to_pylist()]
        table = batch.drop_columns([name for name in batch.column_names if name in (*self.types, self.column)])
        for name, kind in self.types.items():
            table = table.append_column(name, pa.array([row.get(name) for row in rows], kind))
        return table

    def row(self, picture: bytes) -> dict[str, Any]:
        """The results of an encoded picture."""
        with tempfile.TemporaryDirectory(prefix="crispseg-") as folder:
            file, labels = Path(folder, "image"), Path(folder, "labels.png")
            file.write_bytes(picture or b"")  # a file is read as everywhere else, whatever its format
            try:
                result = self.segmenter(file)
            except CrispsegError as error:
                return {"error": str(error).replace(str(file), "the image")}
            write_labels(labels, result.labels, result.label_set.palette)
            row = {"labels": labels.read_bytes(), "shares": result.shares()}
            if self.objects:
                row["objects"] = [instance._asdict() for instance in result.objects(*self.objects)]
            return row


if __name__ == "__main__":
    import ray.data

    predict(ray.data.read_parquet(sys.argv[2]), sys.argv[1]).write_parquet(sys.argv[3])
