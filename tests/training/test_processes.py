"""Training in several processes, on one machine and on several: here started in folders of one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_trees import save
from drawn import as_flags, drawn
from safetensors.torch import load_file
from training_runs import FLAGS, rows, tiny, without_time

from crispseg.training.trainer import check_processes, launcher

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
    *as_flags(drawn(train=8, val=5)),
    "--epochs=2",
    *("--augment.crop=[64,96]", "--augment.scale=[1,1]", "--augment.repeat=1", "--auxiliary_weight=0"),
    *("--hard_fraction=1", "--class_weights=null", "--freeze_backbone=true", "--workers=0", "--loggers=[]"),
]


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


@pytest.fixture
def machines(tmp_path: Path) -> list[Path]:
    """Folders instead of the disks of two machines."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    return [tmp_path / "first", tmp_path / "second"]


def started(command: list[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1", **environment}
    run = [sys.executable, "-m", *command]
    return subprocess.Popen(run, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def torchrun(folders: list[Path], port: int, flags: list[str]) -> list[subprocess.Popen[str]]:
    """The command on every machine."""
    nodes = [f"--nnodes={len(folders)}", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    return [
        started(["torch.distributed.run", *nodes, f"--node_rank={rank}", "-m", "crispseg", "train", *flags], folder)
        for rank, folder in enumerate(folders)
    ]


def by_hand(folders: list[Path], port: int, flags: list[str]) -> list[subprocess.Popen[str]]:
    """A process on each machine with the variables of torchrun, without torchrun, which takes seconds."""
    common = {"TORCHELASTIC_RUN_ID": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"WORLD_SIZE": str(len(folders)), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return [
        started(["crispseg", "train", *flags], folder, **common, RANK=str(node), GROUP_RANK=str(node))
        for node, folder in enumerate(folders)
    ]


def all_good(running: list[subprocess.Popen[str]]) -> list[str]:
    """The output of each, none of which failed."""
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert not any(process.returncode for process in running), "\n".join(outputs)
    return outputs


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.slow
def test_two_machines_train_as_two_processes_and_as_one(machines: list[Path], port: int) -> None:
    plugin = machines[0].parent / "plain.py"
    plugin.write_text(PLAIN)
    flags = [*PLAINLY, f"--plugins={plugin}", "--device=cpu", "--schedule=constant"]
    outputs = all_good(torchrun(machines, port, [*flags, "--num_nodes=2", "--batch_size=2", "--out=run"]))
    beside = weights(machines[0] / "run")
    assert [output.count("best mIoU on val") for output in outputs] == [1, 0]  # the first process prints
    assert not list(machines[1].iterdir())  # and writes
    alone = ["--num_nodes=1", "--batch_size=4", "--epochs=3"]
    for own in (
        [*flags, "--devices=2", "--batch_size=2", "--out=two"],
        ["--resume=run", f"--plugins={plugin}", *alone],
        [*flags, *alone, "--out=one"],
    ):
        all_good([started(["crispseg", "train", *own], machines[0])])
    together, two, one = (machines[0] / name for name in ("run", "two", "one"))
    assert without_time(together)[:2] == without_time(two)
    torch.testing.assert_close(beside, weights(two), rtol=0, atol=0)
    torch.testing.assert_close(weights(together), weights(one), rtol=1e-4, atol=1e-6)
    scores = [[float(row["miou"]) for row in rows(folder)] for folder in (together, one)]
    assert scores[0] == pytest.approx(scores[1], abs=0.05) and len(scores[0]) == 3


@pytest.mark.slow
def test_a_machine_is_killed_and_all_resume(machines: list[Path], port: int) -> None:
    """From a folder that all machines see."""
    shared = [machines[0]] * 2
    flags = [*FLAGS, "--epochs=5", "--batch_size=2", "--num_nodes=2", "--device=cpu", "--ema=0.9"]
    all_good(by_hand(shared, port, [*flags, "--out=undisturbed"]))
    running = torchrun(shared, port, [*flags, "--out=run"])
    last = machines[0] / "run/checkpoints/last.ckpt"
    end = time.monotonic() + 200
    while not last.is_file() and time.monotonic() < end:
        time.sleep(0.02)
    for process in (running[1].pid, *children(running[1].pid)):
        os.kill(process, signal.SIGKILL)
    output, _ = (process.communicate(timeout=300)[0] for process in running)
    assert running[0].returncode and "resume the run in run" in output, output
    assert len(rows(machines[0] / "run")) < 5
    all_good(by_hand(shared, port, ["--resume=run"]))
    run, undisturbed = (machines[0] / name for name in ("run", "undisturbed"))
    torch.testing.assert_close(weights(run), weights(undisturbed), rtol=1e-5, atol=1e-7)
    assert [row["step"] for row in rows(run)] == [row["step"] for row in rows(undisturbed)]


def children(process: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
def test_folds_on_two_machines_resume(machines: list[Path], port: int, tmp_path: Path) -> None:
    for index in range(4):
        save(tmp_path / f"images/{index}.png", np.full((64, 64, 3), index % 2, np.uint8))
        save(tmp_path / f"masks/{index}.png", np.full((64, 64), index % 2, np.uint8))
    data = ["--data=folder", f"--data.images={tmp_path / 'images'}", f"--data.masks={tmp_path / 'masks'}"]
    model = ["--model=fpn", "--model.backbone=test_efficientnet", "--model.width=8", "--model.pretrained=false"]
    flags = [*data, *model, "--data.num_classes=2", "--epochs=1", "--batch_size=1", "--workers=0", "--loggers=[]"]
    flags += ["--num_nodes=2", "--device=cpu", "--augment.crop=[64,64]", "--out=run", "--folds=2"]
    all_good(by_hand([machines[0]] * 2, port, flags))
    scores = machines[0] / "run/folds.json"
    whole = json.loads(scores.read_text())
    scores.write_text(json.dumps({"fold_1": whole["fold_1"]}))  # as a kill leaves it
    all_good(by_hand([machines[0]] * 2, port, ["--resume=run"]))
    assert json.loads(scores.read_text()) == whole


@pytest.mark.slow
def test_slurm_starts_a_process_on_each_machine(machines: list[Path], port: int) -> None:
    common = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"}
    common |= {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(port)}
    command = ["crispseg", "train", *FLAGS, "--epochs=1", "--num_nodes=2", "--device=cpu", "--out=run"]
    all_good(
        [
            started(command, folder, **common, SLURM_PROCID=str(rank), SLURM_NODEID=str(rank))
            for rank, folder in enumerate(machines)
        ]
    )
    assert (machines[0] / "run/model").is_dir() and not list(machines[1].iterdir())


def test_how_many_processes_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any) -> None:
    check_processes(tiny(tmp_path))
    with refuses("num_nodes 2", "1 processes"):
        check_processes(tiny(tmp_path, num_nodes=2))
    for key, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    check_processes(tiny(tmp_path, num_nodes=2, devices=2))
    with refuses("4 processes", "devices is 2"):
        check_processes(tiny(tmp_path, devices=2))


def test_a_script_of_slurm_without_srun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}.items():
        monkeypatch.setenv(key, value)
    assert launcher().world_size() == 1
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    assert launcher().world_size() == 4
