"""Give hostile files and settings to all commands: `cd tests && python -m fuzz`, or `--only NAME` for one of them.

Each runs in a child with 4 GiB of memory beyond that of its parent, and 20 seconds. The exit status is 1 if one is
ugly (a traceback, or a refusal that is not one line with the file or setting and a remedy), wrong, hung or crashed.
"""

import argparse
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from itertools import groupby
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")


def run() -> int:
    """Run the campaign and print a table of outcomes by reader or command and kind."""
    from fuzz.commands import BAD

    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="inputs of each kind and reader or command")
    parser.add_argument("--only", default="", help="pattern of the names of inputs, such as COCO/number/3")
    parser.add_argument("--processes", type=int, default=1, help="number of processes that share the inputs")
    given = parser.parse_args()
    context = get_context("fork")
    totals: SimpleQueue[Counter[str]] = context.SimpleQueue()
    shares = [context.Process(target=run_share, args=(given, share, totals)) for share in range(given.processes)]
    for process in shares:
        process.start()
    for process in shares:
        process.join()
    is_complete = all(process.exitcode == 0 for process in shares)
    total = Counter[str]()
    while not totals.empty():
        total += totals.get()
    print(total.total(), "inputs:", ", ".join(f"{count} {outcome}" for outcome, count in total.most_common()))
    return int(not is_complete or any(total[outcome] for outcome in BAD))


def run_share(given: argparse.Namespace, share: int, totals: SimpleQueue[Counter[str]]) -> None:
    """Give every n-th kind of inputs to the commands, and put the numbers of outcomes into `totals`."""
    from fuzz.commands import BAD, Campaign, all_cases

    warnings.simplefilter("ignore")  # of libraries, about broken files
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        campaign = Campaign(Path(name))
        cases = (case for case in all_cases(campaign.sound, given.count) if re.match(given.only, case.name))
        groups = groupby(cases, lambda case: case.name.rpartition("/")[0])
        for number, (kind, group) in enumerate(groups):
            if number % given.processes != share:
                continue
            counts: Counter[str] = Counter()
            for case in group:
                outcome, printed = campaign.outcome(case)
                counts[outcome] += 1
                if outcome in BAD or case.name == given.only:
                    change = f"{' '.join(case.argv):.300} {getattr(case.make, 'args', '')!s:.200}"
                    print(f"{outcome}: {case.name}: {change}\n{printed[-1500:]}")
            print(f"{kind:40}", ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()), flush=True)
            total += counts
    totals.put(total)


if __name__ == "__main__":
    sys.exit(run())
