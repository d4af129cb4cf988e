"""Whatever is wrong with a value of a key, one line says which key it is, what was given and what is accepted."""

from __future__ import annotations

import dataclasses
import re
from argparse import Action
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import error_of

from crispseg import CrispsegError, list_models
from crispseg.cli import evaluate, inspect, predict
from crispseg.cli.mistakes import keys_of
from crispseg.cli.parsing import Parser, parse_training
from crispseg.config.wording import accepted
from crispseg.data import DATA_SOURCES, Augment, Nuclei
from crispseg.data.catalogue import catalogue
from crispseg.inference.protocols import Protocol
from crispseg.io.images import write_image
from crispseg.training import Run, TrainConfig

Capture = pytest.CaptureFixture[str]

JARGON = re.compile(
    r"Union|ubtype|alidat|NoneType|ypehint|amespace|Literal|Expected|Optional|<class|typing|\w\[|Parser|argument|"
    r"pydantic|\binstance\b|invalid|Error|None\b.*null|\bstr\b|\bint\b|\bfloat\b|\bbool\b"
)
"""What only programmers understand."""
WRONG = (
    "nonsense",
    "-1.5",
    "[nonsense, 1]",
    "[1, 2, 3, 4, 5]",
    "{nonsense: [1]}",
    "{nonsense: nonsense}",
    "[[1], [2]]",
)


class Captured(BaseException):
    """Carries a parser."""


def parser_of(monkeypatch: pytest.MonkeyPatch, command: Any, *argv: str) -> Parser:
    """The parser that a command makes."""

    def stop(self: Parser, argv: Any) -> NoReturn:
        raise Captured(self)

    with monkeypatch.context() as patch, pytest.raises(Captured) as caught:
        patch.setattr(Parser, "parse", stop)
        command(list(argv))
    found = caught.value.args[0]
    assert isinstance(found, Parser)
    return found


def train(argv: list[str]) -> None:
    parse_training(argv, {}, prog="crispseg train", description="")


def refusal(parser: Parser, key: str, *value: str) -> str | None:
    """The line that a flag gets, if it gets one."""
    try:
        parser.parse([f"--{key}", *value])
    except CrispsegError as error:
        return str(error)
    return None


def flags(parser: Parser) -> dict[str, Action]:
    """The keys with values."""
    known = {key: action for key, action in keys_of(parser).items() if action.option_strings and action.nargs != 0}
    return {key: action for key, action in known.items() if not key.endswith("+")}


CASES = [
    *((train, f"--model={name}") for name in list_models()),
    *((train, f"--data={name}") for name in DATA_SOURCES),
    *((command, "") for command in (train, predict.run, evaluate.run, inspect.run)),
]


