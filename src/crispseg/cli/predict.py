"""`crispseg predict RUN IMAGE_OR_DIR... --out DIR`"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from crispseg.cli.parsing import Parser
from crispseg.errors import CrispsegError
from crispseg.files import writable_folder
from crispseg.imaging import find_images
from crispseg.inference import Segmenter
from crispseg.inference.segmenter import Source
from crispseg.plugins import load_plugins


def run(argv: Sequence[str]) -> None:
    """Run the command. Images that cannot be read are named, left out, and make the exit status 2."""
    parser = Parser(
        prog="crispseg predict",
        description="Segment images: NAME.png holds the class ids (with colours), NAME_overlay.png shows them.",
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
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")
    parsed = parser.parse(list(argv))

    names = output_names(list(gather(parsed.images)))
    inside = next((image for image, name in names.items() if _same_folder(parsed.out / name, image)), None)
    if inside is not None:
        raise CrispsegError(f"--out {parsed.out} would write beside the image {inside}, over its files; choose another")
    writable_folder(parsed.out)
    load_plugins(parsed.plugins)
    segmenter = Segmenter(parsed.run, parsed.device, bf16=parsed.bf16)
    console = Console(stderr=True)
    failed: list[Source] = []

    def report(image: Source, error: CrispsegError) -> None:
        failed.append(image)
        console.print(f"left out: {error}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    results = segmenter.stream(names, on_error=report)
    for result in track(results, "Segmenting", len(names), console=console, disable=not console.is_terminal):
        assert result.path is not None
        result.name = names[result.path]
        result.save(parsed.out)
    print(f"{len(names) - len(failed)} of {len(names)} images segmented into {parsed.out}")
    if failed:
        raise CrispsegError(
            f"{len(failed)} of {len(names)} images could not be read, first {failed[0]}; they are named above"
        )


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
