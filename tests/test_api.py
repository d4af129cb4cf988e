"""`crispseg.train`: settings as keyword arguments, lists in place of folders, and what it returns."""

import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from commands import Capture
from dataset_trees import save
from PIL import Image
from training_runs import files

import crispseg
from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.data.named import write_pairs
from crispseg.io.images import read_mask
from crispseg.training import Run
from crispseg.training.settings import training_config

CLASSES = ["background", "<b>road</b>"]
TINY: dict[str, Any] = {"preset": "paper", "class_weights": None, "classes": CLASSES, "crop": (64, 64), "epochs": 2}
TINY |= {"model": "fpn", "backbone": "test_efficientnet", "pretrained": False, "width": 16}
TINY |= {"batch_size": 4, "workers": 0, "loggers": []}
"""Settings of a run of a second."""


class Colour(Enum):
    """Values that are no text."""

    RED = "red"


def pairs(count: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Grey images, bright where their masks of whole numbers are 1."""
    rng = np.random.default_rng(0)
    masks = [np.kron(rng.integers(0, 2, (4, 4)), np.ones((16, 16), int)) for _ in range(count)]
    return [(180 * mask + rng.integers(0, 60, mask.shape)).astype(np.uint8) for mask in masks], masks


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as `pairs`, as files."""
    folder = tmp_path_factory.mktemp("own")
    for index, (image, mask) in enumerate(zip(*pairs(), strict=True)):
        save(folder / f"photos/{index}.png", image)
        save(folder / f"masks/{index}.png", mask.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on lists."""
    return crispseg.train(*pairs(), out=tmp_path_factory.mktemp("lists") / "run", **TINY)


@pytest.mark.parametrize("key", ["data.root", "out", "data.exclude"])
def test_names_that_a_model_cannot_record_are_refused(key: str, refuses: Any) -> None:
    name = "photos\udcff"
    with refuses(key, "not UTF-8"):
        training_config({"data.root": "photos", key: [name] if key == "data.exclude" else name})


@pytest.mark.usefixtures("without_pictures")
def test_a_run_without_out_is_in_runs(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = crispseg.train(folders / "photos", folders / "masks", **TINY | {"epochs": 1})
    assert run.folder.resolve() == tmp_path / "runs/train"


def test_settings_are_those_of_the_command_line(trained: Run, folders: Path, tmp_path: Path, capsys: Capture) -> None:
    capsys.readouterr()
    images, masks = (str(folders / name) for name in ("photos", "masks"))
    run = crispseg.train(images, masks, out=tmp_path / "run", **TINY | {"classes": np.array(CLASSES)})
    out, err = capsys.readouterr()
    assert re.search(r"^epoch 2/2  step 2/2  .*\nbest mIoU on val: ", out, re.MULTILINE) and "\x1b" not in out
    assert not err
    for key in ("miou", "train_loss"):  # the same with images in lists
        assert [row[key] for row in run.history] == [row[key] for row in trained.history]
    flags = [f"--data.images={images}", f"--data.masks={masks}", "--data.classes=[background,<b>road</b>]"]
    flags += ["--model=fpn", "--model.backbone=test_efficientnet", "--model.width=16", "--augment.crop=[64,64]"]
    flags += ["--preset=paper", "--class_weights=null", "--model.pretrained=false"]
    flags += ["--epochs=2", "--batch_size=4", "--workers=0", "--loggers=[]", f"--out={tmp_path / 'run'}"]
    assert main(["train", "--data=folder", *flags, "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load((run.folder / "config.yaml").read_text())


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"epoch": 3}, "epoch is not a known key; did you mean 'epochs'?"),
        ({"lr": object()}, "lr has a value of type object; "),
        ({"out": 5}, "out is 5; "),
        ({"classes": {"background", "road"}}, "classes is a set, "),
        ({"data": {"classes": {"background", "road"}}}, "data.classes is a set, "),
        ({"classes": Colour}, "classes has a value of type EnumType; "),
        ({"model": {"name": "fpn", "width": 8}}, "width is given with and without model; leave one out"),
        ({"model": {"name": "fpn"}, "model.name": "sfnet"}, "model.name is given twice"),
        ({"data": {"images": "photos"}, "data.images": "x"}, "data.images is given twice"),
        ({"qqqqqqqqq": 1}, "qqqqqqqqq is not a known key; correct or remove it"),
        ({"resume": True}, "resume is OUT, which has no config.yaml; "),
        ({"folds": 5}, "folds is not a known key; "),
        ({"masks": [1]}, "only one of images and masks is a folder; "),
        ({"model": "fpnn"}, "unknown model 'fpnn'; did you mean 'fpn'?"),
        ({"masks": None}, "photos is missing; "),
        ({"images": None, "masks": None}, "data is missing; give a folder"),
        ({"images": None}, "give either data.root, or data.images and data.masks"),
        ({"crop": "large"}, "augment.crop is large; give a whole number"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(settings: dict[str, Any], line: str, tmp_path: Path) -> None:
    given = {"images": "photos", "masks": "masks"}
    own = {key: value for key, value in TINY.items() if key != "classes"}
    with pytest.raises(crispseg.CrispsegError) as caught:
        crispseg.train(**{**own, **given, "out": tmp_path / "run", **settings})
    assert str(caught.value).startswith(line.replace("OUT", str(tmp_path / "run"))) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("without_pictures")
def test_a_run_on_lists_can_go_on_and_be_scored(trained: Run, tmp_path: Path, capsys: Capture) -> None:
    images, masks = pairs()
    before = files(trained.folder)
    with pytest.raises(crispseg.CrispsegError, match=re.escape(str(trained.folder))):  # the cell is run again
        crispseg.train(images, masks, out=trained.folder, **TINY)
    with pytest.raises(crispseg.CrispsegError, match="images and masks differ after 5"):
        crispseg.train(images, masks[1:], out=tmp_path / "other", **TINY)
    assert files(trained.folder) == before

    assert main(["evaluate", str(trained.folder), "--workers=0"]) == 0
    assert f"mIoU {trained.miou:.1f}" in " ".join(re.findall(r"\w+(?:\.\d+)?", capsys.readouterr().out))

    shutil.copytree(trained.folder, tmp_path / "run")  # whose config.yaml names the files of the first
    for resumed in (
        crispseg.train(out=tmp_path / "run", resume=True, epochs=3),
        crispseg.train(images, masks, out=trained.folder, resume=True, **TINY | {"epochs": 3}),
    ):
        assert [row["epoch"] for row in resumed.history] == [1, 2, 3]
    assert len(list(trained.folder.glob("pairs-*"))) == 1, "the same lists were written anew"
    with pytest.raises(crispseg.CrispsegError, match="cannot change data"):
        crispseg.train(images[::-1], masks, out=trained.folder, resume=True, **TINY | {"epochs": 3})


@pytest.mark.usefixtures("without_pictures")
def test_custom_transform_loss_and_callbacks(folders: Path, tmp_path: Path, trained: Run) -> None:
    seen: list[np.ndarray] = []

    class Counted(L.Callback):
        epochs = 0

        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.epochs += 1

    def black(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": 0 * image[:, ::-1], "mask": mask[:, ::-1]}

    def seven(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.extend(labels.numpy())
        return 7 + 0 * logits.sum()

    places, settings = (folders / "photos", folders / "masks"), TINY | {"auxiliary_weight": 0}
    counted = Counted()
    run = crispseg.train(*places, out=tmp_path / "loss", loss=seven, callbacks=[counted], **settings)
    assert [row["train_loss"] for row in run.history] == [7, 7] and counted.epochs == 2
    assert {0, 1} <= {*np.unique(seen).tolist()} <= {0, 1, 255}
    run = crispseg.train(*places, out=tmp_path / "transform", transform=black, **TINY)
    assert run.history[0]["train_loss"] != trained.history[0]["train_loss"]

    def teacher(images: torch.Tensor) -> torch.Tensor:
        asked.append(float(images.max()))
        return torch.zeros(len(images), 2, *images.shape[-2:])

    asked: list[float] = []
    save(tmp_path / "more/a.png", IMAGE.repeat(16, 0).repeat(16, 1))
    crispseg.train(*places, out=tmp_path / "taught", unlabelled=tmp_path / "more", teacher=teacher, **settings)
    assert asked and max(asked) <= 1


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (partial(crispseg.predict, resume="so", out="o"), "resume is so; give true or false"),
        (partial(crispseg.predict, console=5), "console is 5; give Console or null"),
        (partial(crispseg.predict, objects="nucleus", objects_min_size=-5), "objects_min_size is -5; "),
        (partial(crispseg.predict, shard=f"1/{10**4000}", out="o"), "shard is 1/1000"),
        (partial(crispseg.predict, tiles=True), "tiles is true; "),
        (partial(crispseg.evaluate, objects_split="no"), "objects_split is no; give true or false"),
        (partial(crispseg.evaluate, boundary=[-1]), "boundary is -1; give a number greater than 0"),
        (partial(crispseg.evaluate, boundary_empty="x"), "boundary_empty is x; give one of 1, skip"),
        (partial(crispseg.evaluate, bootstrap=-1), "bootstrap is -1; give a number greater than or equal to 0"),
        (partial(crispseg.evaluate, bootstrap=float("nan")), "bootstrap is nan; give a whole number"),
        (partial(crispseg.evaluate, workers="x"), "workers is x; give a whole number or null"),
        (partial(crispseg.train, teacher=3), "teacher is 3; give text, a path, a function or null"),
        (partial(crispseg.train, transform=3), "transform is 3; give a function or null"),
        (partial(crispseg.train, resume="so"), "resume is so; give true or false"),
    ],
)
def test_arguments_have_the_types_of_the_signature(call: Any, line: str) -> None:
    with pytest.raises(crispseg.CrispsegError) as caught:
        call("nuclei", "photos")
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda image, mask: {"image": image / 255, "mask": mask}, "image as float64"),
        (lambda image, mask: {"image": image[:32], "mask": mask}, "same height and width"),
        (lambda image, mask: {"image": image[:0], "mask": mask[:0]}, "image as uint8"),
        (lambda image, mask: {"image": image}, "mask as NoneType"),
        (lambda image, mask: (image, mask), "image as tuple"),
        (lambda image, mask: {"image": image, "mask": mask + 7}, "returns a mask with [78]"),
    ],
)
def test_wrong_custom_transform(folders: Path, tmp_path: Path, wrong: Any, message: str) -> None:
    with pytest.raises(crispseg.CrispsegError, match=message):
        crispseg.train(folders / "photos", folders / "masks", out=tmp_path / "run", transform=wrong, **TINY)


def test_what_a_run_offers(trained: Run) -> None:
    image = pairs()[0][0]
    assert np.array_equal(trained.predict(image).labels, crispseg.Segmenter(trained.folder)(image).labels)
    assert len(trained.predict([image, image])) == 2 and trained.segmenter is trained.segmenter
    evaluation = trained.evaluate()
    assert evaluation.miou == evaluation.measures["miou"] == pytest.approx(trained.miou, abs=1e-3)
    assert trained.evaluate("train").scores.truth.sum() == 5 * 64 * 64
    with pytest.raises(crispseg.CrispsegError, match="no split 'test'"):
        trained.evaluate("test")
    first, *_ = trained.history
    assert first["epoch"] == 1 and isinstance(first["epoch"], int) and {"miou", "iou/<b>road</b>"} < {*first}
    assert "Conv2d" not in repr(trained)


def test_a_finished_run_is_opened(trained: Run, refuses: Any, tmp_path: Path) -> None:
    opened = crispseg.load(trained.folder)
    assert (opened.miou, opened.iou) == (trained.miou, trained.iou) and opened.history == trained.history
    image = pairs()[0][0]
    assert np.array_equal(opened.predict(image).labels, trained.predict(image).labels)
    assert opened.evaluate("val").miou == trained.evaluate().miou
    assert crispseg.evaluate(trained, workers=0).miou == trained.evaluate().miou
    assert crispseg.load(trained).folder == trained.folder
    assert np.array_equal(crispseg.Segmenter(trained)(image).labels, trained.predict(image).labels)
    save(tmp_path / "0.png", image)
    assert crispseg.predict(trained, tmp_path / "0.png", tmp_path / "out").done == 1
    for other in (trained.folder / "model", tmp_path, "nuclei"):
        with refuses(str(other), "run"):
            crispseg.load(other)


def shown(html: str) -> None:
    """What holds for all that notebooks show."""
    assert html.count("&lt;b&gt;road&lt;/b&gt;") and "<b>road" not in html
    assert not re.search(r"https?:|@import|<script|<link|url\(", html) and len(html) < 80_000
    assert re.match(r"<div class=\"crispseg\">\n<style>\.crispseg \{", html.strip())  # no rule for the page around it


def test_a_notebook_shows_a_run(trained: Run, tmp_path: Path) -> None:
    html = trained._repr_html_()
    shown(html)
    assert f"fpn on test_efficientnet: mIoU {trained.miou:.1f} on val" in html and str(trained.folder) in html
    best = max(trained.history, key=lambda row: row["miou"])
    assert f"<td>{best['iou/background']:.1f}</td>" in html and html.count("<img") == 2


@pytest.mark.usefixtures("without_pictures")
def test_notebooks_get_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The output of a kernel calls itself a terminal, but shows the codes of one as text."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    crispseg.train(*pairs(), out=tmp_path / "run", **TINY | {"epochs": 1})
    printed = capsys.readouterr().out
    assert "mIoU" in printed and "\x1b" not in printed


def test_a_run_has_a_report(trained: Run) -> None:
    html = (trained.folder / "report.html").read_text()
    assert "&lt;b&gt;road&lt;/b&gt;" in html and "<b>road" not in html and html.count("<img") == 3
    assert not re.search(r"https?:|@import|<script|<link|url\(", html) and len(html) < 500_000
    assert f"crispseg evaluate {trained.folder}" in html and "batch_size: " in html and "forward " in html


@pytest.mark.usefixtures("without_pictures")
def test_it_runs_beside_the_main_thread(tmp_path: Path) -> None:
    """As in servers of notebooks that run cells in a thread, without signal handlers; the masks are black and white."""
    images, masks = pairs()
    runs: list[Run] = []
    settings = TINY | {"epochs": 1, "out": tmp_path / "run", "masks": [255 * mask for mask in masks]}

    def second_thread(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Train in another thread, in the first step of the first thread; the loss depends on the message."""
        with ThreadPoolExecutor() as pool:
            error = pool.submit(crispseg.train, images, **settings).exception()
        refused.append(str(error))
        return logits.float().square().mean()

    refused: list[str] = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):  # of this thread, which trains first
        crispseg.train(images, loss=second_thread, **settings | {"out": tmp_path / "first"})
    assert refused and all("another thread" in line for line in refused)
    thread = threading.Thread(target=lambda: runs.append(crispseg.train(images, **settings)))
    thread.start()
    thread.join()
    assert runs and runs[0].history and (runs[0].evaluate("train").scores.truth > 0).all()


IMAGE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
DEEP = IMAGE[..., 0].astype(np.uint16) * 257
MASK = np.arange(48).reshape(6, 8)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (MASK, MASK),
        (MASK > 9, MASK > 9),
        (MASK[..., None].astype(np.uint8), MASK),
        (torch.from_numpy(MASK), MASK),
        (MASK * 1000, MASK * 1000),
        (IMAGE, IMAGE),
        (Image.fromarray(MASK.astype(np.int32)), MASK),
        (Image.fromarray(MASK.astype(np.uint8)).convert("P"), MASK),
    ],
)
def test_masks_of_lists_keep_their_values(given: Any, wanted: np.ndarray, tmp_path: Path) -> None:
    _, masks = write_pairs([IMAGE], [given], tmp_path)
    assert np.array_equal(read_mask(masks / "00000.png"), wanted)


