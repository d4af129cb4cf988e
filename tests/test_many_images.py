"""`crispseg predict --resume` and `--shard`: every image once, whatever ends the processes that share a folder."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import error_of, output_of
from training_runs import files, of_many_opinions

from crispseg.cli.main import main
from crispseg.errors import CrispsegError
from crispseg.inference import Segmentation, Segmenter, manifest
from crispseg.inference.gathering import gather
from crispseg.inference.manifest import Share
from crispseg.io.images import write_image

Capture = pytest.CaptureFixture[str]
FORK = multiprocessing.get_context("fork")
NAMES = ("a", "b", "c", "d", "sub/a", "sub/b", "sub/c")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    of_many_opinions(3).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index, name in enumerate(NAMES):
        noise = np.random.default_rng(index).integers(0, 256, (5, 6, 3), np.uint8)
        write_image(tmp_path / f"in/{name}.png", noise.repeat(8, axis=0).repeat(8, axis=1))
    return tmp_path / "in"


@pytest.fixture
def whole(model: Path, photos: Path, tmp_path: Path, capsys: Capture) -> dict[str, bytes]:
    """What an undisturbed run without any of this writes."""
    output_of(capsys, "predict", model, photos, "--out", tmp_path / "whole")
    return contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder) if not name.startswith("manifest")}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in folder.glob("manifest-*") for row in manifest.rows(path)]


def test_each_name_is_in_one_share(refuses: Any) -> None:
    names = [f"image/{number:05}" for number in range(3000)]
    shares = [Share.parse(f"{number}/3") for number in (1, 2, 3)]
    parts = [{name for name in names if name in share} for share in shares]
    assert sum(map(len, parts)) == 3000 and set.union(*parts) == {*names}
    assert all(900 < len(part) < 1100 for part in parts)
    assert all(name in Share() for name in names)
    for text in ("0/3", "4/3", "1", "1/0", "one/3", "-1/3"):
        with refuses(f"--shard is {text}", "1/3"):
            Share.parse(text)


def test_the_same_command_goes_on(
    model: Path, photos: Path, whole: dict[str, bytes], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    save = Segmentation.save

    def counted(self: Segmentation, folder: Path) -> Any:
        saved.append(self.name)
        if len(saved) == 4:
            raise KeyboardInterrupt
        return save(self, folder)

    out = tmp_path / "out"
    argv = ["predict", str(model), str(photos), "--out", str(out), "--resume"]
    monkeypatch.setattr(Segmentation, "save", counted)
    assert main(argv) == 130
    assert f"3 of 7 images are segmented in {out}; the same command goes on" in capsys.readouterr().err
    with (out / "manifest-1-of-1.jsonl").open("a") as file:
        file.write('{"name": "sub/a", "fil')  # what a process leaves that is killed in that moment
    (out / "b.png").unlink()
    (out / "c_overlay.png").write_bytes(b"half")
    assert f"7 of 7 images segmented into {out}, 1 of them before" in output_of(capsys, *argv)
    assert saved[4:] == ["b", "c", "d", "sub/a", "sub/b", "sub/c"]
    assert contents(out) == whole
    seen = {row["name"]: row for row in rows(out)}
    assert set(seen) == {*NAMES} and {row["model"] for row in seen.values()} == {seen["a"]["model"]}
    sums = {name: (size, digest) for row in seen.values() for name, (size, digest) in row["files"].items()}
    assert sums == {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in whole.items()}
    assert all(row["seconds"] > 0 and row["settings"] == {} for row in seen.values())
    output_of(capsys, *argv)
    assert len(saved) == 10


def test_other_settings_or_another_model_are_refused(
    model: Path, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    argv = ["predict", photos, "--out", tmp_path / "out"]
    output_of(capsys, *argv[:1], model, *argv[1:], "--resume", "--protocol=whole", "--device=cpu")
    line = error_of(capsys, *argv[:1], model, *argv[1:], "--resume", "--flip=true")
    assert "manifest-1-of-1.jsonl has results of settings {}, not {'flip': True}" in line and "another folder" in line
    other = tmp_path / "other"
    of_many_opinions(4).save_pretrained(other)
    assert "has results of model" in error_of(capsys, *argv[:1], other, *argv[1:], "--shard=1/2")


def share_of(argv: list[str], kill_at: int) -> None:
    """A process that is killed when it is about to put its n-th file in place."""
    replace, calls = Path.replace, []

    def replaced(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = replaced  # type: ignore[method-assign]
    os._exit(main(argv))


def test_three_processes_that_are_killed(
    model: Path, photos: Path, whole: dict[str, bytes], tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    for kill_at in (1, 2, 3, 0):
        processes = [
            FORK.Process(
                target=share_of,
                args=(["predict", str(model), str(photos), f"--out={out}", f"--shard={number}/3"], kill_at),
            )
            for number in (1, 2, 3)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(300)
        if kill_at in (1, 2):
            assert -signal.SIGKILL in {process.exitcode for process in processes}
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert contents(out) == whole
    assert sorted(row["name"] for row in rows(out)) == sorted(NAMES)
    assert {path.name for path in out.glob(".*")} == set()
    assert "7 of 7 images segmented" in output_of(capsys, "predict", model, photos, "--out", out, "--shard=1/1")
    assert sorted(row["name"] for row in rows(out)) == sorted(NAMES)  # of three shares, all of which count


def test_a_list_and_what_cannot_be_read(model: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(photos / "a.png", tmp_path / "e.png")
    (photos / "d.png").write_bytes(b"no picture")
    (photos / "list.txt").write_text(f"a.png\nsub/a.png\n\n a.png \nmissing.png\nd.png\n{tmp_path / 'e.png'}\n")
    out = tmp_path / "out"
    argv = ["predict", str(model), str(photos / "list.txt"), f"--out={out}", "--resume"]
    for before in ("", ", 3 of them before"):
        assert main(argv) == 2
        captured = capsys.readouterr()
        assert f"3 of 5 images segmented into {out}{before}\n" in captured.out
        assert "2 of 5 images could not be read" in captured.err and "missing.png does not exist" in captured.err
    assert set(contents(out)) == {f"{name}{end}.png" for name in ("a", "sub/a", "e") for end in ("", "_overlay")}
    assert {
        row["name"] for row in rows(out) if "broken" in row.get("error", "") or "format" in row.get("error", "")
    } == {"d"}
    for name in ("d", "missing"):
        shutil.copy(photos / "b.png", photos / f"{name}.png")
    assert "5 of 5 images segmented" in output_of(capsys, *argv)


@pytest.mark.parametrize("content", [b"a.png\n/\n", b"\xff\xfe\x00"])
def test_a_list_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(CrispsegError, match=r"a path a line|one a line"):
        gather([str(tmp_path / "list.txt")])


def test_objects_of_each_image_are_written(model: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    argv = ["predict", model, photos / "sub", "--out", tmp_path / "out", "--objects", "class 1", "--shard=1/1"]
    line = output_of(capsys, *argv)
    assert line == f"3 of 3 images segmented into {tmp_path / 'out'}\n"
    ends = (".png", "_overlay.png", "_objects.png", "_objects.csv")
    assert set(contents(tmp_path / "out")) == {f"{name}{end}" for name in "abc" for end in ends}
    assert all(len(row["files"]) == 4 for row in rows(tmp_path / "out"))


@pytest.mark.parametrize(
    ("flags", "phrase"),
    [
        (["--resume"], "--resume needs the folder to go on in; add --out FOLDER"),
        (["--shard=1/2"], "--shard needs the folder to go on in; add --out FOLDER"),
        (["--shard=3/2", "--out=x"], "--shard is 3/2; give which share of how many"),
    ],
)
def test_flags_that_make_no_sense(flags: list[str], phrase: str, photos: Path, capsys: Capture) -> None:
    assert phrase in error_of(capsys, "predict", "nuclei", photos, *flags)


def test_threads_of_shares_sleep_while_they_wait(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # to be put back after the test
    monkeypatch.delenv("OMP_WAIT_POLICY")
    main(["predict", "nuclei", str(photos), "--resume"])
    assert "OMP_WAIT_POLICY" not in os.environ
    main(["predict", "nuclei", str(photos), "--shard=1/2"])
    assert os.environ["OMP_WAIT_POLICY"] == "passive"


def test_one_is_written_while_the_next_is_computed(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[Segmentation] = []
    written: list[Segmentation] = []
    save, segment = Segmentation.save, Segmenter._segment

    def counted(self: Segmenter, *arguments: Any) -> Segmentation:
        computed.append(segment(self, *arguments))
        return computed[-1]

    def waits(self: Segmentation, folder: Path) -> tuple[Path, Path]:
        written.append(self)
        needed, end = min(len(written) + 1, len(NAMES)), time.monotonic() + 20
        while len(computed) < needed and time.monotonic() < end:
            time.sleep(0.01)
        assert len(computed) == needed
        return save(self, folder)

    monkeypatch.setattr(Segmenter, "_segment", counted)
    monkeypatch.setattr(Segmentation, "save", waits)
    assert main(["predict", str(model), str(photos), "--out", str(tmp_path / "out")]) == 0
    assert computed == written
