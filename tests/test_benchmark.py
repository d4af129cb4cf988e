from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crispseg import SegmentationModel, Segmenter, create_model
from crispseg.benchmarking import Report, Settings, benchmark
from crispseg.benchmarking.contenders import find_contender
from crispseg.benchmarking.counting import count_multiply_adds, count_parameters
from crispseg.benchmarking.report import as_json, as_tables, processor_name
from crispseg.benchmarking.run import Deployed
from crispseg.benchmarking.timing import take_turns
from crispseg.cli.main import main

BACKBONE = "test_efficientnet"
SMALL = "sfnet{width: 16}"
CLASSES = 5
HEIGHT, WIDTH = 64, 96
QUICK = Settings((HEIGHT, WIDTH), backbone=BACKBONE, num_classes=CLASSES, threads=1, device="cpu", repeats=2, warmup=0)
FLAGS = [
    *("--size", HEIGHT, WIDTH, "--backbone", BACKBONE, "--num_classes", CLASSES),
    *("--threads", 1, "--device", "cpu", "--repeats", 2, "--warmup", 0),
]

Capture = pytest.CaptureFixture[str]
Refuses = Callable[..., Any]


def error_of(capsys: Capture, *argv: object) -> str:
    """The one line on stderr of a command that must fail."""
    assert main(["benchmark", *map(str, argv)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert not captured.out
    return line.removeprefix("crispseg: error: ")


def find(name: str, **changes: Any) -> Any:
    return find_contender(name, **{"backbone": BACKBONE, "num_classes": CLASSES, **changes})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a saved model of three classes on grey images."""
    folder = tmp_path_factory.mktemp("models") / "saved"
    torch.manual_seed(0)
    create_model("fpn", num_classes=3, backbone="test_resnet", in_chans=1, width=16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def report(saved: Path) -> Report:
    """All kinds of networks, one of them twice."""
    return benchmark([SMALL, "smp:FPN", f"timm:{BACKBONE}", str(saved), SMALL], QUICK)


# What is measured


def test_counts(report: Report, saved: Path) -> None:
    sfnet = create_model("sfnet", num_classes=CLASSES, backbone=BACKBONE, width=16)
    expected = {0: sfnet, 3: SegmentationModel.from_pretrained(saved), 4: sfnet}
    for index, net in expected.items():
        row, channels = report.rows[index], 1 if index == 3 else 3
        assert row.parameters == count_parameters(net)
        assert row.multiply_adds == count_multiply_adds(net, HEIGHT, WIDTH, channels)


def test_rows(report: Report, saved: Path) -> None:
    assert [(row.model, row.backbone, row.num_classes) for row in report.rows] == [
        (SMALL, BACKBONE, CLASSES),
        ("smp:FPN", BACKBONE, CLASSES),
        (f"timm:{BACKBONE}", BACKBONE, None),
        (str(saved), "test_resnet", 3),
        (SMALL, BACKBONE, CLASSES),
    ]
    for row in report.rows:
        parts = {"preprocess", "network"} | ({"postprocess", "total"} if row.num_classes else set())
        assert row.milliseconds.keys() == {"forward", *parts}
        assert all(0 < median <= p95 for median, p95 in row.milliseconds.values())


def test_total_is_the_sum_of_each_round() -> None:
    """Not the sum of the medians."""
    deployed = Deployed(find(SMALL), QUICK, torch.device("cpu"))
    # Read at the start and at the end of every stage.
    clock = iter(np.cumsum([0, 1, 0, 100, 0, 2, 0, 30, 0, 1, 0, 200, 0, 40, 0, 3]).tolist())
    with torch.inference_mode():
        (kept,) = take_turns([deployed], range(2), warmup=0, clock=lambda: next(clock))
    assert kept == [
        {"forward": 1, "preprocess": 100, "network": 2, "postprocess": 30, "total": 132},
        {"forward": 1, "preprocess": 200, "network": 40, "postprocess": 3, "total": 243},
    ]


def test_ratios_are_over_the_first(report: Report) -> None:
    first = report.rows[0]
    assert first.ratio == dict.fromkeys(("parameters", "multiply_adds", "forward", "total"), 1.0)
    for row in report.rows:
        assert row.ratio["parameters"] == row.parameters / first.parameters
        assert row.ratio["multiply_adds"] == row.multiply_adds / first.multiply_adds
        for stage in row.ratio.keys() - {"parameters", "multiply_adds"}:
            assert row.ratio[stage] == row.milliseconds[stage].median / first.milliseconds[stage].median
    assert "total" not in report.rows[2].ratio
    of_backbone = benchmark([f"timm:{BACKBONE}", SMALL], QUICK)
    assert of_backbone.rows[1].ratio.keys() == {"parameters", "multiply_adds", "forward"}
    assert "–" in printed(of_backbone)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_what_is_timed_is_what_a_segmenter_does(dtype: Any) -> None:
    contender = find(SMALL, backbone="mobilenetv3_small_050")  # with random weights, of more than one opinion
    settings = Settings((HEIGHT, WIDTH), device="cpu", dtype=dtype)
    deployed = Deployed(contender, settings, torch.device("cpu"))
    segmenter = Segmenter(contender.net, "cpu", bf16=dtype == "bf16")
    with torch.inference_mode():
        (labels,) = deployed.postprocess(deployed.network(deployed.preprocess(deployed.images)))
    np.testing.assert_array_equal(labels, segmenter(deployed.images[0]).labels)
    assert labels.any()


@pytest.mark.parametrize(
    ("name", "fold", "channels_last"),
    [(SMALL, True, True), (SMALL, False, False), ("smp:FPN", True, False), ("smp:FPN", False, True)],
)
def test_both_ways_to_labels_agree(name: str, fold: bool, channels_last: bool) -> None:
    """The labels of a batch are those of the full logits that `forward` gives."""
    contender = find(name)
    settings = Settings((HEIGHT, WIDTH), batch=2, device="cpu", fold=fold, channels_last=channels_last)
    deployed = Deployed(contender, settings, torch.device("cpu"))
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in deployed.net.modules()) is not fold
    with torch.inference_mode():
        batch = deployed.preprocess(deployed.images)
        logits = deployed.forward(batch)
        labels = deployed.postprocess(deployed.network(batch))
        expected = contender.net.eval()(batch)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert batch.is_contiguous(memory_format=layout) and torch.equal(batch, deployed.batch)
    assert logits.shape == (2, CLASSES, HEIGHT, WIDTH)
    torch.testing.assert_close(logits, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    for one, scores in zip(labels, logits, strict=True):
        assert one.shape == (HEIGHT, WIDTH) and one.dtype == np.uint8
        assert (torch.from_numpy(one) == scores.argmax(0)).float().mean() > 0.99


def test_the_conditions_end_with_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        Deployed, "__call__", lambda self, watch: seen.append(torch.get_num_threads()) or watch("forward", int)
    )
    torch.set_num_threads(2)
    try:
        state = torch.get_rng_state()
        assert benchmark([SMALL], QUICK, clock=itertools.count().__next__).threads == 1
        assert seen == [1, 1] and torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(1)


# What cannot be measured


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"size": (31, 64)}, "size is 31; it should be greater than or equal to 32"),
        ({"batch": 0}, "batch is 0; it should be greater than 0"),
        ({"warmup": -1}, "warmup is -1; it should be greater than or equal to 0"),
        ({"threads": 10**6}, "threads is 1000000; it should be less than"),
        ({"num_classes": 256}, "num_classes is 256; it should be less than or equal to 255"),
        ({"dtype": "fp16"}, "dtype is 'fp16'; it should be 'fp32' or 'bf16'"),
        ({"seed": 2**32}, "seed is 4294967296; it should be less than"),
    ],
)
def test_settings_out_of_range(changes: dict[str, Any], phrase: str, refuses: Refuses) -> None:
    with refuses(phrase):
        Settings(**changes)


@pytest.mark.parametrize("name", ["smp:FPN", "timm:vit_tiny_patch16_224"])
def test_sizes_that_a_network_refuses_are_found_before_the_work(
    name: str, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crispseg.benchmarking.run.Deployed", lambda *_: pytest.fail("measures already"))
    with refuses(f"'{name}' does not run at 65×96", "65", "--size"):
        benchmark(["fpn", name], Settings((65, 96), backbone=BACKBONE, device="cpu"))


def test_a_network_of_one_size() -> None:
    report = benchmark(["timm:test_vit"], Settings((160, 160), device="cpu", repeats=1, warmup=0))
    assert report.rows[0].milliseconds.keys() == {"forward", "preprocess", "network"}


@pytest.mark.parametrize(
    ("what", "error", "phrases"),
    [
        ("Deployed.__call__", MemoryError(), ["more memory", "--size"]),
        ("Deployed.__call__", RuntimeError("[enforce fail] can't allocate memory: 8 bytes"), ["more memory", "--size"]),
        ("Deployed.__call__", RuntimeError("a bug"), []),
        (
            "fold_batch_norms",
            RuntimeError("merging 3 batch norms\nchanged outputs"),
            ["batch norms of 'sfnet", "merging 3 batch norms changed outputs", "--fold false"],
        ),
    ],
)
def test_what_fails_on_the_way(
    what: str, error: Exception, phrases: list[str], refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"crispseg.benchmarking.run.{what}", fail)
    with refuses(*phrases) if phrases else pytest.raises(RuntimeError, match="a bug"):  # which is not hidden
        benchmark([SMALL], QUICK)


# Report and command


def printed(report: Report, width: int = 100) -> str:
    from rich.console import Console

    console = Console(width=width)
    with console.capture() as capture:
        console.print(as_tables(report))
    return capture.get()


def test_tables(report: Report, saved: Path) -> None:
    text = printed(report, 400)  # processors have long names
    for phrase in (
        f"1 image of {HEIGHT}×{WIDTH} (height × width), {CLASSES} classes, backbone {BACKBONE}, fp32",
        "batch norms merged",
        f"channels last, cpu: {processor_name(torch.device('cpu'))}, 1 thread, crispseg",
        f"torch {torch.__version__.partition('+')[0]}",
        "2 rounds after 0 of warm-up",
        f"×: over the baseline, {SMALL}.",
        "timm's networks",
        "(test_resnet, 3 classes)",
    ):
        assert phrase in text, phrase
    first, second = text.split("From images to label maps")
    rows = [line for line in first.splitlines() if line.startswith("│")]
    assert len(rows) == 5 and sum(line.startswith("│") for line in second.splitlines()) == 4
    row = report.rows[0]
    median, p95 = row.milliseconds["forward"]
    counts = [f"{row.parameters / 1e6:.2f}", f"{row.multiply_adds / 1e9:.2f}"]
    cells = [cell.strip() for cell in rows[0].split("│")[1:-1]]
    assert cells == [SMALL, *counts, f"{median:.1f}", f"{p95:.1f}", "1.00"]
    assert "timm:" not in second


def test_json(report: Report) -> None:
    summary = json.loads(json.dumps(as_json(report)))
    assert summary.keys() == {"settings", "processor", "versions", "baseline", "models"}
    assert summary["baseline"] == SMALL and summary["processor"]
    assert summary["versions"].keys() == {"crispseg", "torch", "timm", "segmentation-models-pytorch"}
    settings = summary["settings"]
    assert settings["size"] == [HEIGHT, WIDTH] and settings["threads"] == 1 and settings["device"] == "cpu"
    for row, values in zip(report.rows, summary["models"], strict=True):
        assert values["model"] == row.model and values["parameters"] == row.parameters
        assert values["multiply_adds"] == row.multiply_adds and values["num_classes"] == row.num_classes
        for stage, latency in row.milliseconds.items():
            assert values["milliseconds"][stage] == pytest.approx(latency._asdict(), abs=1e-4)
        assert values["ratio"] == pytest.approx(row.ratio, abs=1e-4)


@pytest.fixture
def given(report: Report, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that the command would measure by."""
    settings: list[Settings] = []
    monkeypatch.setattr("crispseg.cli.benchmark.benchmark", lambda _, given, **__: settings.append(given) or report)
    return settings


def test_command(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "new" / "costs.json"
    assert main(["benchmark", SMALL, "smp:FPN", *map(str, FLAGS), "--json", str(file)]) == 0
    captured = capsys.readouterr()
    assert SMALL in captured.out and "smp:FPN" in captured.out and not captured.err
    assert [row["model"] for row in json.loads(file.read_text())["models"]] == [SMALL, "smp:FPN"]


def test_options_of_models_and_json_on_the_standard_output(capsys: Capture) -> None:
    names = [SMALL, "sfnet:test_resnet {fuse: add, width: 16}"]
    assert main(["benchmark", *names, *map(str, FLAGS), "--json", "-"]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)["models"]
    assert [row["model"] for row in rows] == names
    alone = create_model("sfnet", num_classes=CLASSES, backbone="test_resnet", fuse="add", width=16)
    assert rows[1]["parameters"] == count_parameters(alone)
    assert rows[1]["multiply_adds"] == count_multiply_adds(alone, HEIGHT, WIDTH)
    assert "(test_resnet" not in captured.err  # the name says it
    assert "From images to label maps" in captured.err


def test_flags(given: list[Settings]) -> None:
    assert main(["benchmark", "fpn"]) == 0
    flags = "--size 40 50 --batch 2 --backbone resnet18 --num_classes 7 --threads 1 --device cpu --dtype bf16"
    rest = "--fold false --channels_last false --repeats 4 --warmup 3 --seed 6 --compile true"
    assert main(["benchmark", "fpn", *flags.split(), *rest.split()]) == 0
    expected = Settings((40, 50), 2, "resnet18", 7, 1, "cpu", "bf16", False, False, 4, 3, 6, True)
    assert given == [Settings(), expected]


@pytest.mark.parametrize(
    ("argv", "phrase"),
    [
        ([], "models ("),
        (["sfnett"], "unknown model 'sfnett'; did you mean 'sfnet'?"),
        (["sfnet{fuze: add}"], "no option 'fuze'; did you mean 'fuse'?"),
        (["fpn", "--size", "16", "64"], "size is 16; it should be greater than or equal to 32"),
        (["fpn", "--device", "gpu"], "device 'gpu' cannot be used"),
        (["fpn", "--jsn", "costs.json"], "unknown key --jsn; did you mean 'json'?"),
        (["fpn", "--plugins", "nope.py"], "plugin nope.py is no Python file"),
        (["fpn", "--size", "64", "96", "sfnet"], "'sfnet' belongs to no key; flags are written --key value"),
    ],
)
def test_mistakes(argv: list[str], phrase: str, capsys: Capture) -> None:
    assert phrase in error_of(capsys, *argv)


def test_a_file_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crispseg.cli.benchmark.benchmark", lambda *_, **__: pytest.fail("measures already"))
    (tmp_path / "a.json").mkdir()
    assert f"cannot write the file {tmp_path}" in error_of(capsys, "fpn", "--json", tmp_path / "a.json")
    assert "give a file that ends in .json" in error_of(capsys, "fpn", "--json", tmp_path / "a.png")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda() -> None:
    report = benchmark(["sfnet", "smp:FPN"], Settings((HEIGHT, WIDTH), backbone=BACKBONE, device="cuda", repeats=3))
    assert all(0 < median <= p95 for row in report.rows for median, p95 in row.milliseconds.values())
    assert as_json(report)["processor"] == torch.cuda.get_device_name()
