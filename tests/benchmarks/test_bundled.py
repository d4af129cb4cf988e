"""benchmarks/shipped.py: the folder that it makes for the wheel, and its rows. Nothing is compared."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from dataset_trees import save
from safetensors.torch import save_file

from crispseg import Segmenter, create_model
from crispseg.models import saving
from tests.models.test_shipped import faults


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six grey and six coloured images of disks, with `list.txt`, the names of val, and weights of the backbone."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for index in range(12):
        mask = np.zeros((64, 64), np.uint8)
        cv2.circle(mask, (20 + index, 30), 12, 1, -1)
        grey = (60 + 90 * mask + generator.integers(0, 20, mask.shape)).astype(np.uint8)
        image = cv2.merge([grey, grey // 2, grey]) if index % 2 else grey
        save(root / f"data/images/{index:02}.png", image)
        save(root / f"data/masks/{index:02}.png", mask)
    (root / "list.txt").write_text("00\n01\n02\n03\n")
    net = create_model("fpn", num_classes=2, backbone="test_efficientnet").backbone.net.model
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, root / "weights.safetensors")
    return root


@pytest.fixture
def script(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with rows of a test."""
    pytest.importorskip("segmentation_models_pytorch")
    shipped = script("shipped")
    monkeypatch.setattr(shipped, "ROWS", tmp_path / "shipped_finetune.csv")
    for name in ("shipped", "shipped_card", "first_result"):
        monkeypatch.setattr(sys.modules[name], "head", lambda: "abc")
    return shipped


def arguments(stage: str, place: Path, work: Path, *flags: str) -> list[str]:
    """The folder source stands in for the one that has the name."""
    own = [f"--root={place / 'data'}", f"--weights={place / 'weights.safetensors'}", f"--work={work}"]
    further = ["--data=folder", f"--data.val_list={place / 'list.txt'}", "--data.classes=[background,nucleus]"]
    further += ["--model.backbone=test_efficientnet", "--workers=0", "--loggers=[]", "--augment.crop=64"]
    return [stage, "nuclei", *own, "--minutes=0.01", *flags, *further]


@pytest.mark.slow
def test_the_folder_for_the_wheel(
    script: ModuleType, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    argv = arguments("train", place, tmp_path / "runs", "--seed=3", f"--out={tmp_path / 'shipped'}")
    script.main(argv)
    folder = tmp_path / "shipped/nuclei"
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{folder}: 0.")
    assert faults(folder) == []
    card, config = (folder / "README.md").read_text(), json.loads((folder / "config.json").read_text())
    assert 'crispseg.Segmenter("nuclei")' in card and "# nuclei: crisp on test_efficientnet" in card
    assert "train nuclei --root ROOT --weights weights.safetensors --minutes 0.01 --seed 3 --data=folder" in card
    assert "On the 4 images of val" in card and "seed 3" in card and str(place.parent) not in config["recipe"]["out"]
    shown = f"| mIoU | {config['metrics']['val']['miou']:.1f} | "
    low, high = config["metrics"]["val"]["intervals"]["miou"]
    assert f"{shown}[{low:.1f}, {high:.1f}] |" in card
    assert f"| IoU of nucleus | {config['metrics']['val']['iou']['nucleus']:.1f} |" in card
    assert "root" not in config["recipe"]["data"] and config["recipe"]["model"]["pretrained"] == "weights.safetensors"

    monkeypatch.setattr(saving, "SHIPPED", tmp_path / "shipped")
    before = Segmenter("nuclei", "cpu")(place / "data/images/05.png").labels
    capsys.readouterr()
    script.main(argv)  # the run is there; the card is made again
    assert np.array_equal(before, Segmenter("nuclei", "cpu")(place / "data/images/05.png").labels)
    assert (folder / "README.md").read_text() == card

    monkeypatch.setattr(sys.modules["shipped_card"], "ADJOINING", {"nuclei": {"01", "02", "not there"}})
    rescore = ["card", "nuclei", *(flag for flag in argv if flag.startswith(("--root", "--out", "--data")))]
    script.main(rescore)
    again = (folder / "README.md").read_text()
    told = re.search("Of these images 2 touch one of train.*\nWithout them: (.*)\\.\n", again)
    assert told and "mIoU" in told[1] and "boundary F" in told[1] and "Of these images" not in card
    assert again.replace(f"\n{told[0]}", "") == card

    with pytest.raises(SystemExit):
        script.main([*argv, "--model.width=8"])  # the run is of another network
    assert "model" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_of_fine_tuning(script: ModuleType, place: Path, tmp_path: Path) -> None:
    script.main(arguments("finetune", place, tmp_path / "runs", "--base_minutes=0.01", "--seeds", "0", "--images", "2"))
    rows = script.read_rows(tmp_path / "shipped_finetune.csv")
    found = [(row["start"], row["images"], row["seed"]) for row in rows]
    assert found == [("other images", "0", "0"), ("other images", "2", "0"), ("ImageNet", "2", "0")]
    kinds = tmp_path / "runs/nuclei-kinds"
    listed = {path.name: path.read_text().split() for path in kinds.glob("*_*.txt")}
    assert listed.pop("every_val.txt") == ["01", "03"]  # of the images in colour
    assert listed == {
        "False_train.txt": ["04", "06", "08", "10"],
        "False_val.txt": ["00", "02"],
        "True_train.txt": ["05", "07", "09", "11"],
        "True_val.txt": ["01", "03"],
    }
    few = (kinds / "2-0.txt").read_text().split()
    assert len(few) == 2 and set(few) <= {"05", "07", "09", "11"}
