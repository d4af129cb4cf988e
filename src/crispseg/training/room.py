"""What a run asks of its machine, refused before it is taken."""

from __future__ import annotations

import math

import torch

from crispseg.data import SplitReport
from crispseg.errors import CrispsegError
from crispseg.inference.memory import free_bytes
from crispseg.io.images import image_channels
from crispseg.models.base import shapes_alone
from crispseg.training.config import ModelConfig, TrainConfig

COPIES = 4
"""Of the weights: they, their gradients and, with AdamW, two averages of these."""


def check_network(choice: ModelConfig, num_classes: int) -> None:
    """Make sure that there is memory for a network, before it is built.

    Raises:
        CrispsegError: there is not; or it cannot be built.
    """
    with shapes_alone():
        tensors = choice.untrained().build(num_classes, auxiliary=True).state_dict().values()
    needed = COPIES * sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    _check(needed, f"training {choice.name} on {choice.backbone}", "choose a smaller backbone or --model.width")


def check_batch(config: TrainConfig, train: SplitReport, samples: int) -> None:
    """Make sure that there is memory for a batch of `samples` in an epoch, before it is read.

    Raises:
        CrispsegError: there is not.
    """
    assert config.batch_size != "auto"
    count, pixels = min(config.batch_size, samples), math.prod(config.augment.window or train.largest)
    bytes_a_pixel = 4 * image_channels(config.model.in_chans) + 8  # float32 and, of labels, int64
    task = f"a batch of {count} crops of {pixels:,} pixels"
    _check(count * pixels * bytes_a_pixel, task, "make batch_size or augment.crop smaller")


def _check(needed: int, task: str, remedy: str) -> None:
    free = free_bytes(torch.device("cpu"))
    if free is not None and needed > free:
        raise CrispsegError(f"{task} needs {needed / 1e9:,.1f} GB, and {free / 1e9:.1f} GB are free; {remedy}")
