"""Each bad input gets one clear line and exit status 2, and nothing is written or lost."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import FLAGS

from crispseg.cli.main import main
from crispseg.imaging import write_image
from crispseg.training import Run

TINY = [flag for flag in FLAGS if not flag.startswith("--data.")]
SCENES = [flag for flag in FLAGS if flag.startswith("--data.")]
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
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 2
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith("crispseg: error: ") and "Traceback" not in captured.out
        assert files(tmp_path) == before
        return line

    return of


@pytest.fixture
def finished(tiny_run: Run) -> Path:
    return tiny_run.folder


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


def folder_flags(data: Path) -> list[str]:
    return [
        "--data=folder",
        f"--data.images={data / 'images'}",
        f"--data.masks={data / 'masks'}",
        "--data.num_classes=3",
    ]


def train_on(data: Path) -> list[str]:
    return ["train", *TINY, *folder_flags(data), f"--out={data.parent / 'run'}"]


# Images and masks ---------------------------------------------------------------------------------------------------


def encoded(suffix: str) -> bytes:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, {".png": "PNG", ".jpg": "JPEG"}[suffix])
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb() -> bytes:
    """A sound PNG of a hundred bytes that claims 60000×60000 pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


BROKEN = {
    "empty.png": (b"", "0 bytes", "restore or remove"),
    "empty.jpg": (b"", "0 bytes", "restore or remove"),
    "cut.png": (encoded(".png")[:2000], "is broken", "restore or remove"),
    "cut.jpg": (encoded(".jpg")[:2000], "is broken", "restore or remove"),
    "text.png": (b"this is no image", "not an image", "convert it"),
    "bomb.png": (bomb(), "more than 134,217,728 pixels", "cut it"),
}


@pytest.mark.parametrize(("kind", "name"), [*(("images", name) for name in BROKEN), ("masks", "cut.png")])
def test_a_broken_training_file(kind: str, name: str, data: Path, error: Error) -> None:
    content, reason, remedy = BROKEN[name]
    path = data / kind / f"5{Path(name).suffix}"
    (data / kind / "5.png").unlink()
    path.write_bytes(content)
    line = error(*train_on(data))
    for phrase in (str(path), reason, remedy):
        assert phrase in line


@pytest.mark.parametrize("name", ["empty.png", "cut.jpg", "bomb.png"])
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


def change_mask(data: Path) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[5, 7] = 77
    write_image(data / "masks/3.png", mask)


def change_all_masks(data: Path) -> None:
    for index in range(6):
        write_image(data / f"masks/{index}.png", np.full(SIZE, 200, np.uint8))


@pytest.mark.parametrize(
    ("change", "phrases"),
    [
        (change_mask, ["{data}/masks/3.png", "value 77", "0 to 2", "correct"]),
        (change_all_masks, ["value 200", "5 of 5 pairs in 'train'"]),
        (
            lambda data: write_image(data / "masks/2.png", np.zeros((64, 90), np.uint8)),
            ["{data}/masks/2.png", "64x90", "{data}/images/2.png", "64x96", "resize"],
        ),
        (lambda data: (data / "masks/4.png").unlink(), ["images have no mask", "(4)", "same names"]),
        (lambda data: (data / "images/4.png").unlink(), ["masks have no image", "(4)", "same names"]),
        (lambda data: shutil.rmtree(data / "masks"), ["{data}/masks is missing; give a folder"]),
        (lambda data: shutil.rmtree(data / "images"), ["{data}/images is missing; give a folder"]),
    ],
)
def test_pairs_that_do_not_fit(change: Callable[[Path], None], phrases: list[str], data: Path, error: Error) -> None:
    change(data)
    line = error(*train_on(data))
    for phrase in phrases:
        assert phrase.format(data=data) in line


def test_evaluation_checks_its_data_too(data: Path, finished: Path, error: Error) -> None:
    for path in (data / "masks").iterdir():
        write_image(path, np.full(SIZE, 77, np.uint8))
    line = error("evaluate", finished, *folder_flags(data)[:-1], "--data.num_classes=12", "--workers=0")
    assert str(data / "masks") in line and "value 77" in line


def test_a_worker_that_fails_in_the_middle(data: Path, capsys: Capture) -> None:
    # A sound beginning and end pass the check before training, which does not decode every pixel.
    path = data / "images/0.png"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    for name in range(6):
        (data / f"images/{name}.png").write_bytes(content)
    assert main([*train_on(data), "--workers=1"]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"crispseg: error: {data / 'images'}") and "is broken" in last and "restore" in last


