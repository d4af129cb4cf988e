"""Models that segment for the page: timed, and with what they computed on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import perf_counter

import torch
from torch import Tensor

from crispseg.demo.alignment import Step, steps_of
from crispseg.demo.uploads import Picture
from crispseg.inference.protocols import MIN_SIDE
from crispseg.inference.segmenter import Segmentation, Segmenter
from crispseg.models import SegmentationModel
from crispseg.nn import record


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model made of a picture."""

    segmentation: Segmentation
    steps: tuple[Step, ...]
    """Of its alignment."""
    network: float
    """Seconds that the network took."""


class Engine(Segmenter):
    """A segmenter that also times its network and keeps where it looked; one picture at a time.

    Args:
        model_or_path, device, bf16: as for `Segmenter`.
    """

    def __init__(
        self,
        model_or_path: SegmentationModel | str | Path,
        device: str | torch.device | None = None,
        *,
        bf16: bool = False,
    ) -> None:
        super().__init__(model_or_path, device, bf16=bf16)
        self._lock = Lock()
        self._network = 0.0

    def see(self, picture: Picture) -> Seen:
        """Segment a picture.

        Raises:
            CrispsegError: it needs more memory than there is.
        """
        with self._lock, record(self._model) as taps:
            segmentation = self._segment(picture.pixels, None)
            network = self._network
        segmentation.name = picture.stem
        height, width = segmentation.labels.shape
        seen_size = max(height, MIN_SIDE), max(width, MIN_SIDE)
        return Seen(segmentation, steps_of(self._model, self.info, taps, segmentation, seen_size), network)

    def describe(self) -> str:
        """The model in a few words."""
        refined = " with boundary refinement" if self._model.refiner is not None else ""
        return f"{self.info.name} on {self.info.backbone}{refined}, {len(self.label_set)} classes"

    def _unrefined(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        self._wait()
        start = perf_counter()
        found = super()._unrefined(batch)
        self._wait()
        self._network = perf_counter() - start
        return found

    def _wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
