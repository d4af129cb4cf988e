"""`crispseg inspect`: what it writes, and mistakes that it names before long work."""

from pathlib import Path

import numpy as np
import pytest
from commands import Capture, error_of, output_of
from PIL import Image
from PIL.ExifTags import Base

from crispseg.io.images import write_image, write_labels
from tests.inspection.models import lively, scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, an image and its mask."""
    root = tmp_path_factory.mktemp("inspect")
    lively("sfnet").save_pretrained(root / "sfnet")
    image, labels = scene()
    write_image(root / "street.png", image)
    palette = [(index, index, index) for index in range(12)]
    write_labels(root / "mask.png", labels, palette)
    write_labels(root / "small.png", labels[:40], palette)
    high = labels.copy()
    high[0, 0] = 40
    write_image(root / "high.png", high)
    write_image(root / "colours.png", image)
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    Image.fromarray(np.rot90(image)).save(root / "turned.png", exif=exif)
    (root / "broken.png").write_bytes((root / "street.png").read_bytes()[:500])
    return root


def arguments(folder: Path, out: Path, *flags: object, run: str = "sfnet", image: str = "street.png") -> list[object]:
    return ["inspect", folder / run, folder / image, "--out", out, "--device", "cpu", *flags]


def test_it_writes_a_page(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "new" / "page.html"
    output_of(capsys, *arguments(folder, page, "--truth", folder / "mask.png"))
    assert "street" in page.read_text(encoding="utf-8")
    output_of(capsys, *arguments(folder, page, "--truth", folder / "high.png", "--ignore", "[40]"))
    output_of(capsys, *arguments(folder, page, "--truth", folder / "mask.png", image="turned.png"))


@pytest.mark.parametrize(
    ("flags", "given", "phrases"),
    [
        ([], {"image": "broken.png"}, ("broken.png is broken",)),
        ([], {"image": "none.png"}, ("none.png does not exist",)),
        ([], {"run": "none"}, ("none is not a model folder",)),
        (["--truth", "none.png"], {}, ("none.png does not exist",)),
        (["--truth", "small.png"], {}, ("40×96", "64×96", "mask of this image")),
        (["--truth", "high.png"], {}, ("high.png", "40", "0 to 11")),
        (["--truth", "colours.png"], {}, ("colours.png", "meaning of the mask values")),
        (["--truth", "mask.png", "--images", "none.png"], {}, ("data.images", "not a known key")),
        (["--out", "page.png"], {}, ("page.png", ".html")),
        (["--out", "street.png/page.html"], {}, ("street.png", "folder")),
        (["--device", "gpu7"], {}, ("gpu7",)),
        (["--trut", "mask.png"], {}, ("--trut", "did you mean 'truth'")),
    ],
)
def test_mistakes(
    flags: list[str], given: dict[str, str], phrases: tuple[str, ...], folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    flags = [str(folder / flag) if index % 2 and "." in flag else flag for index, flag in enumerate(flags)]
    error = error_of(capsys, *arguments(folder, tmp_path / "page.html", *flags, **given))
    for phrase in phrases:
        assert phrase in error
    assert not (tmp_path / "page.html").exists()
