"""Each bad input gets one clear line and exit status 2, and nothing is written or lost."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import error_of
from drawn import as_flags, drawn
from PIL import Image

from crispseg.cli.main import main
from crispseg.io.images import write_image

TINY = [
    *("--preset=paper", "--model=fpn", "--model.backbone=test_efficientnet", "--model.width=16"),
    *("--augment.crop=[64,96]", "--batch_size=2", "--workers=0", "--loggers=[]", "--epochs=1"),
]
DRAWN = as_flags(drawn(train=4, val=2, test=2, height=64, width=96))
SIZE = (64, 96)

Capture = pytest.CaptureFixture[str]
Error = Callable[..., str]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def error(tmp_path: Path, capsys: Capture) -> Error:
    """Run a command that must fail; give its one line. No file may appear, change or vanish."""

    def of(*argv: object) -> str:
        before = files(tmp_path)
        line = error_of(capsys, *argv)
        assert files(tmp_path) == before
        return line

    return of


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["train", *TINY, *DRAWN, f"--out={folder}"]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "finished"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """`images` and `masks` of three classes."""
    random = np.random.default_rng(0)
    for index in range(6):
        write_image(tmp_path / f"data/images/{index}.png", random.integers(0, 256, (*SIZE, 3), np.uint8))
        write_image(tmp_path / f"data/masks/{index}.png", random.integers(0, 3, SIZE, np.uint8))
    return tmp_path / "data"


def folder_flags(data: Path, classes: int) -> list[str]:
    folders = (f"--data.images={data / 'images'}", f"--data.masks={data / 'masks'}")
    return ["--data=folder", *folders, f"--data.num_classes={classes}"]


def train_on(data: Path) -> list[str]:
    return ["train", *TINY, *folder_flags(data, 3), f"--out={data.parent / 'run'}"]


# Images and masks ---------------------------------------------------------------------------------------------------


def encoded(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)).save(buffer, format)
    return buffer.getvalue()


BROKEN = {
    "empty.png": (b"", "0 bytes", "restore or remove"),
    "cut.jpg": (encoded("JPEG")[:2000], "is broken", "restore or remove"),
    "text.png": (b"this is no image", "not an image", "convert it"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_to_predict(name: str, finished: Path, tmp_path: Path, capsys: Capture) -> None:
    content, reason, remedy = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    capsys.readouterr()
    assert main(["predict", str(finished), str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    notice, line = capsys.readouterr().err.splitlines()  # what is left out, and what came of it
    for phrase in (str(tmp_path / name), reason, remedy):
        assert phrase in notice
    assert line.startswith("crispseg: error: 1 of 1 images") and str(tmp_path / name) in line
    assert list(files(tmp_path)) == [name]


def test_bad_values_in_masks(data: Path, error: Error) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[5, 7] = 77
    write_image(data / "masks/3.png", mask)
    line = error(*train_on(data))
    assert all(phrase in line for phrase in (str(data / "masks"), "(3.png)", "value 77", "0 to 2", "correct"))
    for index in range(6):
        write_image(data / f"masks/{index}.png", np.full(SIZE, 200, np.uint8))
    line = error(*train_on(data))
    assert "6 masks contain the value 200" in line


def test_evaluation_checks_its_data_too(data: Path, finished: Path, error: Error) -> None:
    for path in (data / "masks").iterdir():
        write_image(path, np.full(SIZE, 77, np.uint8))
    line = error("evaluate", finished, *folder_flags(data, 12), "--workers=0")
    assert str(data / "masks") in line and "value 77" in line


# Names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "phrases"),
    [
        (["--model.backbone=resnet18x"], ["unknown backbone 'resnet18x'", "did you mean 'resnet18"]),
        (["--model.backbone=mixer_s16_224"], ["mixer_s16_224", "fixed image sizes"]),
        (["--model.fuse=famm"], ["unknown fuse part 'famm'", "did you mean 'fam'"]),
        (["--model.context=ppmm"], ["unknown context part 'ppmm'", "did you mean 'ppm'"]),
        (["--model.merge=mean"], ["unknown merge part 'mean'", "concat"]),
        (["--data.val_ratio=2"], ["data.val_ratio is 2", "less than or equal to 1"]),
        (["--data.seed=-1"], ["--data.seed is -1", "greater than or equal to 0"]),
        (["--model.refine_steps=3"], ["refine_steps is 3", "no refinement", "refine boundary"]),
        (["--plugins=[missing.py]"], ["missing.py", ".py file"]),
        (["--model.pretrained=missing.safetensors"], ["missing.safetensors"]),
        (["--init_from=missing"], ["missing is not a model folder"]),
        (["--loggers=[tensorbord]"], ["loggers", "tensorbord"]),
    ],
)
def test_an_unknown_name(flags: list[str], phrases: list[str], tmp_path: Path, error: Error) -> None:
    line = error("train", *TINY, *DRAWN, *flags, f"--out={tmp_path / 'run'}")
    for phrase in phrases:
        assert phrase in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_a_missing_device(tmp_path: Path, capsys: Capture) -> None:
    assert main(["train", *TINY, *DRAWN, "--device=cuda", f"--out={tmp_path / 'run'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("crispseg: error: device 'cuda' cannot be used") and "cpu" in line
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (None, "is missing; give a folder of data, or a YAML file of settings"),
        (b"\tepochs: 1\n", "is not a YAML file"),
        (b"epochs: [1\n", "is not a YAML file"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "is not a YAML file"),
        (b"- epochs\n", "has no settings"),
        (b"", "has no settings"),
        *((text, "") for text in (b"model: [sfnet]", b"data: 5", b"1: 2", b"plugins: 5", b"augment: a")),
    ],
)
def test_a_bad_configuration_file(content: bytes | None, phrase: str, tmp_path: Path, error: Error) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    line = error("train", path, f"--out={tmp_path / 'run'}")
    assert str(path) in line and phrase in line


# Folders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_output_into_an_unwritable_folder(
    command: str, tmp_path: Path, finished: Path, data: Path, error: Error
) -> None:
    (tmp_path / "file").write_text("of the user")
    unwritable = tmp_path / "file/below"
    argv: dict[str, list[object]] = {
        "train": [*TINY, *DRAWN, "--out", unwritable],
        "predict": [finished, data / "images", "--out", unwritable],
        "evaluate": [finished, "--workers=0", "--json", unwritable / "scores.json"],
    }
    line = error(command, *argv[command])
    assert str(unwritable) in line and "choose another folder" in line


# Weights ------------------------------------------------------------------------------------------------------------


class Code:
    """What a hostile pickle does when it is read."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, ("pwned",)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "code": lambda content: pickle.dumps({"state_dict": Code()}, protocol=2),
}


