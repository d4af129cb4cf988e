"""`crispseg inspect RUN IMAGE [--truth MASK] --out PAGE.html`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crispseg.cli.parsing import RUN, Parser
from crispseg.config.plugins import load_plugins
from crispseg.inspection import inspect_image
from crispseg.inspection.page import inspection_page
from crispseg.models import SegmentationModel
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
        "--device", type=str | None, default=None, help="cpu or cuda; by default CUDA where there is one"
    )
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")
    parsed = parser.parse(list(argv))

    check_page(parsed.out)
    load_plugins(parsed.plugins)
    model = SegmentationModel.from_pretrained(parsed.run)
    seen = inspect_image(model, parsed.image, parsed.truth, ignore=parsed.ignore, device=parsed.device)
    write_page(parsed.out, inspection_page(seen))
    print(f"{parsed.out} written; open it in a browser")
