"""Scripts of benchmarks/ as modules."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A script by its name, forgotten after the test; its threads stay this process's."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def imported(name: str) -> ModuleType:
        module = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, module)
        for library, setting in (("cv2", "setNumThreads"), ("torch", "set_num_threads")):
            if hasattr(module, library):
                monkeypatch.setattr(getattr(module, library), setting, lambda threads: None)
        return module

    return imported
