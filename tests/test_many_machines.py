"""Training on several machines: here two folders of one, each with its own processes and working folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training_runs import FLAGS, files, rows, tiny, without_time

from crispseg.data.loading import Shuffled
from crispseg.errors import CrispsegError
from crispseg.training import processes
from crispseg.training.processes import (
    agreed,
    all_or_none,
    check_alike,
    check_started,
    is_first_process,
    joined,
    starter,
)
from crispseg.training.resuming import check_folder

PLAIN = """
import torch
from torch import nn
from crispseg.decoders import Decoded, Decoder
from crispseg.models import SegmentationModel, models
from crispseg.nn import resize

class Plain(nn.Module, Decoder):
    auxiliary_channels = ()
    out_channels = 8

    def __init__(self, channels):
        super().__init__()
        self.join = nn.Conv2d(sum(channels), 8, 1)

    def forward(self, features, images):
        resized = [resize(each, features[0].shape[-2:], align_corners=True) for each in features]
        return Decoded(self.join(torch.cat(resized, 1)))

@models.register("plain")
def plain(spec, num_classes: int):
    backbone = spec.build()
    return SegmentationModel(backbone, Plain(backbone.channels), num_classes)
"""
"""A network without norms that learn: its gradients are those of the whole batch, however that is dealt out."""

PLAINLY = [
    *("--preset=paper", "--model=plain", "--model.backbone=test_efficientnet", "--model.pretrained=false"),
    *("--data.train=8", "--data.val=5", "--data.test=1", "--data.height=64", "--data.width=96", "--epochs=2"),
    *("--augment.crop=[64,96]", "--augment.scale=[1,1]", "--augment.repeat=1", "--auxiliary_weight=0"),
    *("--hard_fraction=1", "--class_weights=null", "--freeze_backbone=true", "--workers=0", "--loggers=[]"),
]

FOUR = ["--num_nodes=2", "--devices=2", "--batch_size=1", "--epochs=3"]


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


@pytest.fixture
def machines(tmp_path: Path) -> list[Path]:
    """Folders that stand for the disks of two machines."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    return folders


