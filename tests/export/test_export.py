import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
import torch
from commands import error_of, small_files
from models.base import ODD, SQUARES, ModelTester, Squares
from PIL import Image
from torch import Tensor
from torch.export import Dim

import crispseg
from crispseg import SegmentationModel, Segmenter, create_model, list_models
from crispseg.cli.main import main
from crispseg.export.certificate import CHECKED, compare, measure, smooth_images
from crispseg.export.formats import FILE_FORMATS, float_file, save_onnx
from crispseg.export.gathered_rows import GRID_SAMPLERS
from crispseg.export.pipeline import export_model
from crispseg.export.plan import ExportPlan, Precision, describe, graph_of
from crispseg.export.quantization import Calibration
from crispseg.inference.runtime import ExportedModel, open_model, open_onnx, open_openvino

NAMES = ("sky", "road", "person")
SMALL = ((1, 32, 57), (2, 33, 40), (1, 64, 48))
PALETTE = ((128, 128, 128), (128, 64, 128), (64, 64, 0))


def build(name: str = "fpn", **options: Any) -> SegmentationModel:
    model = create_model(name, num_classes=3, backbone="test_efficientnet", width=8, **options)
    recipe = {"data": {"images": "/home/somebody/photos"}}
    model.info = replace(model.info, class_names=NAMES, palette=PALETTE, recipe=recipe, metrics={"miou": 62.5})
    return model.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "model"
    build().save_pretrained(folder)
    return folder


def fake_exporter(
    monkeypatch: pytest.MonkeyPatch,
    model: SegmentationModel,
    change: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> None:
    """torch.export in no time: a file of one word whose logits are the model's, changed; compared on small images."""
    monkeypatch.setattr("crispseg.export.plan.CHECKED", SMALL)

    def write(plan: ExportPlan, path: Path) -> ExportedModel:
        path.write_bytes(b"exported")
        return ExportedModel(lambda images: change(model(images)), describe(plan.model.info), path)

    replace_writer(monkeypatch, "torch_export", write)


def replace_writer(monkeypatch: pytest.MonkeyPatch, form: Any, write: Any) -> None:
    monkeypatch.setitem(FILE_FORMATS, form, replace(FILE_FORMATS[form], write=write))


SFNET, CRISP = ({"name": name, "fuse_levels": [5]} for name in ("sfnet", "crisp"))  # one flow, or another fuse part
KINDS: dict[str, dict[str, Any]] = {  # together they have every operator of all backbones, models and parts
    "TensorFlow's padding, CARAFE": {
        **CRISP,
        "backbone": "tf_mobilenetv3_small_minimal_100",
        "fuse": "carafe",
    },
    "a backbone that pads inside, DySample": {**CRISP, "backbone": "test_convnext", "fuse": "dysample"},
    "a transformer, FADE": {**CRISP, "backbone": "test_vit", "fuse": "fade"},
    "rotary embeddings": {"backbone": "eva02_tiny_patch14_224", "inference_scale": 1.33},
    "SAPA": {**CRISP, "fuse": "sapa"},
    "non-local, nearest, aligned": {**SFNET, "context": "nonlocal", "flow_upsampling": "nearest", "merge": "aligned"},
    "criss-cross attention, correlation, deconvolution": {
        **SFNET,
        "context": "crisscross",
        "flow_net": "correlation",
        "flow_reach": 1,
        "flow_upsampling": "deconvolution",
    },
    "ASPP, DCN": {**SFNET, "context": "aspp", "fuse": "dcn"},
    "asymmetric non-local block": {"name": "fcn", "context": "apnb"},
    "sharp_flow": {"name": "crisp", "fuse": "sharp_flow", "inference_scale": 1.5},
    "DDSM": {"name": "ddsm_upernet", "width": 24, "reduced": 16, "pixels": 9, "fuse_levels": [5]},
    "AGLN": {"name": "agln", "descriptors": 6, "connection": "dense"},
    "UN-EPT": {"name": "unept", "points": 4, "levels": 1, "layers": 1, "design": "paper", "refine": "boundary"},
}


def of_kind(kind: str, learned: bool = False) -> SegmentationModel:
    options = {**KINDS[kind]}

    class Tester(ModelTester):
        name = options.pop("name", "fpn")
        backbone = options.pop("backbone", ModelTester.backbone)

    model = Tester.build_learned(**options) if learned else Tester.build_lively(**options)
    return model.requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_files_agree_with_the_model_at_every_size(kind: str, tmp_path: Path) -> None:
    model = of_kind(kind)
    plan = ExportPlan(model)
    program = plan.trace()
    save_onnx(plan, program, tmp_path / "model.onnx")
    for run in (open_onnx(tmp_path / "model.onnx")[0], program.module()):
        for size in ((1, 33, 57), (2, 97, 160), (1, 130, 32)):
            comparison = compare(run, model, size)
            assert comparison.agrees, comparison
            assert comparison.difference < 1e-4 * comparison.largest


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["DDSM", "UN-EPT"])
def test_files_of_gathered_rows(kind: str, tmp_path: Path) -> None:
    """In every runtime: sampling is slow in one, and was found to be wrong in another. Opset 19 is for older ones."""
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("openvino")
    model, path = of_kind(kind), tmp_path / "model.onnx"
    plan = ExportPlan(model, sampling="gather")
    program = plan.trace()
    save_onnx(plan, program, path)
    written = onnx.load(path)
    assert not {"GridSample"} & {node.op_type for node in written.graph.node}
    assert [opset.version <= 19 for opset in written.opset_import if not opset.domain] == [True]
    for run in (open_onnx(path)[0], open_openvino(path)[0], program.module()):
        for size in ODD:
            comparison = compare(run, model, size)
            assert comparison.difference < 1e-4 * max(1, comparison.largest), comparison


