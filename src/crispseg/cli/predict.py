"""`crispseg predict RUN IMAGE_OR_DIR... [--out DIR] [--resume] [--shard I/N] [--format SERVER] [--objects CLASS]`"""

from __future__ import annotations

import errno
import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.progress import Progress, TaskID, track

from crispseg.cli.objects import add_object_keys, check_object_keys, chosen_objects
from crispseg.cli.parsing import MODEL, Parser, add_backend_key, add_image_keys
from crispseg.cli.protocol import add_protocol_keys, chosen_protocol
from crispseg.config.plugins import load_plugins
from crispseg.errors import CrispsegError, system_line, telling
from crispseg.inference import Segmentation, Segmenter
from crispseg.inference.blending import check_tile
from crispseg.inference.gathering import check_outputs, gather, unused_folder
from crispseg.inference.manifest import Manifest, Share
from crispseg.inference.objects import FILES, CocoFile, coco_file
from crispseg.inference.servers import FORMATS, ServerFormat
from crispseg.inference.source import Source
from crispseg.inference.tiled import remove_rows, segment_tiff, segmented_map
from crispseg.io.files import owned, owned_share
from crispseg.io.polygons import check_system, write_polygons
from crispseg.io.tiff import SUFFIXES, keep_position
from crispseg.models.saving import fingerprint

PALETTE = "palette"

COCO = "objects.json"
"""The file of the objects of all images."""

PLACES = ("run", "images", "out", "device", "plugins", "resume", "shard", "help")
"""Keys on which no result depends."""


def run(argv: Sequence[str]) -> None:
    """Run the command. Images that cannot be read are named, left out, and make the exit status 2."""
    parser = _parser()
    parsed = parser.parse(list(argv))

    check_object_keys(parsed)
    protocol, server, share = chosen_protocol(parsed), FORMATS.get(parsed.format), chosen_share(parsed)
    names = gather(parsed.images)
    out = unused_folder(parsed.images, names) if parsed.out is None else parsed.out
    in_parts = images_in_parts(parsed, names)
    if server is None:
        endings = ["_overlay.png", ".png", *(FILES if parsed.objects is not None else ())]
        made = {image: [f"{name}{each}" for each in endings] for image, name in names.items()}
        suffixes = [".tif", *([".geojson"] if parsed.polygons else ())]
        of_maps = {image: [f"{names[image]}{each}" for each in suffixes] for image in in_parts}
        check_outputs(out, made | of_maps, beside=False)
    else:
        check_outputs(out, {image: [server.file(image)] for image in names})
    load_plugins(parsed.plugins)
    segmenter = Segmenter(
        parsed.run,
        parsed.device,
        bf16=parsed.bf16,
        compile=parsed.compile,
        protocol=protocol,
        value_range=parsed.value_range,
        tile=parsed.tiles,
        backend=parsed.backend,
    )
    chosen_objects(parsed, segmenter.label_set)  # they are among its classes
    console = Console(stderr=True)
    if server is not None and (warning := server.check(segmenter.info)):
        console.print(warning, style="yellow", soft_wrap=True)
    places = {(out / name).parent for name in names.values()}
    if share is not None:
        names = {image: name for image, name in names.items() if name in share or image in in_parts}  # which all share
    objects = None if parsed.objects is None else (parsed.objects, parsed.objects_border)
    results = Results(out, names, server, objects, console, polygons=parsed.polygons)
    with ExitStack() as stack:
        stack.enter_context(owned_share(out, share.number, share.of, *places) if share else owned(out, *places))
        further = "; the same command goes on" if share else ""
        stack.enter_context(telling(lambda: f"{results.done} of {len(names)} images are segmented in {out}{further}"))
        before: set[str] = set()
        if share is not None:
            made_by = {"model": fingerprint(parsed.run), "settings": settings(parsed, parser)}
            results.manifest = stack.enter_context(closing(Manifest(out, share, made_by)))
            before = results.manifest.done(set(names.values()))
            for image in in_parts:
                if names[image] in before:  # a kill may have left its rows
                    remove_rows(out / f"{names[image]}.tif")
        elif parsed.objects is not None:
            results.coco = stack.enter_context(coco_file(out / COCO, parsed.objects))
        results.begin(len(before))
        remaining = [image for image, name in names.items() if name not in before]
        results.write_tiffs(segmenter, [image for image in remaining if image in in_parts])
        results.write(segmenter, [image for image in remaining if image not in in_parts])
    of = f"{len(names)} images" + (f" of share {share}" if share and share.of > 1 else "")
    print(f"{results.done} of {of} segmented into {out}" + (f", {len(before)} of them before" if before else ""))
    if results.waiting:
        print(f"{results.waiting} map(s) wait for rows of other shares; the share that ends last writes them")
    if results.coco is not None:
        print(f"{results.coco.count} objects of class {parsed.objects} in {out / COCO}")
    if failed := results.failed:
        raise CrispsegError(f"{len(failed)} of {of} could not be read, first {failed[0]}; they are named above")


def _parser() -> Parser:
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
    parser.add_argument("--compile", type=bool, default=False, help="compile the network at the first image")
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
        "--polygons",
        action="store_true",
        help="with --tiles, also NAME.geojson of each TIFF: the areas of the classes in coordinates of the map",
    )
    parser.add_argument(
        "--value_range",
        type=tuple[float, float] | None,
        default=None,
        help="values of 16-bit images that are black and white, such as [0,4095], instead of those of the training",
    )
    add_object_keys(parser, "write")
    add_protocol_keys(parser)
    return parser


