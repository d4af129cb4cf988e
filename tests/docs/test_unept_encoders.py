"""`examples/unept_encoders.py`: UN-EPT with the attention of other papers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import unknown_again

from crispseg import create_model
from crispseg.config.registry import load_plugins

pytest.importorskip("transformers")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/unept_encoders.py"


@pytest.fixture(autouse=True)
def plugin() -> Iterator[None]:
    with unknown_again():
        load_plugins([str(EXAMPLE)])
        yield


@pytest.mark.parametrize("name", ["longformer", "reformer", "sparse"])
def test_it_attends_and_learns(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(f"unept_{name}", num_classes=5, backbone="test_efficientnet", width=32, points=4)
    logits = model.train()(torch.randn(2, 3, 65, 97))
    assert logits.shape == (2, 5, 65, 97)
    logits.square().mean().backward()
    for layer in model.decoder.encoder:
        learned = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        assert len(learned) > 10 and all(parameter.grad is not None for parameter in learned)
