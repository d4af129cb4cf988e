"""crispseg is a guest in the program that imports it, and leaves the whole program's state as it was."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from contract.test_official import official
from drawn import as_flags, draw
from program_state import changed, program_state
from training_runs import DRAWN, FLAGS, quietly, tiny

import crispseg
from crispseg import CrispsegError, Project
from crispseg.cli.command import commands
from crispseg.cli.main import COMMANDS, main
from crispseg.io.images import write_image
from crispseg.training import Run
from tests.inspection.models import lively

SHORT = " ".join([*FLAGS, "--epochs=1"])
DIVERGING = "--lr=1e30 --schedule=constant --epochs=9"
DATA = " ".join(as_flags(DRAWN))

COMMAND_ROWS = {  # arguments with which it succeeds, and with which it fails
    "ablate": (f"{{flow}} {DATA} --workers=0", "{none}"),
    "annotate": ("{new} {image}", "{broken}/below"),
    "benchmark": ("fpn:test_efficientnet --size 64 64 --repeats=1 --warmup=1", "none"),
    "compare": ("{run} {run} --workers=0", "{run} {none}"),
    "convert": ("{official} --out {new}", "{image} --out {new}"),
    "data get": ("nuclei {new}", "none {new}"),
    "data import": ("{shapes} --out {new}", "{image} --out {new}"),
    "data list": ("", "none"),
    "demo": ("{run} --port=7861", "{none}"),
    "distill": (f"{{run}} --unlabelled {{more}} {SHORT} --out {{new}}", f"{{none}} {SHORT} --out {{new}}"),
    "doctor": (DATA, "{none}"),
    "evaluate": ("{run} --workers=1", "{run} --split=none"),
    "export": ("{run} --size 64 64 --out {new}.onnx", "{run} --out {new}.none"),
    "inspect": ("{run} {image} --out {new}.html", "{run} {none} --out {new}.html"),
    "label errors": ("{run} --out {new}", "{none} --out {new}"),
    "label next": ("{run} {more} --out {new}", "{run} {none} --out {new}"),
    "list": ("", "none"),
    "predict": ("{run} {image} --out {new}", "{run} {broken} --out {new}"),
    "quickstart": (f"{SHORT} --out {{new}}", f"{SHORT} --out {{run}}"),
    "recipes": ("sfnet", "none"),
    "train": (f"{SHORT} --out {{new}}", f"{SHORT} {DIVERGING} --out {{new}}"),
}


def walked(block: AbstractContextManager[Any], model: torch.nn.Module, channels: int = 3) -> None:
    with block:
        model(torch.zeros(1, channels, 64, 64))


Call = Callable[[Any], Any]
PYTHON_ROWS: dict[str, tuple[Call, Call]] = {
    "Project": (lambda at: crispseg.Project(at.new, [at.image]).suggest(), lambda at: crispseg.Project(at.image)),
    "Segmentation": (lambda at: at.result.save(at.new), lambda at: at.result.objects("none")),
    "SegmentationModel": (
        lambda at: at.model.save_pretrained(at.new),
        lambda at: at.model.save_pretrained(f"{at.image}/below"),
    ),
    "Segmenter": (lambda at: crispseg.Segmenter(at.run), lambda at: crispseg.Segmenter(at.none)),
    "Segmenter.__call__": (lambda at: at.segmenter([at.image] * 3), lambda at: at.segmenter(at.broken)),
    "alter": (
        lambda at: walked(crispseg.alter(at.model, {}), at.model),
        lambda at: walked(crispseg.alter(at.model, {"none": abs}), at.model),
    ),
    "create_model": (
        lambda _: crispseg.create_model("fpn", num_classes=2, backbone="test_efficientnet"),
        lambda _: crispseg.create_model("fpn", num_classes=2, backbone="none"),
    ),
    "evaluate": (lambda at: crispseg.evaluate(at.run, workers=1), lambda at: crispseg.evaluate(at.run, split="none")),
    "from_pretrained": (lambda at: crispseg.from_pretrained(at.run), lambda at: crispseg.from_pretrained(at.none)),
    "list_models": (lambda _: crispseg.list_models(), lambda at: crispseg.load(at.none)),
    "load": (lambda at: crispseg.load(at.run).evaluate(), lambda at: crispseg.load(at.run).evaluate("none")),
    "predict": (
        lambda at: crispseg.predict(at.run, at.images, out=at.new),
        lambda at: crispseg.predict(at.run, at.none, out=at.new),
    ),
    "record": (
        lambda at: walked(crispseg.record(at.model), at.model),
        lambda at: walked(crispseg.record(at.model), at.model, channels=4),
    ),
    "train": (
        lambda at: quietly(tiny(at.new, workers=1, epochs=1, deterministic=True)),
        lambda at: quietly(tiny(at.new, lr=1e30, schedule="constant")),
    ),
}
COMMAND = "crispseg "
SLOW = {COMMAND + name for name in ("ablate", "compare", "demo", "distill", "export", "label errors", "quickstart")}
NAMES = [*(COMMAND + name for name in COMMAND_ROWS), *PYTHON_ROWS]
ROWS = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NAMES]


class Interrupted(threading.Event):
    """Event that a user's Ctrl+C interrupts."""

    def wait(self, timeout: float | None = None) -> bool:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def place(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Files and objects for the rows, by the names that these use."""
    root = tmp_path_factory.mktemp("host")
    images = Path(DRAWN.root) / "images/test"
    image = sorted(images.iterdir())[0]
    (root / "broken.png").write_bytes(image.read_bytes()[:100])
    torch.save(official("sfnet_df1")[1], root / "official.pth")
    lively("sfnet").save_pretrained(root / "flow")
    shape = {"label": "road", "points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}
    (root / "shapes").mkdir()
    (root / "shapes/a.png").write_bytes(image.read_bytes())
    (root / "shapes/a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": [shape]}))
    write_image(root / "more/b.png", draw(7, 64, 96)[0])
    paths = {name: root / name for name in ("none", "shapes", "flow", "more")}
    paths |= {"broken": root / "broken.png", "official": root / "official.pth"}
    paths |= {"run": tiny_run.folder, "images": images, "image": image}
    segmenter = crispseg.Segmenter(tiny_run.folder)
    texts = {name: str(path) for name, path in paths.items()}
    return SimpleNamespace(**texts, model=tiny_run.model.eval(), segmenter=segmenter, result=segmenter(image))


def run_row(name: str, at: SimpleNamespace, fails: bool) -> bool:
    """Run a row and return whether it has failed."""
    if name in PYTHON_ROWS:
        try:
            PYTHON_ROWS[name][fails](at)
        except (CrispsegError, RuntimeError):
            return True
        return False
    command = name.removeprefix(COMMAND)
    arguments = COMMAND_ROWS[command][fails].format_map(vars(at))
    return main([*command.split(), *arguments.split()]) == 2


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_the_state_of_the_program_stays(
    name: str, fails: bool, place: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.new = str(tmp_path / "new")
    monkeypatch.setattr("crispseg.cli.demo.Event", Interrupted)
    monkeypatch.setattr("crispseg.cli.annotate.open_window", Project)
    cv2.setNumThreads(2)
    before = program_state()
    assert run_row(name, place, fails) == fails
    drawn = ["torch"] * (name == "create_model" and not fails)  # random weights, as of all layers of PyTorch
    assert changed(before) == drawn


@pytest.mark.parametrize(("name", "value"), [("dtype", torch.float64), ("device", torch.device("meta"))])
def test_training_in_a_program_with_other_tensors(
    name: str, value: Any, place: SimpleNamespace, tmp_path: Path
) -> None:
    place.new = str(tmp_path / "new")
    getattr(torch, f"set_default_{name}")(value)
    try:
        assert not run_row("train", place, fails=False)
        assert getattr(torch, f"get_default_{name}")() == value
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_all_that_is_public_has_a_row() -> None:
    for name in COMMANDS:
        import_module(f"crispseg.cli.{name}")
    assert {*commands} == {*COMMAND_ROWS}
    registries = {"contexts", "fuses", "merges"}
    assert {*crispseg.__all__} - registries - {"CrispsegError"} <= {*PYTHON_ROWS}


FIRST_USES = """
from program_state import changed, program_state
import tifffile
before = program_state()
import crispseg
for name in crispseg.__all__:
    getattr(crispseg, name)
print("import", changed(before))
import sys
run, image, out, flags = sys.argv[1:]
crispseg.Segmenter(run)(image)
crispseg.predict(run, image, out=f"{out}/predicted")
print("predict", changed(before))
from crispseg.cli.main import main
main(["train", *flags.split(), "--out", f"{out}/run"])
crispseg.load(f"{out}/run")
print("train", changed(before))
"""


@pytest.mark.slow
def test_the_state_of_a_new_program_stays(place: SimpleNamespace, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FIRST_USES, place.run, place.image, str(tmp_path), SHORT]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.endswith("]")]
    assert lines[-3:] == ["import []", "predict []", "train []"], done.stderr