TINY: dict[str, Any] = {"num_classes": 3, "backbone": "test_efficientnet", "width": 8}
SAMPLERS: list[dict[str, Any]] = [
    {"name": "unept", "points": 4, "levels": 1},
    {"name": "ddsm_upernet", "reduced": 16, "pixels": 9, "fuse_levels": [5]},
    {"name": "crisp", "refine": "boundary"},
    {"name": "fpn", "fuse": "dysample"},
]
"""Models with one of several equal levels, and further parts that sample."""


WHOLE = [{"name": name} for name in list_models() if name not in ("unept", "ddsm_upernet")]


@pytest.mark.slow
@pytest.mark.parametrize("options", [*WHOLE, *SAMPLERS], ids=str)
def test_default_files_of_no_model_have_grid_sample(options: dict[str, Any]) -> None:
    """Files of ONNX, OpenVINO and ExecuTorch are made of this graph."""
    (sampling,) = {FILE_FORMATS[form].sampling for form in ("onnx", "openvino", "executorch")}
    program = ExportPlan(create_model(**TINY, **options), sampling=sampling, size=(64, 96)).trace()
    assert not {*GRID_SAMPLERS} & {node.target for node in program.graph.nodes}


SOURCES = str(Path(crispseg.__file__).parent).encode()
LIMITS = {"fp32": (99.9, 0.1, 0.1), "bf16": (97, 2, 6), "int8": (90, 6, 6)}
"""Percent of equal labels, and points of mIoU and of boundary F that may be lost. Networks have learned for a second,
on small images, where a class of some pixels moves a mean."""


