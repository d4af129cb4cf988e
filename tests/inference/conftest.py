"""The models that tests of predicted files share."""

from pathlib import Path

import pytest
from training_runs import of_many_opinions

from crispseg import Segmenter


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of three classes, all of which it predicts."""
    folder = tmp_path_factory.mktemp("model")
    of_many_opinions(3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of four classes, all of which it predicts."""
    folder = tmp_path_factory.mktemp("model")
    of_many_opinions(4).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> Segmenter:
    return Segmenter(folder, "cpu")
