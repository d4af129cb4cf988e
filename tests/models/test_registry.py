from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from crispseg import create_model, fuses, list_models
from crispseg.errors import CrispsegError
from crispseg.models.registry import model_options

TINY = {"num_classes": 3, "backbone": "test_efficientnet"}


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
        ({"pretrained": "no/such/file.pth"}, ["no/such/file.pth", "does not exist"]),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], phrases: list[str], refuses: Any) -> None:
    with refuses(*phrases):
        create_model(**{"name": "sfnet", **TINY, **options})


def test_the_model_knows_how_it_was_built() -> None:
    model = create_model("fpn", **TINY, width=8, fuse="fam", auxiliary=True)
    info = model.info
    assert (info.name, info.num_classes, info.backbone, info.in_chans) == ("fpn", 3, "test_efficientnet", 3)
    assert info.options["width"] == 8
    assert info.options["fuse"] == "fam"
    assert "auxiliary" not in info.options  # for training only
    assert info.label_set().names == ("class 0", "class 1", "class 2")


def test_a_name_is_taken_once() -> None:
    with pytest.raises(CrispsegError, match="already registered"):
        fuses.register("fam")(nn.Identity)


@pytest.mark.parametrize("name", list_models())
def test_every_option_of_a_model_is_explained(name: str) -> None:
    """`crispseg train --model NAME --help` takes its text from here."""
    assert [key for key, option in model_options(name).items() if not option.about] == []
