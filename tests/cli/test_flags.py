"""The words of a command line as a tree of settings."""

from pathlib import Path
from typing import Any, Literal

import pytest

from crispseg import CrispsegError
from crispseg.cli.command import read_flags
from crispseg.config.settings import Field, Text

KINDS: dict[str, Any] = {"out": Path, "bf16": bool, "flip": bool | None, "size": tuple[int, int], "only": list[str]}
KINDS |= {"names": list[str] | Path, "crop": int | tuple[int, int] | Literal["auto"] | None}
KINDS |= {"scales": list[float] | None, "boundary": list[int] | None, "loss": dict[str, float] | str}
KNOWN = {key: Field(kind, None, "") for key, kind in KINDS.items()}


@pytest.mark.parametrize(
    ("line", "words", "tree"),
    [
        ("a --out b c", ["a", "c"], {"out": "b"}),
        ("--out=b a", ["a"], {"out": "b"}),
        ("-o b", [], {"out": "b"}),
        ("--out -", [], {"out": "-"}),
        ("--batch-size 4 --lr=-1 --power -2.5", [], {"batch_size": "4", "lr": "-1", "power": "-2.5"}),
        ("--bf16 a", ["a"], {"bf16": "true"}),
        ("--bf16 false a", ["a"], {"bf16": "false"}),
        ("--flip --bf16", [], {"flip": "true", "bf16": "true"}),
        ("--size 3 4 a", ["a"], {"size": ["3", "4"]}),
        ("--crop 64 96 a", ["a"], {"crop": ["64", "96"]}),
        ("--crop auto 64", ["64"], {"crop": "auto"}),
        ("--scales 0.5 1e0 a", ["a"], {"scales": ["0.5", "1e0"]}),
        ("--scales [0.5,1] 2", ["2"], {"scales": "[0.5,1]"}),
        ("--boundary --out b", [], {"boundary": [], "out": "b"}),
        ("--boundary a", ["a"], {"boundary": []}),
        ("run --only x y --bf16", ["run"], {"only": ["x", "y"], "bf16": "true"}),
        ("--names n.txt run", ["run"], {"names": "n.txt"}),
        ("--out a --out b", [], {"out": "b"}),
        ("--loss.dice 0.5 --model.residual", [], {"loss.dice": "0.5", "model.residual": "true"}),
    ],
)
def test_words_and_flags(line: str, words: list[str], tree: dict[str, Any]) -> None:
    result = read_flags(line.split(), KNOWN)
    assert result == (words, tree)
    values = [entry for value in result[1].values() for entry in (value if isinstance(value, list) else [value])]
    assert all(isinstance(entry, Text) for entry in values)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        *((line, "has no value; ") for line in ("--out", "--out --bf16", "--crop", "--unknown", "--crop --out a")),
        ("--crop 64x64 a", "is 64x64; "),
        ("--crop 64,96", "is 64,96; "),
        ("--crop -inf", "is -inf; "),
        ("--out -b a", "is -b; .* write --out=-b$"),
    ],
)
def test_a_flag_without_a_value(line: str, fault: str) -> None:
    with pytest.raises(CrispsegError, match=fault) as caught:
        read_flags(line.split(), KNOWN)
    assert caught.value.field == line.split()[0].removeprefix("--")
