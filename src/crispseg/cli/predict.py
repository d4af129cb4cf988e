"""`crispseg predict RUN IMAGE_OR_DIR... [--out DIR] [--resume] [--shard I/N] [--format SERVER] [--objects CLASS]`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from crispseg.cli.objects import add_object_keys, check_object_keys
from crispseg.cli.parsing import MODEL, Parser, add_backend_key, add_image_keys
from crispseg.cli.protocol import add_protocol_keys, chosen_protocol
from crispseg.config.plugins import load_plugins
from crispseg.errors import CrispsegError
from crispseg.inference.prediction import COCO, PALETTE, SERVERS, predict_files

OPTIONS = (
    *("device", "backend", "value_range", "bf16", "compile", "format", "tiles", "polygons", "objects"),
    *("objects_border", "resume", "shard"),
)
"""Keys that `predict_files` takes as they are."""


def run(argv: Sequence[str]) -> None:
    """Run the command. Images that cannot be read are named, left out, and make the exit status 2."""
    parsed = _parser().parse(list(argv))
    check_object_keys(parsed)
    protocol = chosen_protocol(parsed)
    load_plugins(parsed.plugins)
    options = {name: parsed[name] for name in OPTIONS}
    console = Console(stderr=True)
    found = predict_files(parsed.run, parsed.images, parsed.out, protocol=protocol, console=console, **options)
    of = f"{found.total} images" + (f" of shard {parsed.shard}" if parsed.shard else "")
    skipped = f", {found.skipped} of them before" if found.skipped else ""
    print(f"{found.done} of {of} segmented into {found.out}{skipped}")
    if found.objects is not None:
        print(f"{found.objects} objects of class {parsed.objects} in {found.out / COCO}")
    if failed := found.failed:
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
        "--resume", action="store_true", help="skip images whose results are in --out; continue an interrupted map"
    )
    parser.add_argument(
        "--shard",
        type=str | None,
        default=None,
        metavar="I/N",
        help="one of N parts of the images, 1/3, 2/3 or 3/3, for as many processes with one --out; implies --resume",
    )
    parser.add_argument("--bf16", type=bool, default=False, help="compute in bfloat16: faster, a little less exact")
    parser.add_argument("--compile", type=bool, default=False, help="compile the network at the first image")
    parser.add_argument(
        "--format",
        default=PALETTE,
        choices=[PALETTE, *SERVERS],
        help=f"{PALETTE}, or files for the server of {', '.join(SERVERS)}",
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
