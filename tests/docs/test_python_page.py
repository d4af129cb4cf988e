"""The code of the pages on Python and of the README's five lines, run on tiny data."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from dataset_trees import save
from huggingface_hub import HfApi

import crispseg

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    'model="fpn", backbone="test_efficientnet", pretrained=False, width=16, crop=(64, 64), epochs=1, batch_size=2, '
    "workers=0, loggers=[]"
)


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def tiny(code: str) -> str:
    """The code with another length of training and the smallest of models."""
    code = re.sub(r"(crispseg\.train\(.*?)(, minutes=\d+)?(, out=)", rf"\1, {TINY}\3", code)
    return code.replace("pretrained=True", 'backbone="test_efficientnet"')


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with own data, and what the code makes."""
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for index in range(6):
        mask = np.kron(rng.integers(0, 2, (2, 3)), np.ones((32, 32))).astype(np.uint8)
        save(place / f"photos/{index}.jpg", np.dstack([160 * mask + 40] * 3))
        save(place / f"masks/{index}.png", mask)
    save(place / "photo.jpg", np.full((40, 56, 3), 128, np.uint8))
    return place


@pytest.mark.parametrize("page", ["README.md", "docs/python.md", "docs/other-tools.md"])
def test_what_the_page_shows_runs(page: str, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the order of the page, each block by itself: later ones use what earlier ones have saved."""
    monkeypatch.chdir(place)
    shown = [code for code in blocks(page) if "photos" in code or "runs/" in code or "images = " in code]
    assert shown
    for code in shown:
        names: dict[str, Any] = {}
        exec(compile(tiny(code).replace('"runs/', f'"{tmp_path}/'), page, "exec"), names)
        if "run" in names:
            assert len(names["run"].history) == 1 and "mIoU of each evaluation" in names["run"]._repr_html_()
        if "scores" in names:
            assert names["scores"].scores().truth.sum() == 64 * 96  # of one image
    assert "predictions" not in "".join(shown) or (place / "predictions/photo.png").is_file()


def test_own_loops_run_and_their_model_is_saved(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(place)
    loop, lightning, saving = blocks("docs/python.md")[-3:]
    names: dict[str, Any] = {}
    exec(tiny(loop), names)
    images, labels = next(iter(names["loader"]))
    assert images.shape == (2, 3, 64, 64) and images.dtype == torch.float32
    assert labels.shape == (2, 64, 64) and labels.dtype == torch.int64
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in names["model"].parameters())

    exec(lightning, names)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", **quiet)
    trainer.fit(names["Segmentation"](names["model"]), names["loader"], names["loader"])
    assert 0 <= trainer.callback_metrics["val/miou"] <= 100

    uploaded: list[str] = []

    def upload(api: HfApi, folder_path: Path, **_: object) -> None:
        uploaded.extend(file.name for file in folder_path.iterdir())

    monkeypatch.setattr(HfApi, "create_repo", lambda api, repo_id, **_: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    exec(saving.replace('"saved"', f'"{tmp_path}/saved"'), names)
    assert {"config.json", "model.safetensors", "README.md"} <= {*uploaded}
    assert crispseg.from_pretrained(tmp_path / "saved").info.class_names == ("background", "road")