@pytest.mark.slow
def test_every_format_in_every_precision(tmp_path: Path) -> None:
    """OpenVINO's and those of 8 bits are made of the ONNX file that is there."""
    pytest.importorskip("nncf")
    model = of_kind("sharp_flow", learned=True)
    labels = model(smooth_images((1, 97, 160), model.info.in_chans)).argmax(1)
    assert labels.unique().numel() > 1, "agreement on a single class would prove nothing"
    save_onnx(ExportPlan(model), ExportPlan(model).trace(), tmp_path / "model.onnx")
    checked = ("onnx", "fp32"), ("torch_export", "fp32")
    for (form, kind), precision in product(FILE_FORMATS.items(), get_args(Precision)):
        if (form, precision) in checked or precision in kind.unsupported or kind.one_size or kind.output != "logits":
            continue
        path = tmp_path / f"{precision}{kind.suffix}"
        shutil.copy(tmp_path / "model.onnx", float_file(path))
        file = kind.write(ExportPlan(model, precision, data=SQUARES), path)
        measured = measure(model, file, SQUARES)
        least, *lost = LIMITS[precision]
        assert measured.labels >= least, (form, precision, measured)
        for pair, points in zip((measured.miou, measured.boundary_f), lost, strict=True):
            assert pair.model - pair.file <= points, (form, precision, measured)
        comparison = compare(file, model, (2, 97, 160))
        assert comparison.agrees if precision == "fp32" else comparison.difference > 0  # it is in fewer bits indeed
        assert form != "torch_export" or SOURCES not in path.read_bytes()  # nobody is told where it was made


@pytest.mark.slow
def test_the_model_stays_as_it_is() -> None:
    model = build(auxiliary=True).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    program = ExportPlan(model).trace()
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any("auxiliary" in name or "running_mean" in name for name in program.state_dict)


TENSORRT = """
Add And AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv DepthToSpace Div Equal Expand
Flatten Floor Gather Gemm GlobalAveragePool Greater GreaterOrEqual GridSample HardSigmoid HardSwish Identity Less
LessOrEqual MatMul Max MaxPool Min Mod Mul Neg Not Or Pad Pow Range ReduceMax ReduceMean ReduceSum Relu Reshape Resize
Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Transpose Unsqueeze Where
"""
"""Of docs/operators.md of onnx/onnx-tensorrt for TensorRT 10.15, opsets 9 to 24: what a network here may need."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone"), [("crisp", "resnet18_deep"), ("sfnet_lite", "stdc1")])
def test_the_graph_has_operators_of_tensorrt_only(name: str, backbone: str, tmp_path: Path) -> None:
    """And uses them as the table's restrictions allow. No engine is built."""
    onnx = pytest.importorskip("onnx")
    model = create_model(name, num_classes=3, width=8, backbone=backbone)
    save_onnx(ExportPlan(model), ExportPlan(model).trace(), tmp_path / "model.onnx")
    assert compare(open_onnx(tmp_path / "model.onnx")[0], model, (1, 33, 57)).agrees
    loaded = onnx.load(tmp_path / "model.onnx")
    ((domain, opset),) = {(entry.domain, entry.version) for entry in loaded.opset_import}
    assert domain == "" and 9 <= opset <= 24 and not loaded.functions
    assert {node.op_type for node in loaded.graph.node} <= {*TENSORRT.split()}
    fixed = {tensor.name for tensor in loaded.graph.initializer}
    seen = []
    for node in loaded.graph.node:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        seen.append(node.op_type)
        if node.op_type == "GridSample":
            corners, outside = (0, b"border") if name == "crisp" else (1, b"zeros")
            assert given == {"align_corners": corners, "mode": b"bilinear", "padding_mode": outside}
        if node.op_type == "Resize":
            assert given["mode"] == b"linear"
            assert given["coordinate_transformation_mode"] in (b"align_corners", b"pytorch_half_pixel", b"half_pixel")
            assert (given.get("antialias", 0), given["keep_aspect_ratio_policy"]) == (0, b"stretch")
        if node.op_type.startswith("Reduce"):
            assert node.input[1] in fixed
        if node.op_type in ("MaxPool", "AveragePool"):
            assert {*given.get("dilations", [1])} == {1} and len(node.output) == 1
    assert seen.count("GridSample") == (2 if name == "sfnet_lite" else 3)