# Names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "phrases"),
    [
        (["--model.backbone=resnet18x"], ["unknown backbone 'resnet18x'", "did you mean 'resnet18"]),
        (["--model.backbone=vit_tiny_patch16_224"], ["'vit_tiny_patch16_224'", "resnet18"]),
        (["--model.fuse=famm"], ["unknown fuse part 'famm'", "did you mean 'fam'"]),
        (["--model.context=ppmm"], ["unknown context part 'ppmm'", "did you mean 'ppm'"]),
        (["--model.merge=sum"], ["unknown merge part 'sum'", "concat"]),
        (["--data.height=10"], ["data.height is 10", "at least 64"]),
        (["--data.train=0"], ["data.train is 0", "at least 1"]),
        (["--data=camvid", "--data.root=none"], ["none is not a CamVid folder", "train.txt"]),
        (["--plugins=[missing.py]"], ["missing.py", ".py file"]),
        (["--loggers=[tensorbord]"], ["loggers", "tensorbord"]),
    ],
)
def test_an_unknown_name(flags: list[str], phrases: list[str], tmp_path: Path, error: Error) -> None:
    argv = TINY if flags[0].startswith("--data=") else FLAGS
    line = error("train", *argv, *flags, f"--out={tmp_path / 'run'}")
    for phrase in phrases:
        assert phrase in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_a_missing_device(tmp_path: Path, capsys: Capture) -> None:
    assert main(["train", *FLAGS, "--accelerator=cuda", f"--out={tmp_path / 'run'}"]) == 2
    *_, last = capsys.readouterr().err.splitlines()  # what the data hold is said first
    assert last.startswith("crispseg: error: accelerator is cuda") and "--accelerator cpu" in last
    assert files(tmp_path) == {}


def test_a_missing_or_binary_configuration_file(tmp_path: Path, error: Error) -> None:
    assert f"{tmp_path / 'missing.yaml'} (No such file" in error("train", tmp_path / "missing.yaml")
    (tmp_path / "config.yaml").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    line = error("train", tmp_path / "config.yaml", f"--out={tmp_path / 'run'}")
    assert f"{tmp_path / 'config.yaml'} is no YAML file" in line


# Folders ------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["file", "below a file", "no permission"])
def unwritable(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    place = tmp_path / "place"
    if request.param == "no permission":
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere")
        place.mkdir(mode=0o500)
        return place
    place.write_text("of the user")
    return place / "below" if request.param == "below a file" else place


def test_unwritable_folders(unwritable: Path, finished: Path, data: Path, error: Error) -> None:
    for argv in (
        ("train", *FLAGS, "--out", unwritable),
        ("predict", finished, data / "images", "--out", unwritable),
        ("evaluate", finished, "--workers=0", "--json", unwritable / "scores.json"),
    ):
        line = error(*argv)
        assert str(unwritable) in line and "choose another folder" in line


# Weights ------------------------------------------------------------------------------------------------------------


class Code:
    """What a hostile pickle does when it is read."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, ("pwned",)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "text": lambda content: b"these are no weights",
    "code": lambda content: pickle.dumps({"state_dict": Code()}, protocol=2),
}


@pytest.fixture(params=DAMAGE)
def damage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    monkeypatch.chdir(tmp_path)

    def apply(path: Path) -> None:
        path.write_bytes(DAMAGE[request.param](path.read_bytes()))

    return apply


def test_a_damaged_model(damage: Callable[[Path], None], run: Path, data: Path, tmp_path: Path, error: Error) -> None:
    weights = run / "model/model.safetensors"
    damage(weights)
    for argv in (
        ("predict", run, data / "images", "--out", tmp_path / "out"),
        ("evaluate", run, "--workers=0"),
        ("train", *FLAGS, f"--init_from={run}", f"--out={tmp_path / 'run'}"),
    ):
        line = error(*argv)
        assert str(weights) in line and "damaged" in line
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_damaged_checkpoint(
    name: str, damage: Callable[[Path], None], run: Path, tmp_path: Path, capsys: Capture
) -> None:
    checkpoint = run / "checkpoints" / name
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
    (run / "config.yaml").write_text(re.sub(r"width: \d+", "width: 12", config))
    line = error("train", "--resume", run)
    assert str(run / "checkpoints/last.ckpt") in line and "of another model" in line


@pytest.mark.parametrize("change", ["--optimizer=adamw", "--model.width=12"])
def test_resuming_with_other_settings(change: str, run: Path, error: Error) -> None:
    before = (run / "config.yaml").read_bytes()
    line = error("train", "--resume", run, change)
    key = change.removeprefix("--").partition("=")[0].partition(".")[0]
    assert f"cannot change {key}" in line and "--init_from" in line
    assert (run / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_damaged_backbone_weights(suffix: str, damage: Callable[[Path], None], tmp_path: Path, error: Error) -> None:
    path = tmp_path / f"backbone.{suffix}"
    if suffix == "pth":
        torch.save({"conv.weight": torch.zeros(100)}, path)
    else:
        path.write_bytes(bytes(100))
    damage(path)
    line = error("train", *FLAGS, f"--model.pretrained={path}", f"--out={tmp_path / 'run'}")
    assert str(path) in line
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("flag", ["--model.pretrained", "--init_from"])
def test_missing_weights(flag: str, tmp_path: Path, error: Error) -> None:
    path = tmp_path / "missing.safetensors"
    line = error("train", *FLAGS, f"{flag}={path}", f"--out={tmp_path / 'run'}")
    assert str(path) in line and "does not exist" in line


def test_weights_that_do_not_fit_their_config(run: Path, data: Path, tmp_path: Path, error: Error) -> None:
    config = run / "model/config.json"
    config.write_text(config.read_text().replace('"width": 16', '"width": 8'))
    line = error("predict", run, data / "images", "--out", tmp_path / "out")
    assert str(run / "model/model.safetensors") in line and "does not fit its config.json" in line
