"""`crispseg predict RUN IMAGE_OR_DIR... [--out DIR] [--resume] [--shard I/N] [--format SERVER] [--objects CLASS]`"""

from __future__ import annotations

import errno
import glob
import itertools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cache
from os.path import realpath
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.progress import Progress, track

from crispseg.cli.objects import add_object_keys, check_object_keys, chosen_objects
from crispseg.cli.parsing import MODEL, RUN, Parser, add_backend_key
from crispseg.cli.protocol import add_protocol_keys, chosen_protocol
from crispseg.errors import CrispsegError, system_line, telling
from crispseg.files import owned, owned_share, writable_folder
from crispseg.imaging import find_images
from crispseg.inference import Segmentation, Segmenter
from crispseg.inference.blending import check_tile
from crispseg.inference.servers import FORMATS
from crispseg.inference.source import Source
from crispseg.inference.tiled import segment_tiff
from crispseg.manifest import Manifest, Share
from crispseg.models.saving import fingerprint
from crispseg.objects import FILES, coco_file
from crispseg.plugins import load_plugins
from crispseg.tiff import SUFFIXES, keep_position

PALETTE = "palette"

COCO = "objects.json"
"""The file of the objects of all images."""

PLACES = ("run", "images", "out", "device", "plugins", "resume", "shard", "help")
"""Keys on which no result depends."""


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
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep a manifest in --out and leave out what it has: the same command goes on after it was ended",
    )
    parser.add_argument(
        "--shard",
        type=str | None,
        default=None,
        metavar="I/N",
        help="one of N shares of the images, 1/3, 2/3 or 3/3, for as many processes with one --out; --resume included",
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
    share = chosen_share(parsed)
    names = gather(parsed.images)
    out = unused_folder(parsed.images, names) if parsed.out is None else parsed.out
    if tile is not None:
        check_tile(tile)
    in_parts = {image: [".tif"] for image in names if tile is not None and image.suffix.lower() in SUFFIXES}
    first = next(iter(in_parts), None)
    if first and server is not None:
        raise CrispsegError(f"--tiles makes a TIFF of {first}, which no server takes; leave --format out")
    if parsed.objects is not None and (in_parts or server is not None):
        what = f"--tiles, which makes a TIFF of {first}" if first else f"--format {parsed.format}"
        raise CrispsegError(f"--objects does not go with {what}; leave one of them out")
    endings = {image: ["_overlay.png", ".png"] for image in names} | in_parts
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
    chosen_objects(parsed, segmenter.label_set)
    console = Console(stderr=True)
    if server is not None and (warning := server.check(segmenter.info)):
        console.print(warning, style="yellow", soft_wrap=True)
    places = {(out / name).parent for name in names.values()}
    if share is not None:
        names = {image: name for image, name in names.items() if name in share}
    failed: list[Source] = []
    done = before = 0
    with ExitStack() as stack:
        stack.enter_context(owned_share(out, share.number, share.of, *places) if share else owned(out, *places))
        further = "; the same command goes on" if share else ""
        stack.enter_context(telling(lambda: f"{done} of {len(names)} images are segmented in {out}{further}"))
        manifest = coco = None
        start = time.perf_counter()
        remaining = names
        if share is not None:
            made_by = {"model": fingerprint(parsed.run), "settings": settings(parsed, parser)}
            manifest = stack.enter_context(closing(Manifest(out, share, made_by)))
            finished = manifest.done(set(names.values()))
            remaining = {image: name for image, name in names.items() if name not in finished}
            done = before = len(finished)
        elif parsed.objects is not None:
            coco = stack.enter_context(coco_file(out / COCO, parsed.objects))

        def report(image: Source, error: CrispsegError) -> None:
            failed.append(image)
            console.print(f"left out: {error}", style="yellow", highlight=False, markup=False, soft_wrap=True)
            if manifest is not None:
                assert isinstance(image, Path)
                manifest.fail(names[image], image, error)

        def save(result: Segmentation) -> list[Path]:
            assert result.path is not None
            if server is not None:
                return [server.save(out, result.path, result.labels)]
            result.name = names[result.path]
            saved = [*result.save(out)]
            if parsed.objects is not None:
                objects = result.objects(parsed.objects, parsed.objects_border)
                if coco is not None:
                    coco.add(f"{result.name}{result.path.suffix}", objects)
                numbers, table = objects.save(out)
                saved.append(numbers)
            if result.path.suffix.lower() in SUFFIXES:
                keep_position(result.path, saved)
            return saved if parsed.objects is None else [*saved, table]

        def finish(image: Path, saved: Sequence[Path]) -> None:
            nonlocal done, start
            now = time.perf_counter()
            if manifest is not None:
                manifest.add(names[image], image, saved, now - start)
            done, start = done + 1, now

        tiffs = [image for image in in_parts if image in remaining]
        with Progress(console=console, disable=not (tiffs and console.is_terminal)) as bars:
            for image in tiffs:
                try:
                    target = out / f"{names[image]}.tif"
                    predict_tiled(segmenter, image, target, bars)
                    finish(image, [target])
                except CrispsegError as error:
                    report(image, error)
        whole = [image for image in remaining if image not in in_parts]
        results = segmenter.stream(whole, on_error=report)
        for result in track(results, "Segmenting", len(whole), console=console, disable=not console.is_terminal):
            assert result.path is not None
            try:
                finish(result.path, save(result))
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                report(result.path, CrispsegError(system_line(error)))
    of = f"{len(names)} images" + (f" of share {share}" if share and share.of > 1 else "")
    print(f"{done} of {of} segmented into {out}" + (f", {before} of them before" if before else ""))
    if coco is not None:
        print(f"{coco.count} objects of class {parsed.objects} in {out / COCO}")
    if failed:
        raise CrispsegError(f"{len(failed)} of {of} could not be read, first {failed[0]}; they are named above")


def chosen_share(parsed: Namespace) -> Share | None:
    """The share that is asked for, the only one with `--resume` alone; None without a manifest.

    Raises:
        CrispsegError: there is none of that number, or no `--out`.
    """
    if not parsed.resume and parsed.shard is None:
        return None
    if parsed.out is None:
        raise CrispsegError(f"--{'shard' if parsed.shard else 'resume'} needs the folder to go on in; add --out FOLDER")
    return Share.parse(parsed.shard) if parsed.shard is not None else Share()


def settings(parsed: Namespace, parser: Parser) -> dict[str, Any]:
    """The keys on which results depend, where they are not as they are by default."""
    keys = (key for key in vars(parsed) if key not in PLACES)
    return {key: parsed[key] for key in keys if parsed[key] != parser.get_default(key)}


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
        "images",
        nargs="+",
        help="files, folders (with their sub-folders), patterns such as 'in/*.jpg' and lists of paths, LIST.txt",
    )
    parser.add_argument(
        "--device", type=str | None, default=None, help="cpu or cuda; by default CUDA where there is one"
    )
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")


