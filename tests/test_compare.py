"""The comparisons in benchmarks/: their tables, and what is reported of rows. Nothing is trained."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from typing import Any

import cv2
import pytest

pytest.importorskip("segmentation_models_pytorch")
pytest.importorskip("matplotlib")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = """
model: {name: sfnet, backbone: test_efficientnet, width: 16}
data: {name: camvid}
augment: {crop: [64, 96]}
epochs: 2
batch_size: 2
workers: 0
"""


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The script and its parts, as they are."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return {name: importlib.import_module(name) for name in ("compare", "tables", "results", "reporting")}


@pytest.fixture
def compare(scripts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script with a tiny recipe, a table of three networks, and outputs in a temporary folder."""
    compare, tables = scripts["compare"], scripts["tables"]
    (tmp_path / "tiny.yaml").write_text(TINY)
    monkeypatch.setattr(tables, "RECIPE", tmp_path / "tiny.yaml")
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(tables, "PLOTS", tmp_path)
    entries = {
        "sfnet": tables.Entry("SFNet", seeds=(0, 1), base="sfnet_add"),
        "sfnet_add": tables.Entry("no flow", "--model.fuse add", (0, 1)),
        "smp_fpn": tables.Entry("FPN", "--model smp_fpn", (0,)),
    }
    monkeypatch.setattr(tables, "TABLES", {"tiny": tables.Comparison("tiny", entries, (3, 5))})
    return compare


@pytest.fixture
def table(compare: Any) -> Any:
    """The tiny table."""
    return compare.tables.TABLES["tiny"]


def row(model: str, seed: int, miou: float, recipe: str, **changes: str) -> dict[str, str]:
    return {
        "model": model,
        "seed": str(seed),
        "miou": str(miou),
        "miou_in_training": str(miou),
        "boundary_f_3": str(miou + 5),
        "boundary_f_5": str(miou + 9),
        "parameters": "4200000",
        "multiply_adds": "5100000000",
        "recipe": recipe,
        "weights": "0123456789ab",
        "workers": "1",
        "commit": "abc1234",
        "torch": "2.8",
        **changes,
    }


def test_report(compare: Any, table: Any, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = compare.recipe_hash()
    rows = [row("sfnet", 0, 69.0, recipe), row("sfnet", 1, 71.0, recipe), row("smp_fpn", 0, 60.0, recipe)]
    compare.write_rows(table.scores, rows)
    compare.main(["report", "tiny"])
    lines = capsys.readouterr().out.splitlines()
    assert any(all(text in line for text in ("F, 3 px", "F, 5 px", "F, mean")) for line in lines)
    assert any(
        all(text in line for text in ("SFNet", "70.0 ± 1.4", "75.0 ± 1.4", "79.0 ± 1.4", "77.0 ± 1.4", "4.20", "5.10"))
        for line in lines
    )
    assert any("FPN" in line and "60.0 " in line and "60.0 ±" not in line and "not run" in line for line in lines)
    pixels = cv2.imread(str(table.plot))
    assert pixels.shape[1] > 1000 and pixels.std() > 5


def test_report_pairs_a_network_with_its_base_at_the_same_seeds(
    compare: Any, table: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = compare.recipe_hash()
    ablation = [row("sfnet_add", 0, 61.5, recipe), row("sfnet_add", 1, 67.0, recipe, boundary_f_5="79.0")]
    rows = [row("sfnet", 0, 60.0, recipe), row("sfnet", 1, 71.0, recipe), *ablation]

    def differences(*rows: dict[str, str]) -> list[list[str]]:
        compare.write_rows(table.scores, rows)
        compare.main(["report", "tiny"])
        lines = [line for line in capsys.readouterr().out.splitlines() if "−" in line]
        return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]

    first = ["SFNet − no flow", "0", "-1.5", "-1.5", "-1.5", "-1.5"]  # mIoU, F at 3 and 5 px, and their mean
    second = ["SFNet − no flow", "1", "+4.0", "+4.0", "+1.0", "+2.5"]
    mean = ["SFNet − no flow", "mean", "+1.2 ± 3.9", "+1.2 ± 3.9", "-0.2 ± 1.8", "+0.5 ± 2.8"]
    assert differences(*rows) == [first, second, mean]
    assert differences(*rows[:3]) == [first]
    assert differences(*rows[1:3]) == []  # no seed in common


def test_what_is_not_reported(compare: Any, table: Any, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = compare.recipe_hash()
    other = row("smp_fpn", 0, 60.0, recipe, weights="ba9876543210")
    for rows, message in (
        ([], "no rows"),
        ([row("sfnet", 0, 69.0, "other")], "followed recipe other"),
        ([row("sfnet", 0, 60.0, recipe), other], "0123456789ab (sfnet-0), ba9876543210 (smp_fpn-0)"),
    ):
        if rows:
            compare.write_rows(table.scores, rows)
        with pytest.raises(SystemExit, match="2"):
            compare.main(["report", "tiny"])
        assert message in capsys.readouterr().err
    assert not table.plot.exists()
    compare.tables.RECIPE.write_text(f"# a remark\n{TINY}")
    assert compare.recipe_hash() == recipe
    compare.tables.RECIPE.write_text(TINY.replace("epochs: 2", "epochs: 3"))
    assert compare.recipe_hash() != recipe


def test_tables(scripts: dict[str, Any]) -> None:
    """Of the repository: what they say can be trained, and a run has one meaning in all."""
    seen: dict[str, str] = {}
    for table in scripts["tables"].TABLES.values():
        for name, entry in table.entries.items():
            assert seen.setdefault(name, entry.flags) == entry.flags, name
            assert entry.base is None or entry.base in table.entries, name
            model = scripts["compare"].configuration(entry, 0, "").model
            assert model.backbone == "tf_efficientnet_lite0"
            assert model.name.startswith(("smp_", "crisp")) or model.options["width"] == 64, name


def test_rows_in_the_repository_are_valid(
    scripts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They follow the recipe as it is; a change of its settings makes all runs worthless."""
    monkeypatch.setattr(scripts["tables"], "PLOTS", tmp_path)
    for table in scripts["tables"].TABLES.values():
        if table.scores.is_file():
            scripts["reporting"].report(table)
    out = capsys.readouterr().out
    assert "66.5 ± 1.2" in out and "50.7 ± 1.7" in out  # SFNet's, as the README has them


def test_rows_are_no_change_of_the_code(
    scripts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = scripts["compare"]
    monkeypatch.setattr(module, "HERE", tmp_path)
    for name in ("rows.csv", "code.py"):
        (tmp_path / name).write_text("1\n")
    me = ["-c", "user.name=me", "-c", "user.email=me@localhost"]
    for command in (["init", "-q"], ["add", "."], [*me, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = module.head()
    assert len(commit) == 12
    (tmp_path / "rows.csv").write_text("2\n")
    assert module.head() == commit
    (tmp_path / "code.py").write_text("2\n")
    assert module.head() == f"{commit}-dirty"
