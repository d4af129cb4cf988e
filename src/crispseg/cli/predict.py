"""`crispseg predict RUN IMAGE_OR_DIR... --out DIR [--protocol NAME] [--format SERVER] [--tiles SIDE]`"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID, track

from crispseg.cli.parsing import Parser
from crispseg.cli.protocol import add_protocol_keys, chosen_protocol
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.files import writable_folder
from crispseg.imaging import find_images
from crispseg.inference import Segmenter
from crispseg.inference.segmenter import Source
from crispseg.inference.servers import FORMATS, ServerFormat
from crispseg.inference.tiled import check_tile, segment_tiff
from crispseg.plugins import load_plugins

DEFAULT_FORMAT = "palette"


def run(argv: Sequence[str]) -> None:
    """Run the command. Images that cannot be read are named, left out, and make the exit status 2."""
    parser = Parser(
        prog="crispseg predict",
        description="Segment images: NAME.png holds the class ids (with colours), NAME_overlay.png shows them. With "
        "--format, files as a benchmark's server takes them; with --tiles, NAME.tif.",
    )
    parser.add_argument("run", help="a run's folder, a saved model's folder or a hub id")
    parser.add_argument(
        "images", nargs="+", help="files, folders (with their sub-folders) and patterns such as 'in/*.jpg'"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--device", type=str | None, default=None, help="cpu or cuda; by default CUDA where there is one"
    )
    parser.add_argument("--bf16", type=bool, default=False, help="compute in bfloat16: faster, a little less exact")
    parser.add_argument(
        "--format", default=DEFAULT_FORMAT, help=f"{DEFAULT_FORMAT}, or files for the server of {', '.join(FORMATS)}"
    )
    parser.add_argument(
        "--tiles", type=int | None, default=None, help="side of tiles, such as 1024, for TIFFs larger than memory"
    )
    add_protocol_keys(parser)
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")
    parsed = parser.parse(list(argv))

    protocol = chosen_protocol(parsed)
    server = server_format(parsed.format)
    names = output_names(list(gather(parsed.images)))
    if parsed.tiles is not None:
        check_tiled(parsed.tiles, names, server)
    if server is not None:
        check_files(server, names, parsed.out)
    inside = next((image for image, name in names.items() if _same_folder(parsed.out / name, image)), None)
    if inside is not None:
        raise CrispsegError(f"--out {parsed.out} would write beside the image {inside}, over its files; choose another")
    writable_folder(parsed.out)
    load_plugins(parsed.plugins)
    segmenter = Segmenter(parsed.run, parsed.device, bf16=parsed.bf16, protocol=protocol)
    console = Console(stderr=True)
    if server is not None:
        server.check(len(segmenter.label_set))
        if segmenter.info.class_names not in ((), server.names):
            console.print(
                f"the model's classes are {', '.join(segmenter.info.class_names)}; those of {server.data} have other "
                "names, and are taken to come in the same order",
                style="yellow",
                soft_wrap=True,
            )
    failed: list[Source] = []

    def report(image: Source, error: CrispsegError) -> None:
        failed.append(image)
        console.print(f"left out: {error}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    if parsed.tiles is not None:
        predict_tiled(segmenter, names, parsed.out, parsed.tiles, console, report)
    else:
        results = segmenter.stream(names, on_error=report)
        for result in track(results, "Segmenting", len(names), console=console, disable=not console.is_terminal):
            assert result.path is not None
            if server is not None:
                server.save(parsed.out, result.path, result.labels)
                continue
            result.name = names[result.path]
            result.save(parsed.out)
    print(f"{len(names) - len(failed)} of {len(names)} images segmented into {parsed.out}")
    if failed:
        raise CrispsegError(
            f"{len(failed)} of {len(names)} images could not be read, first {failed[0]}; they are named above"
        )


def server_format(name: str) -> ServerFormat | None:
    """The format of a server, or None for palette PNGs and overlays.

    Raises:
        CrispsegError: there is none of this name.
    """
    if name == DEFAULT_FORMAT:
        return None
    if name not in FORMATS:
        raise CrispsegError(f"unknown format '{name}'{did_you_mean(name, [DEFAULT_FORMAT, *FORMATS])}")
    return FORMATS[name]


def check_files(server: ServerFormat, images: Iterable[Path], out: Path) -> None:
    """Make sure that every image has a file of its own in the folder to submit.

    Raises:
        CrispsegError: an image is not named as the data name theirs; two images have one name, or would be replaced.
    """
    written: dict[Path, Path] = {}
    for image in images:
        file = server.file(image)
        if file in written:
            raise CrispsegError(f"{written[file]} and {image} would both write {file}; give one of them")
        if (out / file).resolve() == image.resolve():
            raise CrispsegError(f"--out {out} would replace the image {image}; choose another folder")
        written[file] = image


def check_tiled(tile: int, images: Iterable[Path], server: ServerFormat | None) -> None:
    """Raise a CrispsegError where --tiles does not fit the images or the other flags."""
    check_tile(tile)
    if server is not None:
        raise CrispsegError("--tiles writes TIFFs, which no server takes; leave --format out")
    other = next((image for image in images if image.suffix.lower() not in (".tif", ".tiff")), None)
    if other is not None:
        raise CrispsegError(f"--tiles reads TIFFs in parts, and {other} is none; convert it, or leave --tiles out")


def predict_tiled(
    segmenter: Segmenter,
    names: Mapping[Path, str],
    out: Path,
    tile: int,
    console: Console,
    report: Callable[[Source, CrispsegError], None],
) -> None:
    """Segment TIFFs of any size into `NAME.tif`; `report` is called with those that cannot be read."""
    with Progress(console=console, disable=not console.is_terminal) as bars:
        for image, name in names.items():
            bar = bars.add_task(image.name)

            def show(done: int, total: int, bar: TaskID = bar) -> None:
                bars.update(bar, completed=done, total=total)

            try:
                height, width = segment_tiff(segmenter, image, out / f"{name}.tif", tile, show)
            except CrispsegError as error:
                report(image, error)
                continue
            print(f"{image}: {width}×{height} pixels segmented into {out / name}.tif")


def _same_folder(one: Path, other: Path) -> bool:
    return one.parent.resolve() == other.parent.resolve()


def gather(sources: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Image files, each with the path its results are named by: its own name, or the path inside its folder.

    Raises:
        CrispsegError: a source is missing, or holds no image.
    """
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found = [(image, image.relative_to(path)) for image in find_images(path)]
        elif path.exists():
            found = [(path, Path(path.name))]
        else:
            matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 (a pattern may be absolute)
            found = [(image, Path(image.name)) for image in map(Path, matches) if image.is_file()]
            if not found and not glob.has_magic(source):
                raise CrispsegError(f"{source} does not exist; give an image, a folder or a pattern")
        if not found:
            raise CrispsegError(f"{source} holds no images; give an image, a folder or a pattern")
        yield from found


def output_names(images: Sequence[tuple[Path, Path]]) -> dict[Path, str]:
    """The name of the results of each image.

    Raises:
        CrispsegError: two images would write the same file.
    """
    names: dict[Path, str] = {}
    written: dict[str, Path] = {}
    for image, relative in images:
        if image in names:
            continue
        names[image] = str(relative.with_suffix(""))
        for output in (names[image], f"{names[image]}_overlay"):
            if output in written:
                raise CrispsegError(
                    f"{written[output]} and {image} would both write {output}.png; segment them one by one"
                )
            written[output] = image
    return names
