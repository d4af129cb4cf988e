"""Settings and fixtures of the contract, which need nothing of the other tests."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Checkpoints that are not in the repository, in the folder that CRISPSEG_DATA names."""
    folder = os.environ.get("CRISPSEG_DATA")
    if not folder:
        pytest.skip("CRISPSEG_DATA is not set")
    return Path(folder)
