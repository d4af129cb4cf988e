"""The measurements in benchmarks/: what they compare is equal, and they print it. Nothing is timed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from crispseg.config.registry import load_plugins
from crispseg.models import create_model

Script = Callable[[str], Any]


@pytest.mark.parametrize(
    ("name", "options", "giga"), [("fpn", {}, "124.589"), ("fcn", {"output_stride": 8}, "196.748")]
)
def test_the_counter_of_mmcv_gives_table_8(name: str, options: dict[str, Any], giga: str, script: Script) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=59, backbone="resnet101_deep", **options)
    assert f"{script('counts').count_in_modules(model, 480, 480) / 1e9:.3f}" == giga


@pytest.fixture
def plugin() -> Iterator[None]:
    pytest.importorskip("segmentation_models_pytorch")
    load_plugins([str(Path(__file__).resolve().parents[2] / "benchmarks/peers.py")])
    yield
    for name in [name for name in sys.modules if name.startswith("crispseg_plugin_peers_")]:
        del sys.modules[name]  # so that it is loaded again


@pytest.mark.parametrize("name", ["smp_fpn", "lraspp"])
def test_the_same_weights_of_peers_are_frozen(name: str, plugin: None) -> None:
    ours, peer = (create_model(each, num_classes=2, backbone="tf_efficientnet_lite0") for each in ("fpn", name))
    assert peer.backbone.early_share == ours.backbone.early_share > 0
    for model in (ours, peer):
        model.backbone.freeze(early=True)
    body, encoder = ours.backbone.net.model, peer.net.encoder.model
    for key, parameter in encoder.named_parameters():
        assert parameter.requires_grad == body.get_parameter(key).requires_grad, key
    kept = {key: value.clone() for key, value in encoder.named_buffers()}
    peer.train()(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(kept[key], value) for key, value in encoder.named_buffers())


# The tables on CamVid ------------------------------------------------------------------------------------------------


def row(model: str, seed: int, miou: float, recipe: str, **changes: str) -> dict[str, str]:
    scores = {"miou": str(miou), "boundary_f_3": str(miou + 5), "boundary_f_5": str(miou + 9)}
    costs = {"parameters": "4200000", "multiply_adds": "5100000000"}
    return {"model": model, "seed": str(seed), **scores, **costs, "recipe": recipe, "weights": "0123", **changes}


def test_report(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, refuses: Any) -> None:
    tables, reporting = script("tables"), script("reporting")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "PLOTS", tmp_path)
    entries = {
        "sfnet": tables.Entry("SFNet", base="sfnet_add"),
        "sfnet_add": tables.Entry("no flow", "--model.fuse add"),
        "smp_fpn": tables.Entry("FPN", "--model smp_fpn"),
    }
    table, recipe = tables.Comparison("tiny", entries, (3, 5)), reporting.recipe_hash(tables.RECIPE)
    rows = [row("sfnet", 0, 60.0, recipe, boundary_f_5=""), row("sfnet", 1, 71.0, recipe)]
    rows += [row("sfnet_add", 0, 61.5, recipe), row("sfnet_add", 1, 67.0, recipe, boundary_f_5="79.0")]
    reporting.write_rows(table.scores, [*rows, row("smp_fpn", 0, 60.0, recipe, boundary_f_5="")])
    reporting.report(table)
    printed = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    sfnet, _, fpn, gain = (
        next(line for line in printed if line[0].startswith(name)) for name in ("SFNet", "no", "FPN", "SFNet −")
    )
    assert sfnet == ["SFNet", "2", "65.5 ± 7.8", "70.5 ± 7.8", "80.0", "78.0", "4.2", "5.1"]
    assert fpn[1:6] == ["1", "60.0", "65.0", "nan", "nan"] and gain[1:3] == ["2", "+1.2 (-33.7 to +36.2)"]
    assert gain[3:] == ["+1.2 (-33.7 to +36.2)", "+1.0", "+2.5"]
    assert table.plot.stat().st_size > 5000
    reporting.write_rows(table.scores, [*rows, row("smp_fpn", 0, 60.0, "earlier")])
    reporting.report(table)
    printed = capsys.readouterr().out
    assert "1 rows of earlier recipes" in printed and "FPN" not in printed
    reporting.write_rows(table.scores, [*rows, row("smp_fpn", 0, 60.0, recipe, weights="4567")])
    with refuses("smp_fpn-0"):
        reporting.report(table)


@pytest.mark.slow
def test_tables_of_the_repository(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: None
) -> None:
    """What they list can be trained, a run has one meaning in all, and rows of their recipes are shown."""
    tables, compare, reporting = script("tables"), script("compare"), script("reporting")
    monkeypatch.setattr(tables, "PLOTS", tmp_path)
    seen: dict[str, str] = {}
    for table in tables.TABLES.values():
        for name, entry in table.entries.items():
            assert seen.setdefault(name, entry.flags) == entry.flags, name
            assert entry.base is None or entry.base in table.entries, name
            assert compare.configuration(table, entry, 0, Path()).model.backbone == "tf_efficientnet_lite0"
        if any(row["recipe"] == reporting.recipe_hash(table.recipe) for row in reporting.read_rows(table.scores)):
            reporting.report(table)
