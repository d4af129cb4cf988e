"""Throw damaged files at everything that reads files: `cd tests && python -m fuzz --count 10000`.

The process has 4 GB of memory beyond what it has at the start. The exit status is 1 if an input went wrong.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")


def run() -> int:
    """Run the campaign and print a table."""
    from fuzz.campaign import attempt
    from fuzz.readers import readers
    from fuzz.text_readers import text_readers

    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="inputs, of all kinds together")
    parser.add_argument("--start", type=int, default=0, help="seed of the first input of each kind")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of libraries, about broken files
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        kinds = readers(place) | text_readers()
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 4 * 2**30, resource.RLIM_INFINITY))
        failed = 0
        for kind, reader in kinds.items():
            seeds = range(given.start, given.start + -(-given.count // len(kinds)))
            counts: Counter[str] = Counter()
            for seed in seeds:
                counts[attempt(kind, reader, seed, place / f"{kind} {seed}")] += 1
            print(kind, dict(counts), flush=True)
            failed |= not counts.keys() <= {"read", "refused"}
    return failed


if __name__ == "__main__":
    sys.exit(run())
