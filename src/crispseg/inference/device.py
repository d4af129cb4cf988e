"""The device that computes, and its name."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch

from crispseg.errors import CrispsegError


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return the device, by default CUDA where there is one.

    Raises:
        CrispsegError: there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CrispsegError(f"device '{device}' cannot be used ({reason}); use 'cpu', 'cuda' or 'cuda:N'") from None
    return found


def processor_name(device: torch.device) -> str:
    """Return the processor's name as its maker gives it, if the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if device.type == "cpu" and cpuinfo.is_file() else ""
    if named := re.search(r"^model name\s*: (.+)", text, re.MULTILINE):
        return named[1].strip()
    return platform.processor() or platform.machine()
