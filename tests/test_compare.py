"""The comparisons in benchmarks/, on a tiny data set of CamVid's layout."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from crispseg import Segmenter
from crispseg.benchmarking.report import processor_name
from crispseg.inference.segmenter import as_batch

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
    monkeypatch.setattr(compare, "head", lambda: "abc1234")
    monkeypatch.setattr(compare, "HEIGHT", 64)
    monkeypatch.setattr(compare, "WIDTH", 96)
    return compare


@pytest.fixture
def table(compare: Any) -> Any:
    """The tiny table."""
    return compare.tables.TABLES["tiny"]


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    root, random = tmp_path / "data", np.random.default_rng(0)
    for split in ("train", "val"):
        lines = []
        for index in range(2):
            labels = np.repeat(np.repeat(random.integers(0, 12, (8, 12), np.uint8), 8, 0), 8, 1)
            for folder, pixels in ((split, np.repeat(20 * labels[..., None], 3, 2)), (f"{split}annot", labels)):
                (root / folder).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / folder / f"{index}.png"), pixels)
            lines.append(f"{split}/{index}.png {split}annot/{index}.png\n")
        (root / f"{split}.txt").write_text("".join(lines))
    return root


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


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


@pytest.mark.slow
def test_train_and_score(
    compare: Any,
    table: Any,
    camvid: Path,
    weights: Path,
    tmp_path: Path,
    refuses: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs, arguments = tmp_path / "runs", ["--data", str(camvid), "--weights", str(weights)]
    compare.main(["train", "tiny", "--runs", str(runs), *arguments])
    made = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    assert {path.name for path in runs.iterdir()} == {"sfnet-0", "sfnet-1", "sfnet_add-0", "sfnet_add-1", "smp_fpn-0"}
    compare.main(["train", "tiny", "--runs", str(runs), *arguments])
    assert made == {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}  # nothing to do

    (runs / "sfnet-1" / "model").rename(runs / "sfnet-1" / "later")
    compare.main(["score", "tiny", "--runs", str(runs)])
    assert "sfnet-1" in capsys.readouterr().out  # is not finished
    first = compare.read_rows(table.scores)
    assert [(row["model"], row["seed"], row["commit"]) for row in first] == [
        ("sfnet", "0", "abc1234"),
        ("sfnet_add", "0", "abc1234"),
        ("sfnet_add", "1", "abc1234"),
        ("smp_fpn", "0", "abc1234"),
    ]
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    assert all((row["weights"], row["workers"]) == (digest, "0") for row in first)
    own = compare.read_rows(runs / "sfnet-0" / "metrics.csv")[-1]
    assert float(first[0]["miou"]) == pytest.approx(float(own["miou"]), abs=0.01)  # the tiny recipe trains in float32
    assert float(first[0]["miou_in_training"]) == pytest.approx(float(own["miou"]), abs=0.001)
    assert int(first[0]["parameters"]) > 10_000 and int(first[0]["multiply_adds"]) > 1_000_000
    assert 0 < float(first[0]["boundary_f_3"]) < float(first[0]["boundary_f_5"]) <= 100

    (runs / "sfnet-1" / "later").rename(runs / "sfnet-1" / "model")
    compare.main(["score", "tiny", "--runs", str(runs)])
    assert compare.read_rows(table.scores)[:4] == first and len(compare.read_rows(table.scores)) == 5

    run = runs / "sfnet-0"

    def refused(file: str, change: Callable[[str], str], *phrases: str) -> None:
        text = (run / file).read_text()
        assert change(text) != text
        (run / file).write_text(change(text))
        with refuses(str(run), *phrases):
            compare.score_run(table, "sfnet", 0, run, None)
        (run / file).write_text(text)

    refused("metrics.csv", lambda text: text.replace(own["miou"], "99.0000"), "last one 99.00")
    refused("config.yaml", lambda text: text.replace("batch_size: 2", "batch_size: 3"), "batch_size is 3, not 2")
    refused("config.yaml", lambda text: text.replace("fuse: fam", "fuse: add"), "model.fuse is 'add', not 'fam'")
    refused("config.yaml", lambda text: text.replace("devices: 1", "devices: 2"), "devices is 2, not 1")
    refused("config.yaml", lambda text: text.replace(f"pretrained: {weights}", "pretrained: true"), "no weight file")
    refused("config.yaml", lambda text: text.replace(f"pretrained: {weights}", "pretrained: false"), "no weight file")
    with refuses("sfnet-0", "seed is 0, not 1"):
        compare.score_run(table, "sfnet", 1, run, None)
    (run / "commit.txt").unlink()
    with refuses("sfnet-0", "--commit"):
        compare.score_run(table, "sfnet", 0, run, None)
    assert compare.score_run(table, "sfnet", 0, run, "def4567") == {**first[0], "commit": "def4567"}
    weights.rename(weights.with_name("elsewhere.safetensors"))
    with refuses(str(weights), "does not exist"):
        compare.score_run(table, "sfnet", 0, run, "def4567")


@pytest.mark.parametrize("commit", ["HEAD", "main", "abc12", "abc123g", "", "ABC1234", "a" * 41, "abc1234\n"])
def test_a_commit_is_a_hash(compare: Any, commit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        compare.main(["score", "tiny", "--runs", str(tmp_path), "--commit", commit])
    assert "7 to 40 hexadecimal digits" in capsys.readouterr().err


def test_weights_are_a_file(compare: Any, table: Any, tmp_path: Path, refuses: Any) -> None:
    """`true` would be the published weights, of which nobody could say later which they were."""
    with refuses("weight file true does not exist"):
        compare.train_stage(table, tmp_path, "data", "true")
    assert not list(tmp_path.glob("sfnet*"))


def test_a_run_of_another_commit_is_not_continued(
    compare: Any, table: Any, weights: Path, tmp_path: Path, refuses: Any
) -> None:
    run = tmp_path / "sfnet-0"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    (run / "commit.txt").write_text("def4567\n")
    with refuses(str(run), "def4567", "remove"):
        compare.train_stage(table, tmp_path, "data", str(weights))


def test_time(compare: Any, table: Any, refuses: Any) -> None:
    threads = torch.get_num_threads()
    compare.time_stage(table, 2, threads, (64, 96))
    rows = compare.read_rows(table.seconds)
    assert [row["model"] for row in rows] == ["sfnet", "sfnet_add", "smp_fpn"]
    assert all(0 < float(row["seconds"]) <= float(row["p95"]) < 10 for row in rows)
    assert all(row["rounds"] == "2" and row["cpu"] == processor_name(torch.device("cpu")) for row in rows)
    with refuses("rounds is 0"):
        compare.time_stage(table, 0, threads)


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


def test_a_single_distance_has_no_mean(scripts: dict[str, Any], compare: Any, table: Any) -> None:
    measures = scripts["reporting"].measures
    assert measures(dataclasses.replace(table, distances=(3,))) == {"mIoU": ("miou",), "F, 3 px": ("boundary_f_3",)}
    assert measures(table)["F, mean"] == ("boundary_f_3", "boundary_f_5")


def test_report_names_commits_where_there_are_several(
    compare: Any, table: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = compare.recipe_hash()
    rows = [row("sfnet", 0, 60.0, recipe), row("smp_fpn", 0, 60.0, recipe)]
    compare.write_rows(table.scores, rows)
    compare.main(["report", "tiny"])
    assert "abc1234" not in capsys.readouterr().out
    compare.write_rows(table.scores, [*rows, row("sfnet", 1, 60.0, recipe, commit="def4567")])
    compare.main(["report", "tiny"])
    assert "abc1234 (sfnet-0, smp_fpn-0), def4567 (sfnet-1)" in capsys.readouterr().out


def test_report_mixes_no_weights(compare: Any, table: Any, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = compare.recipe_hash()
    other = row("smp_fpn", 0, 60.0, recipe, weights="ba9876543210")
    compare.write_rows(table.scores, [row("sfnet", 0, 60.0, recipe), other])
    with pytest.raises(SystemExit, match="2"):
        compare.main(["report", "tiny"])
    error = capsys.readouterr().err
    assert "0123456789ab (sfnet-0), ba9876543210 (smp_fpn-0)" in error and not table.plot.exists()


def test_peers_segment(compare: Any, table: Any) -> None:
    """By the way of a model of this package, through coarse logits."""
    config = compare.configuration(table.entries["smp_fpn"], 0, "")
    model = config.model.build(11, auxiliary=False).eval()
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)  # no multiples of 32
    segment = Segmenter(model, "cpu")
    with torch.inference_mode():
        labels = model(as_batch(image, segment._normalize, torch.device("cpu"))).argmax(1)[0].numpy()
    assert (segment(image).labels == labels).mean() > 0.99 and len(np.unique(labels)) > 1


def test_report_mixes_no_recipes(compare: Any, table: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for rows, message in (([], "no rows"), ([row("sfnet", 0, 69.0, "other")], "followed recipe other")):
        if rows:
            compare.write_rows(table.scores, rows)
        with pytest.raises(SystemExit, match="2"):
            compare.main(["report", "tiny"])
        assert message in capsys.readouterr().err
    assert not table.plot.exists()


def test_comments_do_not_change_a_recipe(compare: Any) -> None:
    before = compare.recipe_hash()
    compare.tables.RECIPE.write_text(f"# a remark\n{TINY}")
    assert compare.recipe_hash() == before
    compare.tables.RECIPE.write_text(TINY.replace("epochs: 2", "epochs: 3"))
    assert compare.recipe_hash() != before


def test_rows_of_another_table_are_refused(compare: Any, table: Any, tmp_path: Path, refuses: Any) -> None:
    recipe = compare.recipe_hash()
    compare.write_rows(table.scores, [row("sfnet", 0, 60.0, recipe), row("upernet", 0, 60.0, recipe)])
    with refuses(str(table.scores), "rows of upernet"):
        compare.score_stage(table, tmp_path, None)
    compare.write_rows(table.scores, [row("sfnet", 0, 60.0, recipe)])
    with refuses("boundary_f_3, boundary_f_5, the table boundary_f_3;", "score anew"):
        compare.score_stage(dataclasses.replace(table, distances=(3,)), tmp_path, None)


def test_tables(scripts: dict[str, Any]) -> None:
    """Of the repository: what they say can be trained, and a run has one meaning in all."""
    seen: dict[str, str] = {}
    for table in scripts["tables"].TABLES.values():
        for name, entry in table.entries.items():
            assert seen.setdefault(name, entry.flags) == entry.flags, name
            assert entry.base is None or entry.base in table.entries, name
            model = scripts["compare"].configuration(entry, 0, "").model
            assert model.backbone == "tf_efficientnet_lite0"
            assert model.name.startswith("smp_") or model.options["width"] == 64, name


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