@pytest.fixture(params=DAMAGE)
def damage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    monkeypatch.chdir(tmp_path)

    def apply(path: Path) -> None:
        path.write_bytes(DAMAGE[request.param](path.read_bytes()))

    return apply


@pytest.mark.parametrize("command", ["predict", "evaluate", "train"])
def test_a_damaged_model(
    command: str, damage: Callable[[Path], None], run: Path, data: Path, tmp_path: Path, error: Error
) -> None:
    weights = run / "model/model.safetensors"
    damage(weights)
    argv: dict[str, list[object]] = {
        "predict": [run, data / "images", "--out", tmp_path / "out"],
        "evaluate": [run, "--workers=0"],
        "train": [*TINY, *DRAWN, f"--init_from={run}", f"--out={tmp_path / 'run'}"],
    }
    line = error(command, *argv[command])
    assert str(weights) in line and "damaged" in line
    assert not (tmp_path / "pwned").exists()


def test_a_damaged_checkpoint(damage: Callable[[Path], None], run: Path, tmp_path: Path, capsys: Capture) -> None:
    checkpoint = run / "checkpoints/last.ckpt"
    damage(checkpoint)
    before = files(run)
    assert main(["train", "--resume", str(run)]) == 2
    *notes, last = capsys.readouterr().err.splitlines()
    assert last.startswith("crispseg: error: ") and str(checkpoint) in last and "damaged" in last
    assert not any("Traceback" in note for note in notes)
    assert files(run) == before
    assert not (tmp_path / "pwned").exists()


def test_a_checkpoint_of_another_model(run: Path, error: Error) -> None:
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"width: 16\b", "width: 12", config))
    line = error("train", "--resume", run)
    assert str(run / "checkpoints") in line and "belongs to another model" in line


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_damaged_backbone_weights(suffix: str, damage: Callable[[Path], None], tmp_path: Path, error: Error) -> None:
    path = tmp_path / f"backbone.{suffix}"
    if suffix == "pth":
        torch.save({"conv.weight": torch.zeros(100)}, path)
    else:
        path.write_bytes(bytes(100))
    damage(path)
    line = error("train", *TINY, *DRAWN, f"--model.pretrained={path}", f"--out={tmp_path / 'run'}")
    assert str(path) in line
    assert not (tmp_path / "pwned").exists()


def test_weights_that_do_not_fit_their_config(run: Path, data: Path, tmp_path: Path, error: Error) -> None:
    config = run / "model/config.json"
    config.write_text(config.read_text().replace('"width": 16', '"width": 8'))
    line = error("predict", run, data / "images", "--out", tmp_path / "out")
    assert str(run / "model/model.safetensors") in line and "config.json" in line
