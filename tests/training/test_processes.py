"""Training in several processes, on one machine and on several: here started in folders of one."""

import io
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import unknown_again
from drawn import as_flags, drawn
from rich.console import Console
from safetensors.torch import load_file
from separate_processes import free_port
from training_runs import DRAWN, rows, tiny, without_time

from crispseg.cli.main import main
from crispseg.evaluation.evaluate import evaluate
from crispseg.training.fit import Hooks, train
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


def all_good(running: list[subprocess.Popen[str]]) -> list[str]:
    """The output of each, none of which failed."""
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert not any(process.returncode for process in running), "\n".join(outputs)
    return outputs


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.slow
def test_two_machines_train_as_two_processes_and_as_one(machines: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = machines[0].parent / "plain.py"
    plugin.write_text(PLAIN)
    flags = [*PLAINLY, f"--plugins={plugin}", "--device=cpu", "--schedule=constant"]
    outputs = all_good(torchrun(machines, free_port(), [*flags, "--num_nodes=2", "--batch_size=2", "--out=run"]))
    beside = weights(machines[0] / "run")
    assert [output.count("best mIoU on val") for output in outputs] == [1, 0]  # the first process prints
    assert not list(machines[1].iterdir())  # and writes
    all_good([started(["crispseg", "train", *flags, "--devices=2", "--batch_size=2", "--out=two"], machines[0])])
    monkeypatch.chdir(machines[0])
    alone = ["--num_nodes=1", "--batch_size=4", "--epochs=3"]
    for own in (["--resume=run", f"--plugins={plugin}"], [*flags, "--out=one"]):
        with unknown_again():
            assert main(["train", *own, *alone]) == 0
    together, two, single = (machines[0] / name for name in ("run", "two", "one"))
    assert without_time(together)[:2] == without_time(two)
    torch.testing.assert_close(beside, weights(two), rtol=0, atol=0)
    torch.testing.assert_close(weights(together), weights(single), rtol=1e-4, atol=1e-6)
    scores = [[float(row["miou"]) for row in rows(folder)] for folder in (together, single)]
    assert scores[0] == pytest.approx(scores[1], abs=0.05) and len(scores[0]) == 3


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


def unchanged(image: Any, mask: Any) -> dict[str, Any]:
    return {"image": image, "mask": mask}


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("kind", ["daemonic", "spawn", "interactive"])
def test_workers_that_cannot_start(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a daemonic process, and if the transform cannot be sent to another process."""
    if kind == "daemonic":
        monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    else:
        monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "spawn")
    transform = unchanged
    if kind == "spawn":
        transform = lambda image, mask: unchanged(image, mask)  # noqa: E731
    elif kind == "interactive":
        main = sys.modules["__main__"]
        monkeypatch.delattr(main, "__file__", raising=False)
        monkeypatch.setattr(main, "unchanged", unchanged, raising=False)
        monkeypatch.setattr(unchanged, "__module__", "__main__")
    printed = io.StringIO()
    hooks = Hooks(transform=transform)
    run = train(tiny(tmp_path / "run", workers=2, epochs=1), console=Console(file=printed, width=300), hooks=hooks)
    assert len([line for line in printed.getvalue().splitlines() if line.startswith("workers is 0, because ")]) == 1
    if kind == "daemonic":
        evaluate(run.model, DRAWN.dataset("val"), workers=1)
        assert capsys.readouterr().err.count("workers is 0, because") == 1
