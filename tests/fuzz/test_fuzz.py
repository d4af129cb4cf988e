"""A few hundred inputs of the fuzzer, of which `make fuzz` makes many more; and that it sees what it is to see."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from crispseg import CrispsegError
from fuzz import campaign as campaigns
from fuzz.campaign import FAULTS, KINDS, Campaign
from fuzz.kinds import Case, Kind
from fuzz.mutations import damaged, forged_png, png_chunks, png_of

CASES = 40


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield Campaign(tmp_path_factory.mktemp("sandbox"), 0, None, list(KINDS))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_no_input_does_harm(kind: str, campaign: Campaign) -> None:
    assert campaign.run(kind, 0, CASES) == []
    counts = campaign.counts[kind]
    assert counts["inputs"] == counts["read"] + counts["refused"] == CASES and counts["refused"]


READERS: dict[str, Callable[[Path], Any]] = {
    "tracebacks": lambda file: 1 / 0,
    "hangs": lambda file: time.sleep(5),
    "over 2 GB": lambda file: bytearray(b"x" * 200_000_000),
    "damage accepted": lambda file: file.name,
    "outputs lost": lambda file: file.write_bytes(b"another content"),
    "reached out": lambda file: subprocess.run(["true"], check=True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Faulty(Kind):
        name = "faulty"

        def case(self, random: Random, folder: Path) -> Case:
            (folder / "file").write_bytes(random.randbytes(9))
            sound = {"read": "another digest"} if fault == "damage accepted" else {}
            return Case("a file", {"read": lambda: READERS[fault](folder / "file")}, sound)

    if fault == "over 2 GB" and not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("peaks of memory are not known here")
    monkeypatch.setitem(KINDS, "faulty", Faulty)
    monkeypatch.setattr(campaigns, "SECONDS", 0.2 if fault == "hangs" else 60)
    monkeypatch.setattr(campaigns, "GIGABYTES", 0.1)
    (tmp_path / "sandbox").mkdir()
    one = Campaign(tmp_path / "sandbox", 0, tmp_path / "out", ["faulty"])
    (line,) = one.run("faulty", 3, 1)
    assert line.startswith(f"faulty 3: {fault}: a file: ")
    assert {key for key in FAULTS if one.counts["faulty"][key]} == {fault}
    assert (tmp_path / "out/faulty 0 3/file").is_file() and not any((tmp_path / "sandbox/faulty 3").parent.glob("*3"))


def test_writing_elsewhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    reach = Campaign(tmp_path / "sandbox", 0, None, []).reach
    with reach.watched() as tries:
        (tmp_path / "sandbox/in").mkdir()
        (tmp_path / "sandbox/in/a").write_text("a")
        (tmp_path / "sandbox/in/a").read_text()
        assert tries == []
        (tmp_path / "a").write_text("a")
        (tmp_path / "a").rename(tmp_path / "sandbox/b")
    (tmp_path / "c").touch()
    assert [line.split()[0] for line in tries] == ["open", "os.rename"]


def test_an_input_follows_from_its_number(campaign: Campaign, tmp_path: Path) -> None:
    for name, kind in campaign.kinds.items():
        content = []
        for number in (5, 5, 6):
            folder = tmp_path / f"{name} {len(content)}"
            folder.mkdir()
            kind.case(Random(f"0 {name} {number}"), folder)
            content.append(campaigns.files_of(folder))
        assert content[0] == content[1] != content[2]
    seed = png_of([(b"IHDR", b"\0" * 13), (b"IDAT", b"x\x9c\x03\0\0\0\0\x01"), (b"IEND", b"")])
    assert png_of(list(png_chunks(seed))) == seed
    for make in (forged_png, lambda random, content: damaged(random, content, [content])):
        assert make(Random(1), seed) == make(Random(1), seed)


def test_refusals_are_no_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(Kind):
        name = "refused"

        def case(self, random: Random, folder: Path) -> Case:
            def read() -> None:
                raise CrispsegError("x is broken; restore it")

            return Case("a file", {"read": read}, {"read": "a digest"})

    monkeypatch.setitem(KINDS, "refused", Refused)
    one = Campaign(tmp_path, 0, None, ["refused"])
    assert one.run("refused", 0, 2) == []
    assert "| refused | 2 | 2 | 0 | 0 |" in one.table() and "| all | 2 |" in one.table()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "flags", "end"),
    [
        ("kills", ["--count=2"], "2 kills, "),
        ("full_disks", ["--only", "evaluate"], "1 full disks, 0 where something was wrong"),
    ],
)
def test_the_campaigns_run(script: str, flags: list[str], end: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"fuzz.{script}", *flags, f"--out={tmp_path / 'out'}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(end)
