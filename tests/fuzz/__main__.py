"""Throw damaged files at everything that reads files, in one process that can reach no other place.

    cd tests && python -m fuzz --count 10000
    cd tests && python -m fuzz --kinds masks --start 17 --count 1   # the 18th mask once more

Each input has a minute and 2 GB. What goes wrong is kept in `--out`, and makes the exit status 1. On Linux 5.13 and
later the kernel itself (Landlock) keeps the process from writing elsewhere, from starting programs and from connecting;
tries are counted everywhere.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")


def main() -> int:
    from fuzz import bounds
    from fuzz.campaign import KINDS, Campaign

    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="inputs, of all kinds together")
    parser.add_argument("--start", type=int, default=0, help="number of the first input of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"), help="new folder for what went wrong")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of libraries, about broken files
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sandbox-", dir=arguments.out) as name:
        sandbox = Path(name).resolve()
        os.environ["TMPDIR"] = tempfile.tempdir = str(sandbox)
        campaign = Campaign(sandbox, arguments.seed, arguments.out, arguments.kinds)
        closed = bounds.close_in(arguments.out.resolve())
        bounds.limit_memory(2 * bounds.GIGABYTES)
        for kind in arguments.kinds:
            campaign.run(kind, arguments.start, -(-arguments.count // len(arguments.kinds)))
            print(f"{kind}: {dict(campaign.counts[kind])}", file=sys.stderr, flush=True)
    print(campaign.table())
    print("the kernel kept the process in its folder" if closed else "no Landlock here: tries were counted only")
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main())
