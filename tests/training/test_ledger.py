"""Licences of all that a model descends from, through training, saving, export and distillation."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Capture, output_of
from contract.test_official import official
from drawn import draw
from timm.models import get_pretrained_cfg
from training_runs import DRAWN, quietly, tiny

import crispseg
from crispseg import SegmentationModel, create_model
from crispseg.backbones.light import SHUFFLENET
from crispseg.backbones.pyramid import NAMED_BACKBONES
from crispseg.backbones.weights import bundled_weights, read_state_dict, weights_licence
from crispseg.config.yaml_files import RECIPES, read_yaml
from crispseg.data import DATA_SOURCES, Folder
from crispseg.data.catalogue import catalogue
from crispseg.errors import CrispsegWarning
from crispseg.export.pipeline import export_model
from crispseg.inference.runtime import open_model
from crispseg.io.images import write_image
from crispseg.licences import CODE, NOT_STATED, UNKNOWN, Licence
from crispseg.models.info import ModelInfo
from crispseg.models.official import RELEASE, convert_official
from crispseg.models.saving import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, shipped_folder, shipped_models
from crispseg.recipes import PAPERS, read_rows
from crispseg.training import ModelConfig, Run

pytestmark = pytest.mark.usefixtures("without_pictures")

LITE = "tf_efficientnet_lite0"


def entries(info: ModelInfo) -> list[tuple[str, str]]:
    return [(entry.name, entry.licence) for entry in info.licences]


def weights_of(folder: str | Path, name: str, licence: str) -> Licence:
    return Licence.of_file(name, licence, Path(folder) / WEIGHTS_FILE)


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that starts from a bundled model, with data whose licence is given."""
    data = replace(DRAWN, licence="CC-BY-4.0")
    out = tmp_path_factory.mktemp("ledger") / "fine"
    return quietly(tiny(out, model=ModelConfig.of("nuclei"), data=data, init_from="nuclei", epochs=1))


@pytest.mark.slow
def test_a_fine_tuned_model_carries_its_ledger_into_copies_files_and_students(fine_tuned: Run, tmp_path: Path) -> None:
    nuclei, ledger = shipped_folder("nuclei"), fine_tuned.model.info.licences
    assert nuclei and {*CODE, weights_of(nuclei, "nuclei", "Apache-2.0")} < {*ledger}
    expected = [("folder", "CC-BY-4.0"), (LITE, "apache-2.0"), ("nuclei", "CC0"), ("nuclei", "Apache-2.0")]
    assert entries(fine_tuned.model.info)[2:] == expected
    fine_tuned.model.save_pretrained(tmp_path / "saved")
    assert SegmentationModel.from_pretrained(tmp_path / "saved").info.licences == ledger
    card = (tmp_path / "saved" / CARD_FILE).read_text()
    assert all(str(licence) in card for licence in ledger)

    file = tmp_path / "model.onnx"
    export_model(fine_tuned.model, file, "onnx", size=(64, 96))
    assert open_model(file).info.licences == ledger
    write_image(tmp_path / "more/a.png", draw(7, 64, 96)[0])
    student = quietly(
        tiny(tmp_path / "student", teacher=str(file), unlabelled=str(tmp_path / "more"), epochs=1)
    ).model.info
    teacher = Licence.of_file(file.name, NOT_STATED, file)
    assert {*ledger, teacher} < {*student.licences}
    assert {("unlabelled images", NOT_STATED), ("folder", NOT_STATED)} < {*entries(student)}


