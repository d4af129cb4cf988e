"""Commands on a disk that is too small, and again when there is room.

    cd tests && python -m fuzz.full_disks --out ../runs/disks

Each command runs once on a disk with room, which tells how much it writes, and then with a share of that. It has to end
with exit status 2 and one line; what was on the disk before has to be there, and no temporary file. With room, the same
command has to work, and a training has to end with the weights of one that nobody disturbed.

The disk is a tmpfs in a mount namespace of its own where the process may make one (root); else the size of each file is
limited (RLIMIT_FSIZE), which gives EFBIG in place of ENOSPC.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from training_runs import FLAGS, equal

from crispseg.backbones import read_state_dict
from crispseg.io.files import LITTER
from crispseg.io.images import write_image
from fuzz.kills import finished, forked
from fuzz.kinds import files_of

MEGABYTES = 64


class Disk(NamedTuple):
    """A command on a disk with room for a share of what it writes."""

    command: str
    share: float


DISKS = [
    *(Disk("train", share) for share in (0.0, 0.3, 0.9)),
    *(Disk("resume", share) for share in (0.0, 0.6)),
    *(Disk(command, 0.5) for command in ("predict", "evaluate", "doctor", "inspect", "import")),
]


def commands(sound: Path, disk: Path) -> dict[str, list[str]]:
    """What is run; the last word is what it writes to, on the disk."""
    run, data = sound / "run", sound / "data"
    folders = [f"--data.images={data / 'images'}", f"--data.masks={data / 'masks'}"]
    return {
        "train": ["train", *FLAGS, "--deterministic=true", "--out", str(disk / "out")],
        "resume": ["train", "--epochs=4", "--resume", str(disk / "out")],
        "predict": ["predict", str(run), str(data / "images"), "--out", str(disk / "out")],
        "evaluate": ["evaluate", str(run), "--html", str(disk / "out.html")],
        "doctor": ["doctor", "--data=folder", *folders, "--fix", str(disk / "out")],
        "inspect": ["inspect", str(run), str(data / "images/0.png"), "--out", str(disk / "out.html")],
        "import": ["data", "import", str(data / "images/coco.json"), "--out", str(disk / "out")],
    }


def sound_files(place: Path) -> None:
    """A finished run, and images with masks and annotations."""
    assert finished(forked(["train", *FLAGS, "--deterministic=true", "--out", str(place / "run")], place / "log")) == 0
    random = np.random.default_rng(0)
    for index in range(8):
        write_image(place / f"data/images/{index}.png", random.integers(0, 256, (64, 96, 3), np.uint8))
        write_image(place / f"data/masks/{index}.png", random.integers(0, 3, (64, 96), np.uint8))
    images = [{"id": index, "file_name": f"{index}.png", "height": 64, "width": 96} for index in range(8)]
    corners = [1, 1, 60, 1, 60, 60]
    found = [{"id": index, "image_id": index, "category_id": 1, "segmentation": [corners]} for index in range(8)]
    tree = {"images": images, "annotations": found, "categories": [{"id": 1, "name": "cat"}]}
    (place / "data/images/coco.json").write_text(json.dumps(tree))


def mounted(disk: Path) -> bool:
    """Mount a small tmpfs there that only this process and its children see; False where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private = 0x20000, 1 << 14 | 1 << 18
    return (
        libc.unshare(new_namespace) == 0
        and libc.mount(b"none", b"/", None, private, None) == 0
        and libc.mount(b"none", os.fsencode(disk), b"tmpfs", 0, f"size={MEGABYTES}m".encode()) == 0
    )


def used(disk: Path) -> int:
    return sum(len(content) for content in files_of(disk).values())


def emptied(disk: Path, sound: Path, command: str) -> None:
    """The disk as it is before the command."""
    for entry in disk.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if command == "resume":
        shutil.copytree(sound / "run", disk / "out")
    (disk / "other.txt").write_text("another file")


def fill(disk: Path, room: int) -> None:
    """Leave room for so many bytes."""
    free = shutil.disk_usage(disk).free
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, max(free - room, 1))


def limited(size: int) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    return limit


def tried(one: Disk, sound: Path, disk: Path, full: bool) -> list[str]:
    """What is wrong with how a command ended; `full` says that the disk is a small one."""
    argv, log = commands(sound, disk)[one.command], disk.parent / f"{one.command}-{one.share}.log"
    emptied(disk, sound, one.command)
    before = used(disk)
    if finished(forked(argv, log)) != 0:
        return ["it failed on a disk with room"]
    written, weights = used(disk) - before, disk / "out/model/model.safetensors"
    wanted = read_state_dict(weights) if weights.is_file() else {}
    largest = max(len(content) for content in files_of(disk).values())
    emptied(disk, sound, one.command)
    kept = files_of(disk)
    log.unlink()
    if full:
        fill(disk, int(one.share * written))
        status = finished(forked(argv, log))
        (disk / "ballast").unlink()
    else:
        status = finished(forked(argv, log, limited(int(one.share * largest))))
    after, lines = files_of(disk), [line for line in log.read_text().splitlines() if line.startswith("crispseg: error")]
    wrong = [] if status == 2 else [f"exit status {status}"]
    wrong += [] if len(lines) == 1 else [f"{len(lines)} lines of errors"]
    wrong += ["a traceback"] if "Traceback" in log.read_text() else []
    changed = {file for file, content in kept.items() if after.get(file) != content}
    wrong += [f"changed or gone: {file}" for file in changed if file not in after or one.command != "resume"]
    wrong += [f"left: {file}" for file in after if LITTER in file]
    print(f"  {lines[0] if lines else log.read_text()[-300:]}", flush=True)
    again = argv
    if one.command == "train" and (disk / "out/checkpoints/last.ckpt").is_file():
        again = ["train", "--resume", str(disk / "out")]
    elif one.command == "train" and (disk / "out/model").is_dir():  # then one is told to begin elsewhere
        again, weights = [*argv[:-1], str(disk / "another")], disk / "another/model/model.safetensors"
    if finished(forked(again, log)) != 0:
        return [*wrong, f"it failed when there was room again: {log.read_text()[-300:]}"]
    if wanted and not equal(read_state_dict(weights), wanted):
        wrong.append("other weights than undisturbed")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="new folder to work in")
    parser.add_argument("--only", nargs="+", choices=list(commands(Path(), Path())), help="commands")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    torch.set_num_threads(1)
    out = arguments.out.resolve()
    sound, disk = out / "sound", out / "disk"
    sound.mkdir()
    disk.mkdir()
    sound_files(sound)
    full = mounted(disk)
    print(f"the disk is {f'a tmpfs of {MEGABYTES} MB' if full else 'one whose files are limited (RLIMIT_FSIZE)'}")
    disks = [one for one in DISKS if arguments.only is None or one.command in arguments.only]
    bad = 0
    for one in disks:
        print(f"{one.command} with room for {one.share:.0%} of what it writes:", flush=True)
        wrong = tried(one, sound, disk, full)
        bad += bool(wrong)
        print(f"  {'; '.join(wrong) or 'one line, nothing lost, and well with room'}", flush=True)
    print(f"{len(disks)} full disks, {bad} where something was wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
