"""Options of models, and what the frame does for all models alike, shown on one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from crispseg import create_model, from_pretrained, list_models
from crispseg.benchmarking.cost import count_multiply_adds, count_parameters
from crispseg.models import DDSM, FlowAlignment
from crispseg.models.registry import model_options

from .test_baselines import TestFPN as Base

TINY: dict[str, Any] = {"num_classes": 3, "backbone": "test_efficientnet", "width": 16}
WRONG_TYPES = {"flow_kernel": 4, "flow_net": [], "fuse_levels": 5, "context": None}
NO_SQUARES = {"pixels": 10, "channels": 10, "reduced": 24}
ENDLESS: list[tuple[str, dict[str, Any]]] = [
    ("sfnet", {"refine_steps": 100_000, "refine": "boundary"}),
    ("sfnet", {"width": 10**7}),
    ("sfnet", {"flow_reach": 5000, "flow_net": "correlation"}),
    ("ddsm_upernet", {"downsampled": 500}),
    ("ddsm_upernet", {"pooled": 10**6}),
    ("agln", {"descriptors": 10**6}),
    ("unept", {"layers": 10**6}),
    ("unept", {"dropout": 1.5}),
]


@pytest.mark.parametrize(
    ("options", "phrases"),
    [
        ({"name": "sfnett"}, ["unknown model 'sfnett'", "did you mean 'sfnet'?"]),
        ({"backbone": "resnet81"}, ["unknown backbone 'resnet81'", "did you mean 'resnet"]),
        ({"contxt": "ppm"}, ["model 'sfnet' has no option 'contxt'", "did you mean 'context'?"]),
        ({"context": "pmp"}, ["unknown context part 'pmp'", "did you mean 'ppm'?"]),
        ({"fuse": "warp"}, ["unknown fuse part 'warp'", "fam"]),
        ({"merge": "conkat"}, ["unknown merge part 'conkat'", "did you mean 'concat'?"]),
        *(({"num_classes": value}, [f"num_classes is {value}", "2 to 255"]) for value in (-1, 1, 256)),
        *(({"width": value}, ["width", str(value)]) for value in (0, -4)),
        *(({"in_chans": value}, [f"in_chans is {value}"]) for value in (0, -1, 10**6)),
        ({"name": "deeplabv3plus", "output_stride": 0}, ["option 'output_stride'", "is 0", "16, 8"]),
        ({"pretrained": "no/such/file.pth"}, ["no/such/file.pth", "does not exist"]),
        *(({"fuse_levels": levels}, [f"fuse_levels is {levels}", "of 3, 4, 5"]) for levels in ([2], [3, 4, 5, 6])),
        ({"backbone": "df1", "fuse_levels": [3, 4]}, ["fuse_levels is [3, 4]", "some of 4, 5"]),  # which has no F2
        *(({key: value}, [key, "of model 'sfnet' is"]) for key, value in WRONG_TYPES.items()),
        ({"refine": "edges"}, ["refine is edges", "auto, boundary"]),
        ({"refine_path": "bent"}, ["refine_path is bent", "chained, straight"]),
        *(({"name": "ddsm_upernet", key: value}, [str(value)]) for key, value in NO_SQUARES.items()),
        ({"name": "agln", "descriptors": 0}, ["option 'descriptors' of model 'agln' is 0"]),
        ({"name": "unept", "width": 20}, ["width is 20", "multiple of 8"]),
        ({"name": "unept", "levels": 2}, ["option 'levels'", "one of"]),
        ({"name": "crisp", "inference_scale": 5}, ["inference_scale", "is 5; give a number less than or equal to 4"]),
        ({"name": "crisp", "fuse_options": {"flow_coordinates": "paper"}}, ["needs align_corners"]),
        ({"name": "sfnet_lite", "merge": "sum"}, ["C4 is not", "merge=concat"]),
        # Options of parts
        ({"fuse": "ddsm", "fuse_options": {"pixel": 9}}, ["no option 'pixel'; did you mean 'pixels'"]),
        ({"fuse": "add", "flow_kernel": 5}, ["'flow_kernel' is an option of fuse part 'fam'"]),
        ({"fuse_options": {"flow_kernel": 2}}, ["'flow_kernel' of fuse part 'fam' is 2"]),
        ({"flow_kernel": 5, "fuse_options": {"flow_kernel": 7}}, ["'flow_kernel' is given both directly and"]),
        ({"name": "fpn", "fuse_options": {"pixels": 9}}, ["fuse part 'add' has no option 'pixels'; it has none"]),
        ({"context": "conv", "context_options": {"rates": [1]}}, ["context part 'conv' has no option 'rates'"]),
        ({"name": "deeplabv3plus", "fuse_options": {"pixels": 9}}, ["fuse part 'concat' has no option 'pixels'"]),
        # Settings of a saved model that would hang or fill the memory
        *(({"name": name, **wrong}, [next(iter(wrong))]) for name, wrong in ENDLESS),
        *(({"context": "aspp", "context_options": {"rates": rates}}, ["'rates'"]) for rates in ([0], [-1], [9] * 99)),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], phrases: list[str], refuses: Any) -> None:
    with refuses(*phrases):
        create_model(**{"name": "sfnet", **TINY, **options})


@pytest.mark.parametrize("name", list_models())
def test_every_option_of_a_model_is_explained(name: str) -> None:
    """`crispseg train --model NAME --help` takes its text from here."""
    assert [key for key, option in model_options(name).items() if not option.about] == []


@pytest.mark.parametrize("call", ["forward", "outputs", "logits"])
def test_images_that_no_model_takes_are_refused(call: str, refuses: Any) -> None:
    run = getattr(Base.reference(), call)
    for height, width in ((31, 64), (64, 31), (1, 1)):
        with refuses(f"{height}×{width}", "at least 32"):
            run(torch.randn(1, 3, height, width))
    for images in (torch.randn(3, 64, 64), torch.randn(1, 4, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)):
        with refuses("float images (N, 3, H, W)", str(tuple(images.shape)), "crispseg.Segmenter"):
            run(images)


def test_auxiliary_heads_are_in_no_count() -> None:
    plain, model = Base.build(), Base.build(auxiliary=True)
    assert len([*model.parameters()]) > len([*plain.parameters()])
    assert count_parameters(model) == count_parameters(plain)
    assert count_multiply_adds(model, 64, 64) == count_multiply_adds(plain, 64, 64)


@pytest.mark.parametrize("name", ["fpn", "upernet", "sfnet", "deeplabv3plus"])
def test_options_reach_the_part(name: str) -> None:
    model = create_model(name, **TINY, fuse="ddsm", fuse_options={"pixels": 9, "affinity": "spatial", "reduced": 4})
    parts = [module for module in model.modules() if isinstance(module, DDSM)]
    assert parts and all(part.channel is None and part.spatial.affinity.sampler.points == 9 for part in parts)  # type: ignore[union-attr]
    expected = {"pixels": 9, "channels": 9, "affinity": "spatial", "reduced": 4, "pooled": 8, "downsampled": 16}
    assert expected.items() <= model.info.options["fuse_options"].items()


def test_a_system_has_the_options_of_its_own_part() -> None:
    """Given beside the others or in `fuse_options`, they mean the same, and are saved beside the others."""
    given: tuple[dict[str, Any], ...] = {"flow_kernel": 5}, {"fuse_options": {"flow_kernel": 5}}
    flat, nested = (create_model("sfnet", **TINY, **options) for options in given)
    assert flat.info.options == nested.info.options and "fuse_options" not in flat.info.options
    parts = [module for module in nested.modules() if isinstance(module, FlowAlignment)]
    assert len(parts) == 3 and all(part.predict_flow.kernel_size == (5, 5) for part in parts)
    assert {"pixels", "channels", "affinity", "reduced"} <= model_options("ddsm_upernet").keys()


def test_context_and_merge_parts_have_options_too(tmp_path: Path) -> None:
    context: dict[str, Any] = {"context": "aspp", "context_options": {"rates": [2, 3]}}
    model: Any = create_model("upernet", **TINY, **context, merge="aligned", merge_options={"flow_kernel": 1})
    assert [branch[0].dilation for branch in model.decoder.context.branches] == [(1, 1), (2, 2), (3, 3)]
    assert all(fam.predict_flow.kernel_size == (1, 1) for fam in model.decoder.merge.fams)
    model.save_pretrained(tmp_path)
    loaded = from_pretrained(tmp_path)
    assert loaded.info.options == json.loads(json.dumps(model.info.options))
    images = torch.randn(1, 3, 40, 33)
    assert torch.equal(loaded(images), model.eval()(images))
