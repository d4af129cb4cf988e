"""A part of a newcomer's own: one file and one registration line, as docs/extending.md tells it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import unknown_again
from drawn import as_flags, drawn
from PIL import Image

from crispseg.cli.main import main
from crispseg.config.registry import load_plugins
from crispseg.data import DATA_SOURCES
from crispseg.io.images import write_image

pytestmark = pytest.mark.usefixtures("without_pictures")

DOCS = Path(__file__).resolve().parents[2] / "docs/extending.md"

TINY = [
    *("--preset=paper", "--model.backbone=test_efficientnet", "--model.width=16", "--augment.crop=[64,96]"),
    *as_flags(drawn(train=8, val=4, test=4, height=64, width=96)),
    *("--batch_size=4", "--workers=0", "--loggers=[]", "--epochs=1"),
]


def write_shown(path: Path) -> None:
    """Write the file of this name that the documentation shows."""
    block = re.search(rf"`{path.name}`:\n\n```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert block
    path.write_text(block[1])


def test_a_fuse_part_trains_and_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shown(tmp_path / "my_fuse.py")
    choice = ["--model", "fpn", "--model.fuse", "gated"]
    monkeypatch.chdir(tmp_path)
    with unknown_again():
        assert main(["train", "--plugins", "my_fuse.py", *choice, *TINY, "--out", "run"]) == 0, capsys.readouterr().err
    write_image(tmp_path / "photo.png", np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8))
    with unknown_again():
        argv = ["predict", "run", "photo.png", "--out", "predictions", "--plugins", "my_fuse.py"]
        assert main(argv) == 0, capsys.readouterr().err
    with Image.open(tmp_path / "predictions/photo.png") as written:
        assert written.mode == "P" and written.size == (70, 40)

    capsys.readouterr()
    for argv in (["predict", "run", "photo.png"], ["train", *choice, *TINY]):  # now nobody has loaded the file
        assert main([*argv, "--out", "else"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("crispseg: error: ") and "unknown fuse part 'gated'; known: add, " in line
    assert not any(path.is_file() for path in (tmp_path / "else").rglob("*"))


@pytest.mark.parametrize(
    ("content", "phrases"),
    [
        ("1 / 0\n", ["fails", "ZeroDivisionError"]),
        ("import sys\nsys.exit(0)\n", ["fails", "SystemExit"]),
        ("import crispseg\ncrispseg.fuses.register('fam')(object)\n", ["fuse part 'fam' is already registered"]),
        (
            "from crispseg.data import DATA_SOURCES, CamVid\nDATA_SOURCES['nuclei'] = CamVid\n",
            ["'nuclei' is already registered"],
        ),
    ],
)
def test_a_file_that_fails_is_named(content: str, phrases: list[str], tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "part.py"
    path.write_text(content)
    for _ in range(2):  # a failure is not remembered as a success
        with refuses(*phrases):
            load_plugins([path])


@pytest.mark.parametrize("name", ["missing.py", "part.txt"])
def test_what_is_no_python_file_is_named(name: str, tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "part.txt").write_text("x = 1\n")
    with refuses(str(tmp_path / name), ".py file"):
        load_plugins([tmp_path / name])


def test_a_data_source_trains_with_a_val_image_smaller_than_models_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shown(tmp_path / "potsdam.py")
    colors = np.array([(255, 255, 255), (0, 0, 255), (255, 255, 0)], np.uint8)
    for split, name, side in (("train", "a", 64), ("train", "b", 64), ("val", "c", 20)):
        write_image(tmp_path / f"masks/{name}.tif", colors[np.arange(side * side).reshape(side, side) // 9 % 3])
        write_image(
            tmp_path / f"images/{name}.tif", np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        )
        with (tmp_path / f"{split}.txt").open("a") as listing:
            listing.write(f"{name}\n")
    data = ["--data=potsdam", f"--data.root={tmp_path}"]
    plugins, run = f"--plugins={tmp_path / 'potsdam.py'}", str(tmp_path / "run")
    flags = [*TINY[:2], "--model=fpn", "--iterations=1", "--batch_size=2", "--workers=0", "--loggers=[]"]
    try:
        assert main(["doctor", *data, plugins]) == 1  # a tiny image
        assert main(["train", *data, *flags, "--augment.crop=64", f"--out={run}", plugins]) == 0, (
            capsys.readouterr().err
        )
        assert main(["evaluate", run, "--workers=0", plugins]) == 0
    finally:
        del DATA_SOURCES["potsdam"]
    assert main(["evaluate", run]) == 2
    assert "its file in plugins" in capsys.readouterr().err
