"""Settings of any origin: what a text means, which values are refused, and which key was meant."""

import dataclasses
import doctest
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import crispseg.config.settings
from crispseg import CrispsegError
from crispseg.config.settings import Text, checked
from crispseg.config.yaml_files import parse_yaml, read_yaml
from crispseg.data import Augment, Folder
from crispseg.errors import CrispsegWarning
from crispseg.inference.protocols import Protocol
from crispseg.training import TrainConfig


def test_examples() -> None:
    assert doctest.testmod(crispseg.config.settings).failed == 0


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int | None, "null", None),
        (str, "null", "null"),
        (str | None, "5", "5"),
        (Path, "2020-01-01", Path("2020-01-01")),
        (bool | str, "false", False),
        (bool | str, "weights.pth", "weights.pth"),
        (int | tuple[int, int] | Literal["auto"], "64", 64),
        (int | tuple[int, int] | Literal["auto"], "[64, 96]", (64, 96)),
        (int | tuple[int, int] | Literal["auto"], "auto", "auto"),
        (float, "1e-3", 1e-3),
        (int | str | None, "1:30", "1:30"),
        (list[str], "[on, no, 010, 1:30, 2020-01-01]", ["on", "no", "010", "1:30", "2020-01-01"]),
        (list[float], "0.5", [0.5]),
        (list[Literal["tensorboard", "wandb"]] | None, "wandb", ["wandb"]),
        (list[str] | str | Path | None, "[background, road]", ["background", "road"]),
        (list[str] | str | Path | None, "classes.txt", "classes.txt"),
        (list[str] | Path | None, "classes.txt", Path("classes.txt")),
        (dict[str, float] | str, "{dice: 1}", {"dice": 1}),
        (dict[str, float] | str, "dice", "dice"),
        (Literal["true", "predicted"], "true", "true"),
    ],
)
def test_a_text_means_what_its_type_takes(kind: Any, text: str, value: Any) -> None:
    result = checked(kind, Text(text), "key")
    assert result == value and type(result) is type(value)


@given(
    st.text(st.characters(exclude_characters="\0")).filter(str.strip) | st.integers().map(str) | st.floats().map(str)
)
def test_any_text_is_a_path_or_a_name(text: str) -> None:
    result = checked(str, Text(text), "key")
    assert result == text or result == parse_yaml(text)  # a quoted text


@pytest.mark.parametrize(("text", "phrase"), [("", "is empty"), (" ", "is empty"), ("a\0", "a null character")])
def test_no_text_and_null_characters_are_refused(text: str, phrase: str, refuses: Any) -> None:
    for kind in (str, Path | None):
        with refuses("key", phrase):
            checked(kind, Text(text), "key")


def test_a_backslash_before_x00_is_no_null_character() -> None:
    path = r"D:\data\x001"
    assert checked(str, path, "key") == path and checked(list[str], [path], "key") == [path]
    for value in (f"{path}\0", "\\\0"):
        with pytest.raises(CrispsegError, match="a null character"):
            checked(list[str], [value], "key")


@pytest.mark.parametrize("settings", [TrainConfig, Augment, Protocol])
@pytest.mark.parametrize("value", ["nonsense", -1.5, ["nonsense", 1], {"nonsense": [1]}, object])
def test_a_value_that_cannot_be_names_its_field(settings: Any, value: object) -> None:
    required = {"data": Folder("images", "masks")} if settings is TrainConfig else {}
    refused = 0
    for field in dataclasses.fields(settings):
        if field.name == "data":  # whose type may be anybody's
            continue
        try:
            settings(**{**required, field.name: value})
        except CrispsegError as error:
            refused += 1
            assert field.name in str(error.field or error) and "\n" not in str(error)
    assert refused >= 5


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Augment(0), "augment.crop is 0; give a number greater than 0"),
        (lambda: Augment(foo=1), "augment.foo is not a known key"),
        (lambda: Folder("a", 3), "data.masks is 3; give text, a path or null"),
        (lambda: Folder(rot="a"), "data.rot is not a known key; did you mean 'data.root'?"),
        (lambda: TrainConfig(foo=1), "foo is not a known key"),
        (lambda: Augment(scale=(1, 1e39)), "augment.scale is 1e+39; give a number less"),
        (lambda: TrainConfig(Folder("a", "b"), batch_size=10**12), "batch_size is 1000000000000; give a number less"),
        (lambda: TrainConfig(Folder("a", "b"), iterations=10**400), "iterations is 1000"),
        (lambda: TrainConfig(Folder("a", "b"), minutes=1e300), "minutes is 1e+300; give a number less"),
        (lambda: TrainConfig(), "data is missing; give "),
        (lambda: TrainConfig(Folder("a", "b"), iterations=True), "iterations is true; give a whole number"),
        (lambda: Augment(scale=(True, 2)), "augment.scale is [true, 2]; give a list of 2"),
        (lambda: checked(int | None, Text("true"), "key"), "key is true; give a whole number or null"),
        (lambda: checked(list[float], [1, False], "key"), "key is [1, false]; give a list"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(make: Any, line: str) -> None:
    with pytest.raises(CrispsegError) as caught:
        make()
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_messages_escape_control_characters() -> None:
    for kind in (CrispsegError, CrispsegWarning):
        assert str(kind("a\nb\x1b[31m.png is broken")) == r"a\nb\x1b[31m.png is broken"


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("lr: 1\nseed: 2\nlr: 3\n", ["'lr' is given twice"]),
        ("data: {name: folder, name: camvid}", ["'name'"]),
        ("lr: [", ["is not a YAML file"]),
        ("- a", ["has no settings"]),
        ("out: \udcff", ["is not a YAML file"]),
        (None, ["is missing"]),
    ],
)
def test_files_that_are_no_settings(text: str | None, phrases: list[str], tmp_path: Path, refuses: Any) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with refuses(str(path), *phrases):
        read_yaml(path)
