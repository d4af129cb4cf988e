import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from crispseg.cli.main import keep_freed_memory

def fill():
    blocks = [np.ones(3 * 2**20, np.uint8) for _ in range(40)]  # NumPy asks for huge pages from 4 MiB on

if sys.argv[1] == "kept":
    keep_freed_memory()
fill()
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not the GNU C library")
@pytest.mark.parametrize(
    "asked", [{}, {"MALLOC_TRIM_THRESHOLD_": "1000000"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1000000"}]
)
def test_freed_memory_is_kept_unless_the_environment_says_otherwise(asked: dict[str, str]) -> None:
    def faults(way: str) -> int:
        environment = {"PYTHONPATH": ":".join(sys.path), **asked}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, way], env=environment, check=True, capture_output=True, text=True
        )
        return int(done.stdout)

    assert faults("as it is") > 10_000
    assert (faults("kept") < 1_000) == (not asked)


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from crispseg.cli import main as program

    for library in (object(), None):
        monkeypatch.setattr(program.ctypes, "CDLL", lambda _name, library=library: library)
        program.keep_freed_memory()