@pytest.mark.parametrize(("command", "choice"), CASES)
def test_every_key_says_what_it_takes(command: Any, choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = parser_of(monkeypatch, command, *([choice] if choice else []))
    for action in parser._actions:
        action.required = False  # else that alone is told
    parser.required_args = set()
    group = choice.removeprefix("--").partition("=")[0]  # the other keys are the same of every model and all data
    keys = {key: action for key, action in flags(parser).items() if key.startswith(group)}
    assert len(keys) >= 2
    for key, action in keys.items():
        refused = {value: line for value in WRONG if (line := refusal(parser, key, value))}
        for value, line in refused.items():
            assert line.startswith(f"{key} is {value}; give ") and not JARGON.search(line.partition(";")[2]), line
        takes_text = "str" in str(getattr(action, "_typehint", str)) or "Path" in str(getattr(action, "_typehint", ""))
        assert takes_text or refused, key
        if action.nargs not in ("*", "?"):
            line = refusal(parser, key) or ""
            assert line.startswith(f"{key} has no value; give ") and not JARGON.search(line), line


@pytest.mark.parametrize("settings", [TrainConfig, Augment, Protocol])
def test_every_value_of_python_is_told_in_words(settings: Any) -> None:
    for field in dataclasses.fields(settings):
        for value in ("nonsense", -1.5, ["nonsense", 1], {"nonsense": [1]}, object):
            if field.name == "data":  # whose type may be anybody's
                continue
            try:
                settings(**({"data": Nuclei()} if settings is TrainConfig else {}), **{field.name: value})
            except CrispsegError as error:
                line = str(error)
                assert field.name in line.lower() and "\n" not in line
                assert not JARGON.search(line.partition(";")[2].replace("'nonsense'", "")), line


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("--augment.crop a", "augment.crop is a; give a whole number, a list of two whole numbers, auto or null, such"),
        ("--augment.scale 1", "augment.scale is 1; give a list of two numbers, such as [0.8, 1.25]"),
        ("--epochs many", "epochs is many; give a whole number or null"),
        ("--deterministic maybe", "deterministic is maybe; give true or false"),
        ("--deterministic", "deterministic has no value; give true or false"),
        ("--loss.dice a", "loss.dice is a; as an entry of loss it should be a number"),
        ("--loss [1]", "loss is [1]; give a mapping from names to numbers or text, such as {cross_entropy: 1.0}"),
        ("--optimizer adam", "optimizer is adam; give one of sgd, adamw"),
        ("--loggers wandb", "loggers is wandb; give a list of any of (tensorboard, wandb) or null, such as "),
        ("--lr_drops 0.5 0.7", "lr_drops is 0.5 0.7; write a list in one piece: --lr_drops '[0.5, 0.7]'"),
        ("--epochs 5 6", "epochs is 5 6, more than one value; give a whole number or null"),
        ("--print_config now", "'now' belongs to no key; flags are written --key value"),
        ("--classes a", "unknown key --classes; did you mean 'data.classes'?"),
        ("--data.images a", "data.images and data.masks belong together: give both, or data.root"),
        ("--data aerial", "--data.root (folder with images and masks) is missing; the root of aerial holds images/"),
        ("--data folder --images a", "unknown key --images; did you mean 'data.images'?"),
        ("--images a --masks b", "unknown key --images; did you mean 'data.images'?"),
        (
            ". masks",
            "'masks' is one path too many; images and masks in two folders are --data.images . --data.masks ma",
        ),
        ("--modle fpn", "unknown key --modle; did you mean 'model'?"),
        ("photoos", "photoos is missing; give a folder of data, or a YAML file of settings"),
        ("--device cuda", "unknown key --device; did you mean 'accelerator'?"),
        ("", "there are no data; give their folder, as in 'crispseg train photos'"),
        ("--crop 64", "unknown key --crop; did you mean 'augment.crop'?"),
        ("--data folder", "there are no data; give data.root, or data.images and data.masks"),
        ("--model", "model.name has no value; give text: the system, crisp, "),
    ],
)
def test_what_people_read(argv: str, line: str, capsys: Capture) -> None:
    assert error_of(capsys, "train", *re.findall(r"\[.*?\]|\S+", argv)).startswith(f"crispseg: error: {line}")


def test_the_wrong_one_of_two_values_is_told(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "config.yaml").write_text("lr: many\n")
    line = error_of(capsys, "train", tmp_path / "config.yaml", "--lr", "5")
    assert line.startswith("crispseg: error: lr is many; give a number")


def test_classes_that_are_no_file(tmp_path: Path, capsys: Capture) -> None:
    folders = tmp_path / "images", tmp_path / "masks"
    for folder in folders:
        folder.mkdir()
        for name in ("a.png", "b.png"):
            (folder / name).touch()
    data = ["--data=folder", *(f"--data.{folder.name}={folder}" for folder in folders), f"--out={tmp_path / 'run'}"]
    data.append("--model.pretrained=false")
    line = error_of(capsys, "train", *data, "--data.classes", "3")
    assert "data.classes is 3, which is no file" in line and "--data.num_classes 3" in line
    line = error_of(capsys, "train", *data, "--data.classes", "road,sky")
    assert "data.classes is road,sky, which is no file; give '[background, road]', or a text file" in line


