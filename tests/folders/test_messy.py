"""No folder trains on wrong labels unseen, and the doctor stops where training does."""

from pathlib import Path

import numpy as np
import pytest
from commands import error_of, hints

from crispseg import CrispsegError
from crispseg.cli.main import main
from crispseg.data.examination import check_splits, examine
from crispseg.folders.checks import check
from crispseg.folders.finding import Severity

from .messy import ASKED, FOLDERS, REFUSED, SIZE, WRONG, Messy, become, source_of, write


def stopped_by_the_doctor(row: Messy, root: Path) -> bool:
    try:
        findings = check(examine(source_of(row, root)))
    except CrispsegError:
        return True
    errors = {finding.code for finding in findings if finding.severity is Severity.ERROR}
    return bool(errors - {"image-without-mask"})  # training leaves these out, and says so


def check_proposals(row: Messy, root: Path) -> None:
    """No proposed setting leads to the same question again."""
    question = error_with(row, root)
    assert question is not None
    for settings in question.settings:
        given = {key.removeprefix("data."): value for key, value in settings.items()}
        assert str(error_with(row._replace(settings={**row.settings, **given}), root)) != str(question)


def error_with(row: Messy, root: Path) -> CrispsegError | None:
    try:
        source = source_of(row, root)
        check_splits({split: source.dataset(split) for split in ("train", "val")})
    except CrispsegError as error:
        return error
    return None


@pytest.mark.parametrize("name", FOLDERS)
def test_a_messy_folder(name: str, tmp_path: Path) -> None:
    row = FOLDERS[name]
    assert row.outcome != WRONG
    assert become(row, tmp_path) == row.outcome
    if row.outcome == ASKED:
        check_proposals(row, tmp_path)
    assert stopped_by_the_doctor(row, tmp_path) == (row.outcome in (ASKED, REFUSED))


def test_the_answer_about_strokes_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    FOLDERS["strokes, 255 unlabelled"].draw(root)
    write(root / "masks/01.png", np.full(SIZE, 255, np.uint8))
    network = "--model=fpn", "--model.backbone=test_efficientnet", "--model.width=16", "--model.pretrained=false"
    settings = "--augment.crop=32", "--iterations=2", "--workers=0", "--loggers=[]"
    text = error_of(capsys, "train", root, "--out", tmp_path / "run", *network, *settings)
    assert "as in masks of strokes" in text
    (answer,) = (words for words in hints(text) if "--data.ignore=[255]" in words)
    capsys.readouterr()
    assert main(answer) == 0
    printed = capsys.readouterr().err
    assert "of the pixels are labelled, as with strokes" in printed
    assert "1 mask in which all pixels are ignored, so that training skips the image" in printed
