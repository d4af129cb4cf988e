"""nnU-Net v2 for `first_result.py`, with its own plans, network, augmentation, loss and prediction.

    pip install nnunetv2==2.8.1
    python benchmarks/first_result.py run --methods nnunet --root DATA --weights WEIGHTS --work runs/first

Training starts from random weights and uses all training images in fp32, nnU-Net's precision on CPUs. Planning and
preprocessing count as CPU seconds, but not as minutes. The schedule of 1,000 epochs is scaled to the minutes. The first
class is nnU-Net's background. Prediction does not use mirroring.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from crispseg.data import FileDataset
from crispseg.inference.runtime import ExportedModel
from crispseg.labels import IGNORE
from crispseg.models import ModelInfo

NAME = "Dataset001_own"


def trained(train: FileDataset, minutes: float, seed: int, work: Path) -> tuple[ExportedModel, int, int]:
    """Train in the folder `work`; return the model and its numbers of parameters and steps."""
    if find_spec("nnunetv2") is None:
        raise SystemExit("nnU-Net is not installed: pip install nnunetv2==2.8.1")
    variables = {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    os.environ.update(variables | {"nnUNet_n_proc_DA": "1"})
    raw = write_raw(train, work / "raw" / NAME)
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api  # reads the variables above

    with (work / "nnunet.log").open("w") as log, contextlib.redirect_stdout(log):
        api.extract_fingerprints([1], num_processes=1, show_progress_bar=False)
        api.plan_experiments([1])
        api.preprocess([1], configurations=("2d",), num_processes=(1,), show_progress_bar=False)
        os.environ.update({"nnUNet_n_proc_DA": "0"})  # augment in this process
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - nnU-Net draws from it
        trainer, steps = train_for(60 * minutes, raw, work / "preprocessed")
    network = trainer.network.eval()
    trainer.set_deep_supervision_enabled(False)
    info = ModelInfo("nnunet", len(train.labels), "", 3, class_names=train.labels.names, mean=(0,) * 3, std=(1,) * 3)
    metadata = json.loads(info.to_json()) | {"output": "labels"}
    model = ExportedModel(predictor_of(trainer), json.dumps(metadata), work)
    return model, sum(each.numel() for each in network.parameters()), steps


def write_raw(train: FileDataset, folder: Path) -> dict[str, Any]:
    """Write the training images in nnU-Net's format; return its `dataset.json`."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    classes = len(train.labels)
    for index in range(len(train)):
        sample = train[index]
        cv2.imwrite(str(folder / "imagesTr" / f"{index:05}_0000.png"), sample.image[..., ::-1])
        labels = np.where(sample.labels == IGNORE, classes, sample.labels)
        cv2.imwrite(str(folder / "labelsTr" / f"{index:05}.png"), labels)
    names = ["background", *train.labels.names[1:], "ignore"]
    raw = {
        "channel_names": {str(index): name for index, name in enumerate("RGB")},
        "labels": {name: index for index, name in enumerate(names)},
        "numTraining": len(train),
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(raw))
    return raw


def train_for(seconds: float, raw: dict[str, Any], preprocessed: Path) -> tuple[Any, int]:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans = json.loads((preprocessed / NAME / "nnUNetPlans.json").read_text())
    trainer = nnUNetTrainer(plans | {"continue_training": False}, "2d", "all", raw, device=torch.device("cpu"))
    trainer.on_train_start()
    trainer.network.train()
    start, steps = time.monotonic(), 0
    while (spent := time.monotonic() - start) < seconds:
        trainer.lr_scheduler.step(trainer.num_epochs * spent / seconds)
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
    return trainer, steps


def predictor_of(trainer: Any) -> Any:
    """Return a function from images `(1, 3, H, W)` in 0 to 1 to labels `(1, H, W)`."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    configuration = trainer.configuration_manager, None, trainer.dataset_json, "", None
    predictor.manual_initialization(trainer.network, trainer.plans_manager, *configuration)
    predictor.list_of_parameters = [trainer.network.state_dict()]

    def labels_of(images: Tensor) -> Tensor:
        pixels = (255 * images[0]).numpy()[:, None]  # (C, 1, H, W)
        found = predictor.predict_single_npy_array(pixels, {"spacing": (999, 1, 1)})
        return torch.from_numpy(found.astype(np.int64))

    return labels_of