def test_a_folder_in_place_of_a_name(tmp_path: Path, capsys: Capture) -> None:
    line = error_of(capsys, "train", "--data", tmp_path)
    assert line == f"crispseg: error: data is {tmp_path}; say --data folder --data.images {tmp_path} --data.masks MASKS"
    (tmp_path / "images").mkdir()
    line = error_of(capsys, "train", "--data", tmp_path)
    said = (
        f"give it without --data, as in 'crispseg train {tmp_path}' or 'crispseg evaluate RUN {tmp_path}', or say "
        f"--data folder --data.root {tmp_path}"
    )
    assert line == f"crispseg: error: data is {tmp_path}; {said}"


def test_a_second_path_and_an_image(tmp_path: Path, capsys: Capture) -> None:
    folders = tmp_path / "photos", tmp_path / "masks"
    said = "images and masks in two folders are --data.images {} --data.masks {}".format(*folders)
    assert error_of(capsys, "doctor", *folders) == f"crispseg: error: '{folders[1]}' is one path too many; {said}"
    image = tmp_path / "photo.jpg"
    write_image(image, np.zeros((32, 32, 3), np.uint8))
    line = error_of(capsys, "train", image)
    assert line == f"crispseg: error: {image} is an image; give a folder of images and masks"


def test_annotations_that_are_no_pictures(tmp_path: Path, capsys: Capture) -> None:
    write_image(tmp_path / "images/a.png", np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances.json").write_text("{}")
    (tmp_path / "images/a.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "images"):  # COCO's, and labelme's beside an image
        line = error_of(capsys, "train", folder)
        assert line.endswith("it holds JSON files: 'crispseg data import' makes masks of those of COCO and labelme")


def test_a_folder_behind_flags(tmp_path: Path, capsys: Capture) -> None:
    said = f"'{tmp_path}' stands after a flag; put it first: crispseg train {tmp_path} --key value"
    for flags in (["--minutes", "30"], ["--augment.crop", "64"], ["--print_config"]):
        assert error_of(capsys, "train", *flags, tmp_path) == f"crispseg: error: {said}"


@pytest.mark.parametrize("name", [name for name, entry in catalogue().items() if entry.layout])
def test_public_data_without_a_root_say_where_they_are_to_be_had(name: str, capsys: Capture) -> None:
    if name == "nuclei":
        return  # a part comes with crispseg
    argv = ["aerial"] if name == "aerial" else ["nuclei", "--data", name]
    line = error_of(capsys, "evaluate", *argv)
    assert "--data.root (" in line and line.endswith(f" is missing; {catalogue()[name].layout.hint}")


def test_a_checkpoint_in_place_of_a_run(tiny_run: Run, capsys: Capture) -> None:
    checkpoint = tiny_run.folder / "checkpoints/best.ckpt"
    line = error_of(capsys, "evaluate", checkpoint)
    assert line.endswith(f"{checkpoint} is a file; give the run itself, {tiny_run.folder}")
    other = tiny_run.folder / "config.yaml"
    assert "give the folder of a finished run or saved model" in error_of(capsys, "evaluate", other)


def test_a_square_crop() -> None:
    config = parse_training(["--data=nuclei", "--augment.crop", "64"], {}, prog="crispseg train", description="")
    assert config.augment == Augment(crop=64) and config.augment.window == (64, 64)
    assert Augment(crop=(64, 96)).window == (64, 96) and Augment(crop=None).window is None
    with pytest.raises(CrispsegError, match=r"augment\.crop is 16; models need at least 32"):
        TrainConfig(Nuclei(), augment=Augment(crop=16))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int | None, "a whole number or None"),
        (bool | str | Path, "true or false or a path"),
        (tuple[int, ...] | Literal["all"], "a list of whole numbers or all, such as [64]"),
        (dict[str, float] | str, "a mapping from names to numbers or text, such as {name: 0.5}"),
        (list[tuple[int, int, int]], "a list of lists of three whole numbers, such as [[64, 64, 64]]"),
    ],
)
def test_types_in_words(kind: Any, words: str) -> None:
    assert accepted(kind) == words


@given(
    st.recursive(st.sampled_from([int, float, str, bool]), lambda kind: kind.map(lambda one: list[one]), max_leaves=4)
)
def test_the_words_of_lists_have_no_types(kind: Any) -> None:
    assert not JARGON.search(accepted(kind).partition(",")[0])
