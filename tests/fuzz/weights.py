"""Saved weights: `.safetensors` files and checkpoints."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import torch

from crispseg import create_model
from crispseg.backbones import read_state_dict
from crispseg.backbones.weights import write_state_dict
from crispseg.training.checkpoints import AtomicCheckpointIO, read_checkpoint
from fuzz.kinds import Case, Kind, digest
from fuzz.mutations import Damaged, damaged


def network() -> dict[str, torch.Tensor]:
    """Some tensors of a real network: of several types and shapes, and few, so that files are small."""
    torch.manual_seed(0)
    state = create_model("fpn", num_classes=3, backbone="test_efficientnet", width=8).state_dict()
    small = {key: value for key, value in state.items() if value.numel() < 500}
    return dict(list(small.items())[:40]) | {"half": torch.randn(3, 5).half(), "empty": torch.zeros(0, 2)}


class Weights(Kind):
    name = "safetensors"

    def __init__(self, place: Path) -> None:
        path = place / "model.safetensors"
        write_state_dict({key: value.contiguous() for key, value in network().items()}, path)
        self.seed = path.read_bytes()
        self.head = 8 + int.from_bytes(self.seed[:8], "little")
        self.truth = digest(read_state_dict(path))

    def case(self, random: Random, folder: Path) -> Case:
        changed = self._changed(random)
        path = folder / "model.safetensors"
        path.write_bytes(changed.content)
        return Case(
            changed.what, {"weights": lambda: read_state_dict(path)}, {} if changed.forged else {"weights": self.truth}
        )

    def _changed(self, random: Random) -> Damaged:
        if random.random() < 0.6:
            return damaged(random, self.seed, [self.seed])
        head, what, _ = damaged(random, self.seed[8 : self.head], [self.seed])  # with a length that fits
        return Damaged(len(head).to_bytes(8, "little") + head + self.seed[self.head :], f"head: {what}")


class Checkpoints(Kind):
    name = "checkpoints"

    def __init__(self, place: Path) -> None:
        path = place / "last.ckpt"
        state = {f"model.{key}": value for key, value in network().items()}
        checkpoint: dict[str, Any] = {
            "state_dict": state,
            "global_step": 7,
            "callbacks": {"MetricsFile": {"rows": [{"step": "4", "miou": "1.0"}]}},
            "optimizer_states": [{"state": {0: {"momentum_buffer": torch.randn(4)}}, "param_groups": [{"lr": 0.1}]}],
        }
        AtomicCheckpointIO().save_checkpoint(checkpoint, path)
        self.seed = path.read_bytes()
        self.truth = digest(read_checkpoint(path))

    def case(self, random: Random, folder: Path) -> Case:
        changed = self._forged(random) if random.random() < 0.2 else damaged(random, self.seed, [self.seed])
        path = folder / "last.ckpt"
        path.write_bytes(changed.content)
        sound = {} if changed.forged else {"checkpoint": self.truth}
        return Case(changed.what, {"checkpoint": lambda: read_checkpoint(path)}, sound)

    def _forged(self, random: Random) -> Damaged:
        """A record of the archive is another one or lost, with checksums that fit."""
        with zipfile.ZipFile(io.BytesIO(self.seed)) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        name = random.choice(["archive/data.pkl", *records])
        name = name if name in records else next(key for key in records if key.endswith("data.pkl"))
        other = damaged(random, records[name], [*records.values()])
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for key, content in records.items():
                if key != name or random.random() < 0.9:
                    archive.writestr(key, other.content if key == name else content)
        return Damaged(buffer.getvalue(), f"{name}: {other.what} (forged)", True)