def images_in_parts(parsed: Namespace, images: Iterable[Path]) -> set[Path]:
    """The TIFFs that are read and written in tiles.

    Raises:
        CrispsegError: a tile is too small; results are asked for that are not made in tiles.
    """
    if parsed.tiles is not None:
        check_tile(parsed.tiles)
    in_parts = [image for image in images if parsed.tiles is not None and image.suffix.lower() in SUFFIXES]
    if parsed.polygons and not in_parts:
        raise CrispsegError("--polygons are made of TIFFs in tiles; give TIFFs, and --tiles 1024")
    if parsed.polygons:
        for image in in_parts:
            check_system(image)
    if in_parts and parsed.format != PALETTE:
        raise CrispsegError(f"--tiles makes a TIFF of {in_parts[0]}, which no server takes; leave --format out")
    if parsed.objects is not None and (in_parts or parsed.format != PALETTE):
        what = f"--tiles, which makes a TIFF of {in_parts[0]}" if in_parts else f"--format {parsed.format}"
        raise CrispsegError(f"--objects does not go with {what}; leave one of them out")
    return {*in_parts}


@dataclass
class Results:
    """Writes what is found in images, and counts them.

    Args:
        out: the folder.
        names: of each image's results, without a suffix.
        server: of a benchmark, whose files are written; None for labels with colours.
        objects: class of the single objects that are written too, and that of their border.
        console: where to print.

    Attributes:
        manifest: of what is done, where one is kept.
        coco: the file of the objects of all images, where one is written.
        polygons: whether maps get polygons too.
        waiting: number of maps whose own rows are done, but not those of other shares.
        failed: images that could not be read, or whose results could not be named.
        done: number of images that are done.
    """

    out: Path
    names: Mapping[Path, str]
    server: ServerFormat | None
    objects: tuple[str, str | None] | None
    console: Console
    manifest: Manifest | None = None
    coco: CocoFile | None = None
    polygons: bool = False
    waiting: int = 0
    failed: list[Source] = field(default_factory=list)
    done: int = 0

    def begin(self, done: int) -> None:
        """Start the clock; so many images were done before."""
        self.done, self._last = done, time.perf_counter()

    def write(self, segmenter: Segmenter, images: Sequence[Path]) -> None:
        """Segment images that fit into memory; while one is computed, a thread writes the one before."""
        hidden = not self.console.is_terminal
        with closing(segmenter.stream(images, on_error=self._leave_out)) as results, ThreadPoolExecutor(1) as writer:
            before: Future[None] | None = None
            for result in track(results, "Segmenting", len(images), console=self.console, disable=hidden):
                if before is not None:
                    before.result()
                before = writer.submit(self._write_one, result)
            if before is not None:
                before.result()

    def _write_one(self, result: Segmentation) -> None:
        assert result.path is not None
        try:
            self._finish(result.path, self._save(result))
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self._leave_out(result.path, CrispsegError(system_line(error)))

    def write_tiffs(self, segmenter: Segmenter, images: Sequence[Path]) -> None:
        """Segment TIFFs of any size, each with a bar of its own."""
        with Progress(console=self.console, disable=not (images and self.console.is_terminal)) as bars:
            for image in images:
                bar, target = bars.add_task(image.name), self.out / f"{self.names[image]}.tif"
                step = functools.partial(_show, bars, bar)
                try:
                    if self.manifest is None:
                        segment_tiff(segmenter, image, target, progress=step)
                        self._finish_map(segmenter, image, target)
                    elif self._is_done(image):  # another share was faster
                        self.done += 1
                    else:
                        made_by, share = self.manifest.made_by, self.manifest.share
                        with segmented_map(segmenter, image, target, made_by, share=share, progress=step) as complete:
                            if complete:
                                self._finish_map(segmenter, image, target)
                        self.waiting += not complete
                except CrispsegError as error:
                    self._leave_out(image, error)

    def _finish_map(self, segmenter: Segmenter, image: Path, target: Path) -> None:
        saved = [target]
        if self.polygons:
            saved.append(target.with_suffix(".geojson"))
            write_polygons(target, saved[1], segmenter.label_set.names)
        print(f"{image}: segmented into {' and '.join(map(str, saved))}")
        self._finish(image, saved)

    def _is_done(self, image: Path) -> bool:
        return self.manifest is not None and bool(self.manifest.done({self.names[image]}))

    def _save(self, result: Segmentation) -> list[Path]:
        """Write the results of an image; gives the files that are its own."""
        assert result.path is not None
        if self.server is not None:
            return [self.server.save(self.out, result.path, result.labels)]
        result.name = self.names[result.path]
        saved = [*result.save(self.out)]
        tables = []
        if self.objects is not None:
            objects = result.objects(*self.objects)
            if self.coco is not None:
                self.coco.add(f"{result.name}{result.path.suffix}", objects)
            numbers, table = objects.save(self.out)
            saved.append(numbers)
            tables.append(table)
        if result.path.suffix.lower() in SUFFIXES:
            keep_position(result.path, saved)
        return saved + tables

    def _finish(self, image: Path, saved: Sequence[Path]) -> None:
        now = time.perf_counter()
        if self.manifest is not None:
            self.manifest.add(self.names[image], image, saved, now - self._last)
        self.done, self._last = self.done + 1, now

    def _leave_out(self, image: Source, error: CrispsegError) -> None:
        self.failed.append(image)
        self.console.print(f"left out: {error}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        if self.manifest is not None:
            assert isinstance(image, Path)
            self.manifest.fail(self.names[image], image, error)


def _show(bars: Progress, bar: TaskID, done: int, total: int) -> None:
    bars.update(bar, completed=done, total=total)


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
