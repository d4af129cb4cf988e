"""The processes of one training: which of them this one is, and what they tell each other.

`--devices` starts the processes of one machine, which see the same files. Those of several machines are started by
torchrun or SLURM, each with the same command. Of these only the first reads and writes the run's folder, and tells the
others what they need of it, so they may have none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from crispseg.errors import CrispsegError, one_line, system_line
from crispseg.training.config import TrainConfig

T = TypeVar("T")

LOST = (
    *("closed by peer", "reset by peer", "Socket closed", "Broken pipe", "remote process exited", "Timed out waiting"),
    *("timed out", "No route to host", "Connection refused"),
)
"""In errors of gloo and NCCL where another process, its machine or the way there has gone."""

WAIT = 1800
"""Seconds within which all processes must have been started, and within which one waits for an answer of another."""

_joined = False


class Told(CrispsegError):
    """What another process of this machine says already."""


def starter() -> ClusterEnvironment | None:
    """What started this process together with others, torchrun or SLURM; None if nothing did."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    # srun sets the number of the step; without it a script's processes were not started.
    if "SLURM_STEP_ID" not in os.environ or not SLURMEnvironment.detect() or os.environ["SLURM_NTASKS"] == "1":
        return None
    try:
        return SLURMEnvironment(auto_requeue=False)  # which would write checkpoints that --resume does not know
    except RuntimeError as error:
        raise CrispsegError(f"srun was told something that Lightning refuses: {one_line(error)}") from None


def environment() -> ClusterEnvironment:
    """As Lightning takes it."""
    return starter() or LightningEnvironment()


def is_first_process() -> bool:
    """False in the further processes of a training, on whichever machine."""
    cluster = starter()
    return (cluster.global_rank() if cluster else int(os.environ.get("LOCAL_RANK", "0"))) == 0


def is_joined() -> bool:
    """Whether this process and the others that were started with it can tell each other something."""
    return _joined


@contextmanager
def joined() -> Iterator[None]:
    """In the block, processes that torchrun or SLURM started are one group; Lightning takes it over.

    Raises:
        CrispsegError: the others cannot be reached; or one of them has gone.
    """
    global _joined
    cluster = starter()
    if cluster is None or cluster.world_size() == 1 or _joined:
        yield
        return
    where = f"{cluster.main_address}:{cluster.main_port}"
    os.environ["MASTER_ADDR"], _, os.environ["MASTER_PORT"] = where.rpartition(":")
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(cluster.local_rank() % torch.cuda.device_count())
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            timeout=timedelta(seconds=WAIT),
            rank=cluster.global_rank(),
            world_size=cluster.world_size(),
        )
    except RuntimeError as error:
        raise CrispsegError(
            f"process {cluster.global_rank()} of {cluster.world_size()} does not reach the others by {where} "
            f"({one_line(error)}); see that all were started, and that this address can be reached from each machine"
        ) from None
    _joined = True
    try:
        yield
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise CrispsegError("another process of this training has ended; what it says tells why") from None
    finally:
        _joined = False
        dist.destroy_process_group()


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process has gone."""
    return _joined and isinstance(error, RuntimeError) and any(word in str(error) for word in LOST)


def agreed(make: Callable[[], T]) -> T:
    """What `make` returns in the first process, in all that are joined; alone, what it returns here.

    Raises:
        CrispsegError: it was raised in the first process.
    """
    if not _joined:
        return make()
    told: list[Any] = [None, None]
    with _caught(told):
        if dist.get_rank() == 0:
            told[1] = make()
    dist.broadcast_object_list(told)
    _raise_told(told[0], 0)
    made: T = told[1]
    return made


@contextmanager
def all_or_none() -> Iterator[None]:
    """An error in the block, in any of the joined processes, ends it in all of them; no two may talk in it.

    Raises:
        CrispsegError: it was raised in one of them.
    """
    if not _joined:
        yield
        return
    own: list[Any] = [None]
    with _caught(own):
        yield
    errors = _gathered(own[0])
    for rank, error in enumerate(errors):
        _raise_told(error, rank)


def check_alike(what: str, values: Mapping[str, Any]) -> None:
    """See that the joined processes have the same of something.

    Raises:
        CrispsegError: they have not.
    """
    if not _joined:
        return
    first, *others = _gathered({key: repr(value) for key, value in values.items()})
    for rank, other in enumerate(others, 1):
        if differing := [f"{key} is {other[key]}, not {first[key]}" for key in first if other.get(key) != first[key]]:
            _raise_told(f"the {what} of process {rank} are others than those of process 0: {', '.join(differing)}", 0)


def check_started(config: TrainConfig) -> None:
    """See that as many processes were started as the run has.

    Raises:
        CrispsegError: more or fewer were.
    """
    cluster = starter()
    if cluster is None and config.num_nodes > 1:
        raise CrispsegError(
            f"num_nodes is {config.num_nodes}, but this process was started alone; start it on each machine by "
            "torchrun or srun, see docs/scaling.md"
        )
    if cluster is None:
        return
    each = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or config.devices)
    if (cluster.world_size(), each) != (config.processes, config.devices):
        raise CrispsegError(
            f"{cluster.world_size()} processes were started, {each} on this machine, but devices is {config.devices} "
            f"and num_nodes {config.num_nodes}; give --devices as many as there are on each machine, and --num_nodes"
        )


@contextmanager
def _caught(error: list[Any]) -> Iterator[None]:
    """Put the line of an error that a user can mend into the list."""
    try:
        yield
    except CrispsegError as raised:
        error[0] = str(raised)
    except OSError as raised:
        error[0] = system_line(raised)


def _gathered(value: T) -> list[T]:
    """The value of each process, by rank."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _raise_told(error: str | None, rank: int) -> None:
    """Raise what a process told, aloud in one process of each machine."""
    if error is None:
        return
    line = error if rank in (0, dist.get_rank()) else f"process {rank}: {error}"
    cluster = starter()
    raise Told(line) if cluster and cluster.local_rank() else CrispsegError(line)
