"""`crispseg refine RUN IMAGE_OR_DIR... --labels DIR --out DIR`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from crispseg.cli.parsing import Parser, add_image_keys
from crispseg.config.plugins import load_plugins
from crispseg.errors import CrispsegError
from crispseg.inference.image_files import check_outputs, named_images
from crispseg.inference.refiner import Refiner, read_labels
from crispseg.io.images import write_labels


def run(argv: Sequence[str]) -> None:
    """Run the command. The first file that does not fit ends it."""
    parser = Parser(
        prog="crispseg refine",
        description="Move the labels that any model has saved along boundaries, by the boundary refinement of a model "
        "that was trained with --model.refine boundary. NAME.png is read from --labels and written to --out.",
    )
    add_image_keys(parser, ", of a model that refines")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--labels", type=Path, required=True, help="folder of the label PNGs, named as 'crispseg predict' names them"
    )
    parsed = parser.parse(list(argv))

    names = named_images(parsed.images)
    if not parsed.labels.is_dir():
        raise CrispsegError(f"--labels {parsed.labels} is no folder; give that of the label PNGs")
    if parsed.out.resolve() == parsed.labels.resolve():
        raise CrispsegError(f"--out {parsed.out} would write over the labels themselves; choose another folder")
    for image, name in names.items():
        if not (parsed.labels / f"{name}.png").is_file():
            raise CrispsegError(f"{image} has no labels: {parsed.labels / name}.png does not exist")
    check_outputs(parsed.out, {image: [f"{name}.png"] for image, name in names.items()})
    load_plugins(parsed.plugins)
    refiner = Refiner(parsed.run, parsed.device)
    console = Console(stderr=True)
    moved = pixels = 0
    for image, name in track(names.items(), "Refining", len(names), console=console, disable=not console.is_terminal):
        labels, palette = read_labels(parsed.labels / f"{name}.png")
        try:
            refined = refiner(image, labels)
        except ValueError as error:
            raise CrispsegError(f"{parsed.labels / name}.png: {error}") from None
        write_labels(parsed.out / f"{name}.png", refined, palette)
        moved += int((refined != labels).sum())
        pixels += labels.size
    print(f"{len(names)} label maps refined into {parsed.out}; {100 * moved / pixels:.2f} % of the labels changed")