def test_a_resumed_run_keeps_its_ledger_without_the_parent(tiny_run: Run, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    shutil.copytree(tiny_run.folder / "model", parent)
    config = tiny(tmp_path / "run", init_from=str(parent), epochs=1)
    ledger = quietly(config).model.info.licences
    assert weights_of(parent, "parent", NOT_STATED) in ledger
    shutil.rmtree(parent)
    assert quietly(replace(config, epochs=2), resume=True).model.info.licences == ledger


def test_models_of_before_have_neither_ledger_nor_temperature(tiny_run: Run, tmp_path: Path) -> None:
    assert [entry.kind for entry in tiny_run.model.info.licences] == ["code", "code", "data"]
    folder = tmp_path / "old"
    shutil.copytree(tiny_run.folder / "model", folder)
    config = json.loads((folder / CONFIG_FILE).read_text())
    del config["licences"], config["temperature"]
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    model = SegmentationModel.from_pretrained(folder)
    model.save_pretrained(folder)
    assert model.info.licences == () == SegmentationModel.from_pretrained(folder).info.licences
    assert model.info.temperature == 1 and "temperature" not in (folder / CONFIG_FILE).read_text()


def test_licences_that_bar_a_use_are_named_once(tmp_path: Path) -> None:
    barring = ["CC BY-NC-SA 4.0, after registration", "cc-by-nc-4.0", "non-commercial research, after registration"]
    barring += ["fair-noncommercial-research-license", "AGPL-3.0"]
    licences = [*barring, "CC-BY-4.0", "GPL-3.0", NOT_STATED]
    model = create_model("fpn", num_classes=2, backbone="test_efficientnet", width=8)
    ledger = (*model.info.licences, *(Licence("data", "streets", licence) for licence in licences))
    model.info = replace(model.info, licences=ledger)
    with pytest.warns(CrispsegWarning) as warned:
        model.save_pretrained(tmp_path)
    (text,) = [str(warning.message) for warning in warned]
    assert [licence for licence in licences if f"streets: {licence};" in text] == barring
    assert text.count("streets: ") == len(barring)


def test_weights_of_backbones(tmp_path: Path) -> None:
    bundled = create_model("fpn", num_classes=2, backbone=LITE, pretrained=True, width=8)
    assert entries(bundled.info) == [("crispseg", "Apache-2.0"), ("timm", "Apache-2.0"), (LITE, "apache-2.0")]
    file = tmp_path / "mine.pth"
    torch.save(read_state_dict(bundled_weights(LITE) or ""), file)
    own = create_model("fpn", num_classes=2, backbone=LITE, pretrained=file, width=8)
    assert own.info.licences[-1] == Licence.of_file(LITE, NOT_STATED, file)
    assert weights_licence(SHUFFLENET, True).licence == UNKNOWN


def test_converted_checkpoints(tmp_path: Path) -> None:
    file = tmp_path / "official.pth"
    torch.save(official("sfnet_df1")[1], file)
    *_, weights, data = convert_official(file).info.licences
    assert weights == Licence.of_file("official.pth", "MIT", file, RELEASE)
    assert data.licence == UNKNOWN
    cityscapes = DATA_SOURCES["cityscapes"](root=".").ledger_entry
    assert cityscapes.licence == catalogue()["cityscapes"].licence
    assert cityscapes in convert_official(file, data=cityscapes).info.licences


def test_all_that_the_package_names_has_a_licence(capsys: Capture) -> None:
    sources = [source for source in DATA_SOURCES.values() if source is not Folder]
    assert {*catalogue()} == {source.name for source in sources}
    assert all(entry.licence and entry.home.startswith("http") for entry in catalogue().values())
    named: set[Any] = {row.model.get("backbone") for paper in PAPERS for row in read_rows(paper)} | {LITE}
    for file in RECIPES.rglob("*.yaml"):
        data = read_yaml(file).get("data", {})
        assert data.get("name", "nuclei") in catalogue()
    for name in named - {None, *NAMED_BACKBONES}:
        assert get_pretrained_cfg(name).license
    printed = output_of(capsys, "list", "--pretrained")
    for name in shipped_models():
        info = crispseg.models.saving.read_info(name)
        assert {"code", "weights", "data"} == {entry.kind for entry in info.licences}
        assert all(f"{entry.name}: {entry.licence}" in printed for entry in info.licences)
