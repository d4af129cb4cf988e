"""What `crispseg train FOLDER` makes of small folders of own data: refused, or classes, pairs and ignored pixels.

A run of one step is made, and its splits are scored, since counts of true pixels tell which images a split has and what
their masks' values mean; what is missing there is ignored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import crispseg
from contract.folders import ROWS
from contract.formula import frozen, run

TINY = (
    *("--model=fpn", "--model.backbone=test_efficientnet", "--model.pretrained=false", "--model.width=8"),
    *("--augment.crop=32", "--augment.repeat=1", "--iterations=1", "--batch_size=2", "--workers=0", "--loggers=[]"),
    *("--accelerator=cpu", "--precision=fp32", "--class_weights=null"),
)
CASES = [pytest.param(name, marks=[pytest.mark.slow] * (at % 8 > 0)) for at, name in enumerate(ROWS)]


def outcome(name: str, folder: Path) -> dict[str, Any]:
    """Exit status 2; or the names of the classes and, for each split, images and true pixels of each class."""
    row, data = ROWS[name], folder / "data"
    for step in row.steps:
        step(data)
    flags = [flag.replace("@", str(data)) for flag in row.flags]
    named = any(flag.startswith("--data.images=") for flag in flags)
    status, _ = run("train", *([] if named else [data]), *TINY, *flags, "--out", folder / "run")
    if status:
        return {"status": status}
    found: dict[str, Any] = {"classes": list(crispseg.from_pretrained(folder / "run").info.label_set().names)}
    if len(found["classes"]) > 100:
        return {"classes": len(found["classes"])}
    for split in row.splits:
        file = folder / f"{split}.json"
        status, _ = run("evaluate", folder / "run", f"--split={split}", "--workers=0", "--bootstrap=0", "--json", file)
        assert status == 0
        scores = json.loads(file.read_text())
        found[split] = {"images": scores["images"], "pixels": [sum(counts) for counts in scores["confusion"]]}
    return found


@pytest.mark.parametrize("name", CASES)
def test_outcome(name: str, tmp_path: Path) -> None:
    assert outcome(name, tmp_path) == frozen("folders.json")[name]
