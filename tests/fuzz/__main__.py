"""Give hostile files and settings to all commands: `cd tests && python -m fuzz`, or `--only NAME` for one of them.

Each runs in a child with 4 GiB of memory beyond that of its parent, and 20 seconds. The exit status is 1 if one is
ugly (a traceback, or a refusal that is not one line with the file or setting and a remedy), wrong, hung or crashed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from itertools import groupby
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")


def run() -> int:
    """Run the campaign and print a table of outcomes by reader or command and kind."""
    from fuzz.commands import BAD, Campaign, all_cases

    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="inputs of each kind and reader or command")
    parser.add_argument("--only", default="", help="pattern of the names of inputs, such as COCO/number/3")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of libraries, about broken files
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        campaign = Campaign(Path(name))
        cases = (case for case in all_cases(campaign.sound, given.count) if re.match(given.only, case.name))
        for kind, group in groupby(cases, lambda case: case.name.rpartition("/")[0]):
            counts: Counter[str] = Counter()
            for case in group:
                outcome, printed = campaign.outcome(case)
                counts[outcome] += 1
                if outcome in BAD or case.name == given.only:
                    change = f"{' '.join(case.argv):.300} {getattr(case.make, 'args', '')!s:.200}"
                    print(f"{outcome}: {case.name}: {change}\n{printed[-1500:]}")
            print(f"{kind:40}", ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()), flush=True)
            total += counts
    print(total.total(), "inputs:", ", ".join(f"{count} {outcome}" for outcome, count in total.most_common()))
    return int(any(total[outcome] for outcome in BAD))


if __name__ == "__main__":
    sys.exit(run())
