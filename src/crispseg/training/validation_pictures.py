"""Pictures of the same few val images at each evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray

from crispseg.data.dataset import SegmentationDataset
from crispseg.io.images import as_picture, colorize, write_image
from crispseg.visualization.pictures import panels

IMAGES = 4
KEPT = 10
"""Pictures that stay: the first one and the latest."""


def telling_images(present: NDArray[np.bool_], most: int = IMAGES) -> list[int]:
    """Images that together show as many classes as so few can, and others from all over the split.

    Args:
        present: `(images, classes)`, which classes each shows.
        most: so many, or all where there are fewer.
    """
    missing = np.ones(present.shape[1], bool)
    chosen: list[int] = []
    while len(chosen) < min(most, len(present)):
        gains = (present & missing).sum(1)
        if chosen and not gains.any():
            break
        chosen.append(int(gains.argmax()))
        missing &= ~present[chosen[-1]]
    others = [index for index in np.linspace(0, len(present) - 1, 2 * most).astype(int) if index not in chosen]
    return sorted([*chosen, *dict.fromkeys(map(int, others))][:most])


class ValidationPictures(Callback):
    """Writes `pictures/step_000123.png` at each evaluation, and to TensorBoard: images, truth and prediction.

    Args:
        folder: of the run.
        dataset: the val split.
        indices: the images to show.
    """

    def __init__(self, folder: Path, dataset: SegmentationDataset, indices: Sequence[int]) -> None:
        self.folder = folder / "pictures"
        self.dataset = dataset
        self.indices = frozenset(indices)
        self.predictions: dict[int, NDArray[np.uint8]] = {}
        self.latest: Path | None = None

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        index = batch_idx * trainer.world_size + trainer.global_rank
        if index in self.indices and not trainer.sanity_checking:
            self.predictions[index] = outputs[0].cpu().numpy().astype(np.uint8)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.predictions or not trainer.is_global_zero:  # another process may have the images
            return
        picture = self.draw()
        self.predictions.clear()
        self.latest = self.folder / f"step_{trainer.global_step:06}.png"
        write_image(self.latest, picture)
        for old in sorted(self.folder.glob("step_*.png"))[1 : 1 - KEPT]:
            old.unlink()
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("val", picture, trainer.global_step, dataformats="HWC")

    def draw(self) -> NDArray[np.uint8]:
        """A row for each image, `(H, W, 3)` RGB."""
        palette = self.dataset.labels.palette
        rows = []
        for index, prediction in sorted(self.predictions.items()):
            image, truth, _ = self.dataset[index]
            rows.append([as_picture(image), colorize(truth, palette), colorize(prediction, palette)])
        return panels(rows, ["image", "ground truth", "prediction"], self.dataset.labels)