def started(command: list[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def torchrun(folders: list[Path], port: int, each: int, flags: list[str]) -> list[subprocess.Popen[str]]:
    """The command on every machine, with so many processes on each."""
    nodes = [f"--nnodes={len(folders)}", f"--nproc_per_node={each}", "--master_addr=127.0.0.1", f"--master_port={port}"]
    return [
        started(["torch.distributed.run", *nodes, f"--node_rank={rank}", "-m", "crispseg", "train", *flags], folder)
        for rank, folder in enumerate(folders)
    ]


def by_hand(folders: list[Path], port: int, flags: list[list[str]]) -> list[subprocess.Popen[str]]:
    """A process on each machine with the variables of torchrun, without torchrun, which takes seconds; its flags."""
    common = {"TORCHELASTIC_RUN_ID": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"WORLD_SIZE": str(len(folders)), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return [
        started(["crispseg", "train", *own], folder, **common, RANK=str(node), GROUP_RANK=str(node))
        for node, (folder, own) in enumerate(zip(folders, flags, strict=True))
    ]


def ended(running: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit status and output of each."""
    outputs = [process.communicate(timeout=300)[0] for process in running]
    return [(process.returncode, output) for process, output in zip(running, outputs, strict=True)]


def all_good(running: list[subprocess.Popen[str]]) -> list[str]:
    """The output of each, none of which failed."""
    results = ended(running)
    assert not any(code for code, _ in results), "\n".join(output for _, output in results)
    return [output for _, output in results]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=0)
    assert without_time(one) == without_time(other)


@pytest.mark.slow
def test_two_machines_train_as_two_processes_and_as_one(machines: list[Path], port: int) -> None:
    plugin = machines[0].parent / "plain.py"
    plugin.write_text(PLAIN)
    flags = [*PLAINLY, f"--plugins={plugin}", "--accelerator=cpu", "--schedule=constant"]
    outputs = all_good(torchrun(machines, port, 1, [*flags, "--num_nodes=2", "--batch_size=2", "--out=run"]))
    beside = weights(machines[0] / "run")
    assert [output.count("best mIoU on val") for output in outputs] == [1, 0]  # the first process speaks
    assert not list(machines[1].iterdir())  # and writes
    alone = ["--num_nodes=1", "--batch_size=4", "--epochs=3"]
    for own in (
        [*flags, "--devices=2", "--batch_size=2", "--out=two"],
        ["--resume=run", f"--plugins={plugin}", *alone],
        [*flags, *alone, "--out=one"],
    ):
        all_good([started(["crispseg", "train", *own], machines[0])])
    all_good(torchrun(machines, port, 2, [*flags, *FOUR, "--out=four"]))
    assert not list(machines[1].iterdir())
    together, two, one, four = (machines[0] / name for name in ("run", "two", "one", "four"))
    assert without_time(together)[:2] == without_time(two)
    torch.testing.assert_close(beside, weights(two), rtol=0, atol=0)
    for other in (together, four):
        torch.testing.assert_close(weights(other), weights(one), rtol=1e-4, atol=1e-6)
        scores = [[float(row["miou"]) for row in rows(folder)] for folder in (other, one)]
        assert scores[0] == pytest.approx(scores[1], abs=0.05) and len(scores[0]) == 3


@pytest.mark.slow
def test_a_machine_is_killed_and_all_go_on(machines: list[Path], port: int) -> None:
    flags = [*FLAGS, "--epochs=5", "--batch_size=2", "--num_nodes=2", "--accelerator=cpu", "--ema=0.9"]
    all_good(by_hand(machines, port, [[*flags, "--out=undisturbed"]] * 2))

    running = torchrun(machines, port, 1, [*flags, "--out=run"])
    last = machines[0] / "run/checkpoints/last.ckpt"
    end = time.monotonic() + 200
    while not last.is_file() and time.monotonic() < end:
        time.sleep(0.02)
    for process in (running[1].pid, *children(running[1].pid)):
        os.kill(process, signal.SIGKILL)
    (code, output), _ = ended(running)
    assert code and "another process of this training ended near step" in output and "--resume run" in output, output
    assert len(rows(machines[0] / "run")) < 5

    all_good(by_hand(machines, port, [["--resume=run"]] * 2))
    assert_same_run(machines[0] / "run", machines[0] / "undisturbed")
    assert not list(machines[1].iterdir())


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
def test_folds_on_two_machines_go_on(machines: list[Path], port: int, tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for index in range(4):
            values = np.full((64, 64, 3) if name == "images" else (64, 64), index % 2, np.uint8)
            Image.fromarray(values).save(tmp_path / name / f"{index}.png")
    data = ["--data=folder", f"--data.images={tmp_path / 'images'}", f"--data.masks={tmp_path / 'masks'}"]
    model = ["--model=fpn", "--model.backbone=test_efficientnet", "--model.width=8", "--model.pretrained=false"]
    flags = [*data, *model, "--data.num_classes=2", "--epochs=1", "--batch_size=1", "--workers=0", "--loggers=[]"]
    flags += ["--num_nodes=2", "--accelerator=cpu", "--augment.crop=[64,64]", "--out=run", "--folds=2"]
    all_good(by_hand(machines, port, [flags] * 2))
    scores = machines[0] / "run/folds.json"
    whole = json.loads(scores.read_text())
    scores.write_text(json.dumps({"fold_1": whole["fold_1"]}))  # as a kill leaves it
    all_good(by_hand(machines, port, [["--resume=run"]] * 2))
    assert json.loads(scores.read_text()) == whole
    assert not list(machines[1].iterdir())


@pytest.mark.slow
def test_slurm_starts_a_process_on_each_machine(machines: list[Path], port: int) -> None:
    common = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"}
    common |= {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(port)}
    command = ["crispseg", "train", *FLAGS, "--epochs=1", "--num_nodes=2", "--accelerator=cpu", "--out=run"]
    all_good(
        [
            started(command, folder, **common, SLURM_PROCID=str(rank), SLURM_NODEID=str(rank))
            for rank, folder in enumerate(machines)
        ]
    )
    assert (machines[0] / "run/model").is_dir() and not list(machines[1].iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "own, message",
    [
        (["--data.train=9"], "the images of process 1 are others than those of process 0: train is '9 with sizes"),
        (["--plugins=missing.py"], "process 1: plugin missing.py is no Python file"),
    ],
)
def test_what_differs_between_machines_ends_all(own: list[str], message: str, machines: list[Path], port: int) -> None:
    flags = [*FLAGS, "--num_nodes=2", "--accelerator=cpu", "--out=run"]
    (code, output), (other_code, other) = ended(by_hand(machines, port, [flags, [*flags, *own]]))
    assert (code, other_code) == (2, 2)
    assert message in output and message.removeprefix("process 1: ") in other
    assert "Traceback" not in output + other
    assert not files(machines[0] / "run") and not list(machines[1].iterdir())


def test_how_many_processes_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert starter() is None and is_first_process()
    with pytest.raises(CrispsegError, match="num_nodes is 2, but this process was started alone"):
        check_started(tiny(tmp_path, num_nodes=2))
    for key, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert not is_first_process()  # though it is the first of its machine
    check_started(tiny(tmp_path, num_nodes=2, devices=2))
    with pytest.raises(CrispsegError, match="4 processes were started, 2 on this machine, but devices is 2"):
        check_started(tiny(tmp_path, devices=2))
    with pytest.raises(CrispsegError, match="but devices is 1 and num_nodes 4"):
        check_started(tiny(tmp_path, num_nodes=4))
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert is_first_process()
    with pytest.raises(CrispsegError, match="1 processes were started, 1 on this machine, but devices is 2"):
        check_started(tiny(tmp_path, devices=2))
    with joined(), all_or_none():
        assert agreed(lambda: 3) == 3


def test_settings_that_differ_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_alike("settings", {"lr": 1})  # alone
    monkeypatch.setattr(processes, "_joined", True)
    monkeypatch.setattr(processes.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(processes, "_gathered", lambda own: [own, own, own | {"lr": "2", "seed": "'a'"}])
    with pytest.raises(CrispsegError) as error:
        check_alike("settings", {"lr": 1, "seed": "b", "out": "c"})
    assert (
        str(error.value)
        == "the settings of process 2 are others than those of process 0: lr is 2, not 1, seed is 'a', not 'b'"
    )


def test_a_script_of_slurm_without_srun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}.items():
        monkeypatch.setenv(key, value)
    assert starter() is None
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    with pytest.raises(CrispsegError, match="srun was told something that Lightning refuses"):
        starter()
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    cluster = starter()
    assert cluster is not None and cluster.world_size() == 4


def test_a_process_that_reaches_nobody_says_so(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0"}
    for key, value in (values | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("crispseg.training.processes.WAIT", 1)
    with pytest.raises(CrispsegError, match=f"process 1 of 2 does not reach the others by 127.0.0.1:{port}"), joined():
        pass


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_any_number_of_processes_takes_the_same_images_a_step(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(Shuffled(24, 1, seed=3, start=(1, 12)))  # of an epoch, after one step of 12 images
    shares = []
    for rank in range(count):
        monkeypatch.setattr("crispseg.data.loading._rank", lambda rank=rank: rank)
        shares.append(list(Shuffled(24, count, seed=3, start=(1, 12 // count))))
    assert {key for share in shares for key in share} == {*whole}
    assert {len(share) for share in shares} == {12 // count}


def test_a_run_goes_on_with_other_processes_if_a_step_has_as_many_images(tiny_run, tmp_path: Path, refuses) -> None:  # type: ignore[no-untyped-def]
    check_folder(tiny(tiny_run.folder, batch_size=2, devices=2), resume=True)
    check_folder(tiny(tiny_run.folder, batch_size=1, devices=2, num_nodes=2), resume=True)
    with refuses("cannot change devices, unless batch_size × devices × num_nodes stays 4"):
        check_folder(tiny(tiny_run.folder, devices=2), resume=True)