def test_generators_may_use_one_array_for_all_pairs(tmp_path: Path) -> None:
    image, mask = IMAGE.copy(), MASK.copy()
    numbers = [*range(3)]
    pair = (image.fill(number) or image for number in numbers), (mask.fill(number) or mask for number in numbers)
    folders = write_pairs(*pair, tmp_path)
    for number in numbers:
        assert all((read_mask(folder / f"{number:05}.png") == number).all() for folder in folders)
    arrays = [np.full_like(IMAGE, number) for number in numbers], [np.full_like(MASK, number) for number in numbers]
    assert write_pairs(*arrays, tmp_path) == folders
    for wrong in ((iter([IMAGE]), iter([MASK, MASK])), ([IMAGE], [MASK, MASK]), ([], [])):
        with pytest.raises(crispseg.CrispsegError, match=r"there are|numbers of images"):
            write_pairs(*wrong, tmp_path)


def test_files_of_lists_are_taken_over_with_their_names(tmp_path: Path) -> None:
    image, mask = save(tmp_path / "a/x.jpg", IMAGE), save(tmp_path / "b/y.png", MASK.astype(np.uint8))
    images, masks = write_pairs([image, str(image)], [mask, MASK], tmp_path / "run")
    assert files(images) == {"00000_x.jpg", "00001_x.jpg"} and files(masks) == {"00000_x.png", "00001_x.png"}
    assert (images / "00001_x.jpg").read_bytes() == image.read_bytes()
    assert len(Folder(images, masks, num_classes=48).dataset("train")) == 1
    assert write_pairs([image, image], [mask, MASK], tmp_path / "run") == (images, masks)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {images.parent.name}


@pytest.mark.parametrize(
    ("image", "mask", "line"),
    [
        (IMAGE, MASK - 1, "masks[0]: the array contains int64 values from -1 to "),
        (IMAGE, MASK / 2, "masks[0]: the array contains float64 values from "),
        (IMAGE.astype(int), MASK, "images[0]: a int64 array of shape (6, 8, 3) is not "),
        (3, MASK, "images[0]: cannot read a int; "),
        (Path("none.png"), MASK, "none.png does not exist; "),
    ],
)
def test_what_no_list_can_hold(image: Any, mask: Any, line: str, tmp_path: Path) -> None:
    with pytest.raises(crispseg.CrispsegError, match=re.escape(line)):
        write_pairs([image], [mask], tmp_path / "run")
    assert not files(tmp_path), "something was left behind"