@pytest.mark.slow
@pytest.mark.parametrize(("form", "name"), [("onnx", "model.onnx"), ("torch_export", "model.pt2")])
def test_export(form: str, name: str, saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / name
    assert main(["export", str(saved), "--format", form, "--out", str(out)]) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    *lines, last = shown.out.splitlines()
    for line, size in zip(lines, CHECKED, strict=False):
        assert line.startswith(f"compared with the model at {'×'.join(map(str, size))}: largest difference ")
        assert line.endswith("% equal labels")
    assert last.startswith("fpn on test_efficientnet") and last.endswith(f"is in {out}")
    assert {path.name for path in out.parent.iterdir()} == {name, f"{name}.json"}
    content = out.read_bytes()
    assert str(Path(crispseg.__file__).parent).encode() not in content and b"somebody" not in content

    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(out)
        for (end,), tensor in ((session.get_inputs(), "images"), (session.get_outputs(), "logits")):
            assert (end.name, end.type) == (tensor, "tensor(float)")
            assert end.shape == ["batch", 3, "height", "width"]
        record = json.loads(session.get_modelmeta().custom_metadata_map["crispseg"])
    else:
        extra = {"crispseg.json": ""}
        torch.export.load(out, extra_files=extra)
        record = json.loads(extra["crispseg.json"])
    assert (record["name"], record["class_names"], record["ignore_label"]) == ("fpn", [*NAMES], 255)
    assert (record["crispseg_version"], record["format_version"]) == (crispseg.__version__, 2)
    assert record["metrics"] == {"miou": 62.5} and "recipe" not in record
    assert "RGB in 0 to 1 - mean" in record["images"] and "at least 32" in record["images"]


@pytest.mark.slow
def test_labels_are_those_of_the_logits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a network that samples, by gathered rows unless told otherwise, as far as the image that is predicted."""

    class Tester(ModelTester):
        name = "crisp"
        options: ClassVar = {"width": 16, "fuse_levels": [5]}

    Tester.build_learned().save_pretrained(tmp_path / "model")
    paths = {output: tmp_path / f"{output}.onnx" for output in ("logits", "labels")}
    for output, path in paths.items():
        flags = [f"--output={output}", f"--out={path}"]
        flags += ["--triton"] if output == "labels" else []
        assert main(["export", str(tmp_path / "model"), *flags]) == 0
        shown = capfd.readouterr().out
        assert ("largest difference" in shown) == (output == "logits") and "% equal labels" in shown
        assert b"GridSample" not in path.read_bytes()
    record = json.loads((tmp_path / "labels.onnx.json").read_text())
    assert all(entry["difference"] is None and entry["same_labels"] > 0.999 for entry in record["comparisons"])
    images = smooth_images((2, 131, 197), 3)
    logits, labels = (open_model(path)(images) for path in paths.values())
    assert labels.dtype == torch.uint8 and labels.unique().numel() > 1
    assert (labels == logits.argmax(1)).float().mean() >= 0.9999
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8)).save(tmp_path / "a.png")
    for output, path in paths.items():
        assert main(["predict", str(path), str(tmp_path / "a.png"), "--out", str(tmp_path / output)]) == 0
    of_logits, of_labels = (np.asarray(Image.open(tmp_path / output / "a.png")) for output in paths)
    assert (of_logits == of_labels).mean() >= 0.9999
    assert (tmp_path / "config.pbtxt").exists()


@pytest.mark.slow
def test_a_file_for_one_size_neither_pads_nor_crops(tmp_path: Path, refuses: Any) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "one.onnx"
    export_model(create_model("crisp_s", num_classes=3, backbone="test_efficientnet"), path, "onnx", size=(64, 96))
    record = json.loads(path.with_name("one.onnx.json").read_text())
    assert [entry["size"] for entry in record["comparisons"]] == [[2, 64, 96]]
    opened = open_model(path)
    assert opened.size == (64, 96)
    with refuses("64×96", "size 64 64"):
        opened(torch.zeros(1, 3, 64, 64))
    graph = onnx.load(path).graph
    assert [side.dim_value for side in graph.input[0].type.tensor_type.shape.dim] == [1, 3, 64, 96]
    assert sum(node.op_type == "Resize" for node in graph.node) == 4  # of three flows and of the logits


def nan_in_one_pixel(logits: Tensor) -> Tensor:
    logits[0, 0, 3, 4] = math.nan
    return logits


def fails(logits: Tensor) -> Tensor:
    raise RuntimeError("no operator\nof that name")


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda logits: logits.roll(1, dims=2), "has different results"),
        (nan_in_one_pixel, "has different results"),
        (lambda logits: logits[..., 1:], "cannot be exported to"),
        (fails, "RuntimeError: no operator of that name"),
    ],
)
def test_a_file_that_disagrees_is_not_left_behind(
    change: Any, phrase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any
) -> None:
    model = build()
    fake_exporter(monkeypatch, model, change)
    with refuses("fpn on test_efficientnet", str(tmp_path / "new.pt2"), phrase):
        export_model(model, tmp_path / "new.pt2", "torch_export")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.pt2").write_text("earlier")
    with refuses(phrase):
        export_model(model, tmp_path / "old.pt2", "torch_export")
    assert (tmp_path / "old.pt2").read_text() == "earlier"
    fake_exporter(monkeypatch, model)
    certificate = export_model(model, tmp_path / "old.pt2", "torch_export")
    assert [comparison.size for comparison in certificate.comparisons] == [*SMALL]
    assert certificate.measured is None
    assert (tmp_path / "old.pt2").read_text() == "exported"


def test_a_network_for_one_size_is_refused_for_all(refuses: Any) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + torch.zeros(97, 130)

    images = smooth_images((2, 97, 130), 3)
    with refuses("give size"):
        graph_of(Fixed(), images, {2: Dim("height", min=64), 3: Dim("width", min=64)})
    assert torch.equal(graph_of(Fixed(), images, {}).module()(images), images)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: Path, capsys: Any) -> None:
    fake_exporter(monkeypatch, build())
    with small_files(3):
        line = error_of(capsys, "export", saved, "--format=torch_export", f"--out={tmp_path / 'model.pt2'}")
    assert str(tmp_path / "model.pt2") in line and os.strerror(errno.EFBIG) in line
    assert list(tmp_path.iterdir()) == []


def test_int8_needs_all_sizes(tmp_path: Path, refuses: Any) -> None:
    model = create_model("fpn", num_classes=5, backbone="test_efficientnet", width=8)
    data = Calibration(Squares(2, 0), Squares(2, 1))
    with refuses("leave out size"):
        export_model(model, tmp_path / "a.onnx", "onnx", precision="int8", data=data, size=(64, 96))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, refuses: Any) -> None:
    model = build()
    model.classifier.weight.data[0] = math.nan
    with refuses("classifier.weight", "not finite"):
        export_model(model, tmp_path / "model.pt2", "torch_export")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--format onxx --out a.onnx", "onxx"),
        ("--format onnx --out a.pt2", "a.pt2"),
        ("--format onnx --out a.onnx --precision bf16", "bf16"),
        ("--format torch_export --out a.pt2 --precision int8 --calibrate nuclei", "int8"),
        ("--format onnx --out a.onnx --precision int8", "data"),
        ("--format onnx --out a.onnx --max_drop 1", "data"),
        ("--out a.onnx --size 16 64", "at least 32"),
        ("--out a.onnx --size 64 96 --triton", "leave out size"),
        ("--format deepness --out a.onnx --pixel_size=0.5m", "size is None"),
        ("--format deepness --out a.onnx --pixel_size=0.5m --size 64 96", "needs a square"),
        ("--format deepness --out a.onnx --size 64 64", "pixel_size"),
        ("--format deepness --out a.onnx --size 64 64 --pixel_size=0.5px", "m, km"),
        ("--format deepness --out a.onnx --size 64 64 --pixel_size=0.5m --output=labels", "leave out output"),
        ("--out a.onnx --size 64 64 --pixel_size=0.5m", "pixel_size"),
    ],
)
def test_mistakes_are_one_line(
    flags: str,
    named: str,
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(saved), *flags.split()]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("crispseg: error: ") and named in line
    assert list(tmp_path.iterdir()) == []


def test_files_of_torch_export_are_not_read(tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "model.pt2").write_bytes(b"PK\3\4")
    with refuses("model.pt2"):
        Segmenter(tmp_path / "model.pt2")
