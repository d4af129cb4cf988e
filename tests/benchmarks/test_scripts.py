"""The measurements in benchmarks/: what they compare is equal, and they print it. Nothing is timed."""

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
    ours, peer = (create_model(system, num_classes=2, backbone="tf_efficientnet_lite0") for system in ("fpn", name))
    assert peer.backbone.early_share == ours.backbone.early_share > 0
    for model in (ours, peer):
        model.backbone.freeze(early=True)
    body, encoder = ours.backbone.net.model, peer.net.encoder.model
    for key, parameter in encoder.named_parameters():
        assert parameter.requires_grad == body.get_parameter(key).requires_grad, key
    kept = {key: value.clone() for key, value in encoder.named_buffers()}
    peer.train()(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(kept[key], value) for key, value in encoder.named_buffers())


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
