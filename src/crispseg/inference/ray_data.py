"""Very many images with Ray Data, on one machine or on a cluster; `pip install 'crispseg[ray]'` installs it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crispseg.errors import CrispsegError, did_you_mean
from crispseg.inference.image_files import check_outputs, named_images
from crispseg.inference.objects import Object, ObjectRule
from crispseg.inference.segmenter import Segmentation, Segmenter
from crispseg.io.images import write_labels
from crispseg.models.saving import shipped_folder

if TYPE_CHECKING:
    import pyarrow
    from ray.data import Dataset

__all__ = ["predict"]


def predict(
    dataset: Dataset | str | Path | Sequence[str | Path],
    run: str | Path,
    *,
    out: str | Path | None = None,
    column: str = "bytes",
    objects: str | None = None,
    objects_border: str | None = None,
    workers: int = 1,
    cpus: float = 1,
    gpus: float = 0,
    batch_size: int = 16,
    address: str | None = None,
    **options: Any,
) -> Dataset:
    """Segment images with Ray Data, by workers each of which holds the model.

    Rows are those of the dataset, in any order, without the pictures and with

    - `labels`: a palette PNG whose values are the class ids, as `crispseg predict` writes it; or, with `out`, `file`:
      the path of the file that holds it;
    - `shares`: class → share of the pixels, 0 to 1;
    - `objects`, if a class is named: a list of `crispseg.inference.objects.Object`, as structs;
    - `seconds`, that it took, and `error`: why an image could not be read, else null. Then all others but it are.

    Args:
        dataset: with a column of encoded pictures, as of `ray.data.read_binary_files(…, include_paths=True)` or
            `read_parquet`; or files, as `crispseg predict` takes them, which every worker must be able to read.
        run: as for `Segmenter`; every worker must be able to read it.
        out: folder of all workers for `NAME.png`, where `NAME` is the row's unique `name`, which files have by
            themselves. All is computed at once then; without it when the result is used, as by `write_parquet`.
        column: that holds the pictures as bytes, as paths, or as structs with `bytes` or `path`.
        objects: class whose single objects are to be found.
        objects_border: class of the pixels between objects.
        workers: processes that segment.
        cpus: cores that Ray reserves for each; reading a dataset needs one more, without which Ray waits for ever.
        gpus: the same of GPUs; without them a worker computes on the CPU.
        batch_size: images that a worker is given at a time.
        address: of a Ray cluster; by default as `ray.init` has it: this machine, unless RAY_ADDRESS or a running Ray
            say otherwise. A connection that is there already stays.
        **options: further options of `Segmenter`: `bf16`, `protocol`, `value_range`, `tile`.

    Raises:
        CrispsegError: Ray is not installed; no such model, class, protocol or column; files as for `crispseg predict`.

    Example:
        >>> rows = ray.data.read_parquet("photos.parquet")  # doctest: +SKIP
        >>> crispseg.inference.ray_data.predict(rows, "runs/streets").write_parquet("labels")  # doctest: +SKIP
    """
    try:
        import ray.data
    except ImportError:
        raise CrispsegError("crispseg.inference.ray_data needs Ray; pip install 'crispseg[ray]'") from None
    segmenter = Segmenter(run, "cpu", **options)  # mistakes are found before Ray starts
    if objects is not None:
        ObjectRule.named(segmenter.label_set, objects, objects_border)
    run = Path(run).absolute() if Path(run).is_dir() and shipped_folder(run) is None else run  # workers start elsewhere
    out = None if out is None else Path(out).absolute()
    files = None
    if isinstance(dataset, str | Path | list | tuple):
        files = named_images([dataset] if isinstance(dataset, str | Path) else dataset)
        if out is not None:
            check_outputs(out, {image: [f"{name}.png"] for image, name in files.items()}, beside=False)
    if not ray.is_initialized():
        ray.init(address=address)
    rows: Any = dataset
    if files is not None:
        rows = ray.data.from_items([{"path": str(image.absolute()), "name": name} for image, name in files.items()])
        column = "path"
    for needed in (column, *(["name"] if out is not None else [])):
        if needed not in (there := rows.columns()):
            raise CrispsegError(f"the dataset has no column '{needed}'{did_you_mean(needed, there)}")
    device = "cuda" if gpus else "cpu"
    results = rows.map_batches(
        _Worker,
        fn_constructor_args=(run, out, column, objects, objects_border, {"device": device, **options}),
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cpus,
        num_gpus=gpus or None,
        udf_modifying_row_count=False,
    )
    return results if out is None else results.materialize()


class _Worker:
    """Segments batches, with a model of its own; arguments as above."""

    def __init__(
        self,
        run: str | Path,
        out: Path | None,
        column: str,
        objects: str | None,
        border: str | None,
        options: dict[str, Any],
    ) -> None:
        import pyarrow as pa

        self.segmenter = Segmenter(run, **options)
        self.out, self.column, self.objects, self.border = out, column, objects, border
        self.scratch = tempfile.TemporaryDirectory(prefix="crispseg-")
        fields = [(key, pa.int64() if kind == "int" else pa.float64()) for key, kind in Object.__annotations__.items()]
        self.types = {
            **({"labels": pa.binary()} if out is None else {"file": pa.string()}),
            "shares": pa.struct([(name, pa.float64()) for name in self.segmenter.label_set.names]),
            **({} if objects is None else {"objects": pa.list_(pa.struct(fields))}),
            "seconds": pa.float64(),
            "error": pa.string(),
        }

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """The same rows with results."""
        import pyarrow as pa

        names = batch.column("name").to_pylist() if self.out else [None] * len(batch)
        found = [self.row(*each) for each in zip(batch.column(self.column).to_pylist(), names, strict=True)]
        pictures = None if batch.schema.field(self.column).type == pa.string() else self.column  # paths are kept
        table = batch.drop_columns([name for name in batch.column_names if name in (*self.types, pictures)])
        for name, kind in self.types.items():
            table = table.append_column(name, pa.array([row.get(name) for row in found], kind))
        return table

    def row(self, value: Any, name: str | None) -> dict[str, Any]:
        """The results of an image."""
        start = time.perf_counter()
        target = Path(self.scratch.name) / "labels.png" if self.out is None else self.out / f"{name}.png"
        try:
            if self.out is not None and (not name or not target.resolve().is_relative_to(self.out.resolve())):
                raise CrispsegError(f"the name {name!r} leads out of {self.out}; give names such as 'a/0001'")
            result = self.segment(value)
            row: dict[str, Any] = {"shares": result.shares()}
            if self.objects is not None:
                row["objects"] = [each._asdict() for each in result.objects(self.objects, self.border)]
            write_labels(target, result.labels, self.segmenter.label_set.palette)
        except CrispsegError as error:
            return {"error": str(error)}
        row |= {"file": str(target)} if self.out else {"labels": target.read_bytes()}
        return {**row, "seconds": time.perf_counter() - start}

    def segment(self, value: Any) -> Segmentation:
        """The segmentation of a picture, as bytes, by its path, or a struct of them."""
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            return self.segmenter(Path(value))  # type: ignore[no-any-return]
        if not isinstance(value, bytes):
            kind = type(value).__name__
            raise CrispsegError(f"column '{self.column}' holds a {kind}; give encoded pictures as bytes, or paths")
        file = Path(self.scratch.name) / "image"  # a file is read as everywhere else, whatever its format
        file.write_bytes(value)
        try:
            return self.segmenter(file)  # type: ignore[no-any-return]
        except CrispsegError as error:
            raise CrispsegError(str(error).replace(str(file), "the image")) from None