def gather(sources: Sequence[str]) -> dict[Path, str]:
    """Image files, each with the name of its results: its own, or the path inside its folder, without the suffix.

    A text file lists paths, one a line, from its own folder; what they lead to is not looked at. Results are named as
    the line says: by all of it, or by the file's name where the path is absolute or leads out of the folder.

    Raises:
        CrispsegError: a source is missing, or holds no image.
    """
    names: dict[Path, str] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = {image: image.relative_to(path) for image in find_images(path)}
        elif path.suffix.lower() == ".txt" and path.is_file():
            found = {path.parent / line: _own_name(line) for line in _lines(path)}
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


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise CrispsegError(f"{path} is no text in UTF-8; give a list of paths, one a line") from None
    for number, line in enumerate(lines, 1):
        if line and not Path(line).name:
            raise CrispsegError(f"{path} has '{line}' in line {number}, which is no file; give a path a line")
    return [*filter(None, lines)]


def _own_name(line: str) -> Path:
    path = Path(line)
    return Path(path.name) if path.is_absolute() or ".." in path.parts else path


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
    # Folders are few, and each is resolved once: a million paths, one by one, would take minutes.
    real = cache(lambda path: Path(realpath(path)))  # unlike `Path.resolve` it follows loops of links too
    place_in_out = cache(lambda folder: Path(realpath(out / folder)))
    images = {real(image) if image.is_symlink() else real(image.parent) / image.name for image in files}
    places = {image.parent for image in images}
    written: dict[str, Path] = {}
    for image, names in files.items():
        for name in map(str, names):
            if name in written:
                both = f"{written[name]} and {image}"
                raise CrispsegError(f"{both} would both write {out / name}; segment them one by one")
            folder, _, file = name.rpartition(os.sep)
            place = place_in_out(folder)
            if place in places and place / file in images:
                raise CrispsegError(f"--out {out} would replace the image {out / name}; choose another folder")
            if not beside and place == real(image.parent):
                raise CrispsegError(f"--out {out} would mix results with the image {image}; choose another folder")
            written[name] = image
    writable_folder(out)
