"""`crispseg inspect RUN IMAGE [--truth MASK] --out PAGE.html [--figures DIR] [--beside RUN]`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crispseg.cli.parsing import RUN, Parser
from crispseg.config.plugins import load_plugins
from crispseg.data.mask_lookup import IdLookup
from crispseg.errors import CrispsegError
from crispseg.inference.segmenter import usable_device
from crispseg.inspection.figures import save_figures
from crispseg.inspection.page import inspection_page
from crispseg.inspection.quantities import check_truth, inspect_image
from crispseg.io.files import writable_folder
from crispseg.io.images import image_channels, read_image, read_mask
from crispseg.models import SegmentationModel
from crispseg.models.saving import read_info
from crispseg.visualization.pages import check_page, write_page


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg inspect",
        description="Write a page that shows how a model comes to its labels: probabilities and entropy, errors, and "
        "the flow, sampled points, descriptors or boundaries behind each pixel. It opens without network.",
    )
    parser.add_argument("run", help=RUN)
    parser.add_argument("image", type=Path, help="an image file")
    parser.add_argument("--out", type=Path, required=True, metavar="PAGE.html", help="the page to write")
    parser.add_argument(
        "--truth", type=Path | None, default=None, metavar="MASK", help="its mask of class ids, 255 for ignored pixels"
    )
    parser.add_argument("--ignore", type=list[int], default=[], help="further values of the mask that are ignored")
    parser.add_argument(
        "--figures", type=Path | None, default=None, metavar="DIR", help="also write the papers' figures there, as PNG"
    )
    parser.add_argument(
        "--beside", type=str | None, default=None, metavar="RUN", help="another model, for the figures that compare two"
    )
    parser.add_argument(
        "--device", type=str | None, default=None, help="cpu or cuda; by default CUDA where there is one"
    )
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")
    parsed = parser.parse(list(argv))

    check_page(parsed.out)
    if parsed.beside is not None and parsed.figures is None:
        raise CrispsegError(f"--beside {parsed.beside} is for the figures that compare; say where by --figures DIR")
    if parsed.figures is not None:
        writable_folder(parsed.figures)
    load_plugins(parsed.plugins)
    info = read_info(parsed.run)
    if parsed.beside is not None and read_info(parsed.beside).label_set() != info.label_set():
        raise CrispsegError(
            f"{parsed.beside} and {parsed.run} have different classes or colours; compare models of the same data"
        )
    size = read_image(parsed.image, image_channels(info.in_chans), value_range=info.value_range).shape[:2]
    truth = None
    if parsed.truth is not None:
        truth = read_truth(parsed.truth, info.num_classes, parsed.ignore)
        check_truth(truth, size, info.num_classes, str(parsed.truth))
    device = usable_device(parsed.device)
    seen = [
        inspect_image(SegmentationModel.from_pretrained(run), parsed.image, truth, device=device)
        for run in (parsed.run, parsed.beside)
        if run is not None
    ]
    if parsed.figures is not None:
        paths = save_figures(parsed.figures, *seen)
        print(f"{len(paths)} figures written to {parsed.figures}")
    write_page(parsed.out, inspection_page(seen[0]))
    print(f"{parsed.out} written; open it in a browser")


def read_truth(path: Path, classes: int, ignore: Sequence[int] = ()) -> NDArray[np.uint8]:
    """A mask of class ids, `(H, W)`, with 255 for ignored pixels.

    Raises:
        CrispsegError: a file that is no mask, colours, or a value that is neither a class nor ignored; a value to
            ignore that no mask can hold.
    """
    if wrong := [value for value in ignore if not 0 <= value < 2**16]:
        raise CrispsegError(f"--ignore holds {wrong[0]}; mask values are 0 to 65535")
    try:
        remedy = "save it with class ids as values, as 'crispseg predict' does"
        return IdLookup(classes, tuple(ignore), remedy)(read_mask(path))
    except ValueError as error:
        raise CrispsegError(f"{path}: {error}") from None
