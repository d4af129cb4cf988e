"""No folder trains on wrong labels unseen, and the doctor stops where training does."""

from pathlib import Path

import pytest

from crispseg import CrispsegError
from crispseg.data.examination import check_splits, examine
from crispseg.errors import Question
from crispseg.folders.checks import check
from crispseg.folders.finding import Severity

from .messy import ASKED, FOLDERS, REFUSED, WRONG, Messy, become, source_of


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


def test_the_question_about_strokes_names_them(tmp_path: Path) -> None:
    row = FOLDERS["strokes, 255 unlabelled"]
    row.draw(tmp_path)
    error = error_with(row, tmp_path)
    assert isinstance(error, Question)
    strokes = [settings for answer, settings in error.choices.items() if "strokes" in answer]
    assert strokes == [{"data.ignore": [255]}]
