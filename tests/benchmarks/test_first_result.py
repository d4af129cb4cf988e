"""benchmarks/first_result.py: its data, its loops and its table. Nothing is compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from dataset_trees import save
from safetensors.torch import save_file

from crispseg.cli.main import main
from crispseg.models import create_model


@pytest.fixture
def script(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with rows and backbone of a test, on any processor."""
    pytest.importorskip("segmentation_models_pytorch")
    first_result = script("first_result")
    monkeypatch.setattr(first_result, "ROWS", tmp_path / "rows.csv")
    monkeypatch.setattr(first_result, "LISTS", tmp_path)
    monkeypatch.setattr(first_result.os, "sched_setaffinity", lambda process, processors: None, raising=False)
    monkeypatch.setattr(first_result, "head", lambda: "abc")
    monkeypatch.setattr(first_result.subprocess, "run", lambda command, **_: main(command[3:]))  # in this process
    return first_result


def sources(root: Path) -> dict[str, Path]:
    """Six nuclei images, and six parts of three aerial tiles, with the lists of their splits."""
    generator = np.random.default_rng(0)
    for index in range(6):
        image = generator.integers(0, 255, (64, 64, 3), np.uint8)
        ids = np.zeros((64, 64), np.uint16)
        ids[8:30, 8:30], ids[8:30, 31:50] = 1, 2
        save(root / f"nuclei/images/{index}.png", image)
        save(root / f"nuclei/instances/{index}.png", ids)
        name = f"tile{1 + index // 2}_{index:03}.png"
        save(root / "aerial/images" / name, image)
        save(root / "aerial/masks" / name, generator.integers(0, 5, (64, 64)).astype(np.uint8))
    for data in ("nuclei", "aerial"):
        names = sorted(path.stem for path in (root / data / "images").iterdir())
        (root / f"{data}_train.txt").write_text("\n".join(names[2:]))
        (root / f"{data}_val.txt").write_text("\n".join(names[:2]))
    return {"nuclei": root / "nuclei", "aerial": root / "aerial"}


def test_splits(script: ModuleType, tmp_path: Path) -> None:
    where = sources(tmp_path)
    nuclei, aerial = (script.data_of(name, where[name]) for name in ("nuclei", "aerial"))
    assert set(np.unique(nuclei.dataset("train")[0].labels)) == {0, 1, 2}
    for data in (nuclei, aerial):
        assert (len(data.pairs("train")), len(data.pairs("val"))) == (4, 2)
    assert {pair.name[:5] for pair in aerial.pairs("val")} == {"tile1"}
    some = script.fewer(nuclei, 3, 0, tmp_path / "train.txt")
    assert len(some.pairs("train")) == 3 and some.pairs("val") == nuclei.pairs("val")


def test_domains_whose_folders_are_their_splits(script: ModuleType, tmp_path: Path) -> None:
    for split, masks in (("train", "trainannot"), ("val", "valannot")):
        for name, folders in {"leaf": (f"images/{split}", f"masks/{split}"), "camvid": (split, masks)}.items():
            for folder, value in zip(folders, (90, 1), strict=True):
                for index in range(2):
                    image = np.full((40, 40), value, np.uint8)
                    image[:, 20:] = 0 if value == 1 else 180 + index
                    save(tmp_path / name / folder / f"{split}{index}.png", image)
    for name, count in (("leaf", 3), ("camvid", 11)):
        data = script.data_of(name, tmp_path / name)
        assert len(data.label_set()) == count and [len(data.pairs(split)) for split in ("train", "val")] == [2, 2]
        assert f"--data.root={tmp_path / name}" in script.folder_flags(data)


@pytest.mark.slow
def test_every_method_gives_a_row(script: ModuleType, tmp_path: Path, capsys: Any) -> None:
    sources(tmp_path)
    backbone = create_model("fpn", num_classes=2, backbone=script.BACKBONE).backbone.net.model
    save_file({key: value.contiguous() for key, value in backbone.state_dict().items()}, tmp_path / "w.safetensors")
    argv = ["run", f"--root={tmp_path}", f"--weights={tmp_path / 'w.safetensors'}"]
    methods = ["crispseg", "loop_unet", "smp_fpn --precision=fp32"]
    argv += [f"--work={tmp_path / 'work'}", "--minutes", "0.02", "--seeds", "0", "--data", "nuclei", "--methods"]
    argv += methods
    script.main(argv)
    rows = script.read_rows(script.ROWS)
    found = [(row["method"], row["seen"]) for row in rows]
    assert found == [("crispseg", "1.33"), ("loop_unet", "1"), *product(methods[2:], ("1", "1.33"))]
    assert all(int(row["steps"]) > 0 and len(json.loads(row["classes"])) == 3 for row in rows)
    measures = "miou", "boundary_f_2", "boundary_f_3", "object_f1", "object_ap"
    assert all(0 <= float(row[key]) <= 100 for row in rows for key in measures)
    assert len({row["parameters"] for row in rows}) == 3
    capsys.readouterr()
    script.main(argv)  # nothing is missing
    assert capsys.readouterr().out == "" and script.read_rows(script.ROWS) == rows
    script.main(["report"])
    printed = capsys.readouterr().out
    assert all(method in printed for method in methods)
