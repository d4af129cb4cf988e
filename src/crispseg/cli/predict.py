"""`crispseg predict RUN IMAGE_OR_DIR... [--out DIR] [--protocol NAME] [--format SERVER] [--objects CLASS]`"""

from __future__ import annotations

import errno
import glob
import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, track

from crispseg.cli.objects import add_object_keys, check_object_keys, chosen_objects
from crispseg.cli.parsing import MODEL, RUN, Parser, add_backend_key
from crispseg.cli.protocol import add_protocol_keys, chosen_protocol
from crispseg.errors import CrispsegError, system_line, telling
from crispseg.files import owned, writable_folder
from crispseg.imaging import find_images
from crispseg.inference import Segmentation, Segmenter
from crispseg.inference.blending import check_tile
from crispseg.inference.servers import FORMATS
from crispseg.inference.source import Source
from crispseg.inference.tiled import segment_tiff
from crispseg.objects import FILES, CocoFile, coco_file
from crispseg.plugins import load_plugins
from crispseg.tiff import SUFFIXES, keep_position

PALETTE = "palette"

COCO = "objects.json"
"""The file of the objects of all images."""


def run(argv: Sequence[str]) -> None:
    """Run the command. Images that cannot be read are named, left out, and make the exit status 2."""
    parser = Parser(
        prog="crispseg predict",
        description="Segment images: NAME.png holds the class ids (with colours), NAME_overlay.png shows them. With "
        "--format, files as a benchmark's server takes them; with --tiles, NAME.tif for a TIFF; with --objects, also "
        f"NAME_objects.png, numbers, NAME_objects.csv, a table, and {COCO}, outlines in COCO's format.",
    )
    add_image_keys(parser, model=MODEL)
    add_backend_key(parser)
    parser.add_argument(
        "--out", type=Path | None, default=None, help="folder to write to; by default a new one beside the images"
    )
    parser.add_argument("--bf16", type=bool, default=False, help="compute in bfloat16: faster, a little less exact")
    parser.add_argument(
        "--format",
        default=PALETTE,
        choices=[PALETTE, *FORMATS],
        help=f"{PALETTE}, or files for the server of {', '.join(FORMATS)}",
    )
    parser.add_argument(
        "--tiles",
        type=int | None,
        default=None,
        help="side of tiles, such as 1024, in which large images are seen, and TIFFs read and written",
    )
    parser.add_argument(
        "--value_range",
        type=tuple[float, float] | None,
        default=None,
        help="values of 16-bit images that are black and white, such as [0,4095], instead of those of the training",
    )
    add_object_keys(parser, "write")
    add_protocol_keys(parser)
    parsed = parser.parse(list(argv))

    check_object_keys(parsed)
    protocol, server, tile = chosen_protocol(parsed), FORMATS.get(parsed.format), parsed.tiles
    names = gather(parsed.images)
    out = unused_folder(parsed.images, names) if parsed.out is None else parsed.out
    if tile is not None:
        check_tile(tile)
    in_parts = [image for image in names if tile is not None and image.suffix.lower() in SUFFIXES]
    if in_parts and server is not None:
        raise CrispsegError(f"--tiles makes a TIFF of {in_parts[0]}, which no server takes; leave --format out")
    if parsed.objects is not None and (in_parts or server is not None):
        what = f"--tiles, which makes a TIFF of {in_parts[0]}" if in_parts else f"--format {parsed.format}"
        raise CrispsegError(f"--objects does not go with {what}; leave one of them out")
    endings = {image: ["_overlay.png", ".png"] for image in names} | {image: [".tif"] for image in in_parts}
    if parsed.objects is not None:
        endings = {image: [*both, *FILES] for image, both in endings.items()}
    check_outputs(
        out,
        {
            image: [f"{name}{ending}" for ending in endings[image]] if server is None else [server.file(image)]
            for image, name in names.items()
        },
        beside=server is not None,
    )
    load_plugins(parsed.plugins)
    segmenter = Segmenter(
        parsed.run,
        parsed.device,
        bf16=parsed.bf16,
        protocol=protocol,
        value_range=parsed.value_range,
        tile=tile,
        backend=parsed.backend,
    )
    rule = chosen_objects(parsed, segmenter.label_set)
    console = Console(stderr=True)
    if server is not None and (warning := server.check(segmenter.info)):
        console.print(warning, style="yellow", soft_wrap=True)
    failed: list[Source] = []
    done = 0

    def report(image: Source, error: CrispsegError) -> None:
        failed.append(image)
        console.print(f"left out: {error}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def save(result: Segmentation) -> None:
        assert result.path is not None
        if server is not None:
            server.save(out, result.path, result.labels)
            return
        result.name = names[result.path]
        saved = [*result.save(out)]
        if coco is not None:
            objects = result.objects(parsed.objects, parsed.objects_border)
            coco.add(f"{result.name}{result.path.suffix}", objects)
            saved.append(objects.save(out)[0])
        if result.path.suffix.lower() in SUFFIXES:
            keep_position(result.path, saved)

    whole = [image for image in names if image not in set(in_parts)]
    places = {(out / name).parent for name in names.values()}
    found: AbstractContextManager[CocoFile | None] = coco_file(out / COCO, parsed.objects) if rule else nullcontext()
    with owned(out, *places), telling(lambda: f"{done} of {len(names)} images are segmented in {out}"), found as coco:
        with Progress(console=console, disable=not (in_parts and console.is_terminal)) as bars:
            for image in in_parts:
                try:
                    predict_tiled(segmenter, image, out / f"{names[image]}.tif", bars)
                    done += 1
                except CrispsegError as error:
                    report(image, error)
        results = segmenter.stream(whole, on_error=report)
        for result in track(results, "Segmenting", len(whole), console=console, disable=not console.is_terminal):
            try:
                save(result)
                done += 1
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                assert result.path is not None
                report(result.path, CrispsegError(system_line(error)))
    print(f"{len(names) - len(failed)} of {len(names)} images segmented into {out}")
    if coco is not None:
        print(f"{coco.count} objects of class {parsed.objects} in {out / COCO}")
    if failed:
        raise CrispsegError(
            f"{len(failed)} of {len(names)} images could not be read, first {failed[0]}; they are named above"
        )


def predict_tiled(segmenter: Segmenter, image: Path, target: Path, bars: Progress) -> None:
    """Segment a TIFF of any size, with a bar of its own."""
    bar = bars.add_task(image.name)
    height, width = segment_tiff(
        segmenter, image, target, progress=lambda done, total: bars.update(bar, completed=done, total=total)
    )
    print(f"{image}: {width}×{height} pixels segmented into {target}")


def add_image_keys(parser: Parser, of: str = "", model: str = RUN) -> None:
    """What commands have that read images with a model and write as many results; `of` says which model."""
    parser.add_argument("run", help=f"{model}{of}")
    parser.add_argument(
        "images", nargs="+", help="files, folders (with their sub-folders) and patterns such as 'in/*.jpg'"
    )
    parser.add_argument(
        "--device", type=str | None, default=None, help="cpu or cuda; by default CUDA where there is one"
    )
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")


def gather(sources: Sequence[str]) -> dict[Path, str]:
    """Image files, each with the name of its results: its own, or the path inside its folder, without the suffix.

    Raises:
        CrispsegError: a source is missing, or holds no image.
    """
    names: dict[Path, str] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = {image: image.relative_to(path) for image in find_images(path)}
        elif path.exists():
            found = {path: Path(path.name)}
        else:
            matches = map(Path, sorted(glob.glob(source, recursive=True)))  # noqa: PTH207 (a pattern may be absolute)
            found = {image: Path(image.name) for image in matches if image.is_file()}
            if not found and not glob.has_magic(source):
                raise CrispsegError(f"{source} does not exist; give an image, a folder or a pattern")
        if not found:
            raise CrispsegError(f"{source} holds no images; give an image, a folder or a pattern")
        for image, name in found.items():
            names.setdefault(image, str(name.with_suffix("")))
    return names


def unused_folder(sources: Sequence[str], images: Iterable[Path]) -> Path:
    """Where to write if nothing is said: photos_predictions beside the folder photos, a_predictions beside a.jpg.

    A folder that holds anything is left as it is: photos_predictions_2 follows.

    Raises:
        CrispsegError: the images are not of one folder.
    """
    folders = {image.parent for image in images}
    start = Path(sources[0])
    if len(sources) > 1 or not start.exists():
        start = folders.pop()
    elif start.is_file():
        start, folders = start.with_suffix(""), set()
    else:
        folders = set()
    if start.name in ("", ".."):
        start = start.resolve()
    if folders or not start.name:
        raise CrispsegError("the images are not of one folder; say where to write by --out FOLDER")
    numbered = (start.with_name(f"{start.name}_predictions_{number}") for number in itertools.count(2))
    candidates = itertools.chain([start.with_name(f"{start.name}_predictions")], numbered)
    return next(one for one in candidates if not one.exists() or (one.is_dir() and not any(one.iterdir())))


def check_outputs(out: Path, files: Mapping[Path, Sequence[str | Path]], beside: bool = True) -> None:
    """Make sure that each image has files of its own in a folder that can be written, over no image, nor `beside` it.

    Raises:
        CrispsegError: two images would write one file, or over or beside an image; or the folder cannot be written.
    """
    written: dict[Path, Path] = {}
    images = {image.resolve() for image in files}
    for image, names in files.items():
        for path in (out / name for name in names):
            if path in written:
                raise CrispsegError(f"{written[path]} and {image} would both write {path}; segment them one by one")
            if path.resolve() in images:
                raise CrispsegError(f"--out {out} would replace the image {path}; choose another folder")
            if not beside and path.parent.resolve() == image.parent.resolve():
                raise CrispsegError(f"--out {out} would mix results with the image {image}; choose another folder")
            written[path] = image
    writable_folder(out)
