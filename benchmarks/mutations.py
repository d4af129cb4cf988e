"""Whether the tests notice small mistakes: 40 are planted in the code, one at a time.

    pytest -m 'not slow' --cov=src/crispseg --cov-context=test --cov-report= --durations=300 | tee durations.txt
    python benchmarks/mutations.py --durations durations.txt

Each mistake is made in a copy of the code. Of the tests that ran the changed line (the coverage file says which), the
quickest are run on the copy until one fails. A test counts only if it passes on an unchanged copy. Mistakes are given
as a piece of text that occurs exactly once in the code, wherever that stands.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from coverage import CoverageData
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "crispseg"
TESTS_AT_MOST = 500
SECONDS_AT_MOST = 240
RETRIES = 3


class Mutation(NamedTuple):
    """A planted mistake."""

    id: str
    old: str
    """Text that occurs once in the whole package."""
    new: str


MUTATIONS = [
    Mutation("nn: single value norm", "input.shape[2] * input.shape[3] == 1", "input.shape[2] * input.shape[3] == 2"),
    Mutation("nn: resize skips half", "x.shape[-2:] == torch.Size(size)", "x.shape[-1] == size[-1]"),
    Mutation(
        "nn: gradient of a dot", "return _sum(gradient, source, grid), *", "return _sum(-gradient, source, grid), *"
    ),
    Mutation(
        "nn: gradient of a sum", "return _dot(gradient, source, grid), *", "return _dot(-gradient, source, grid), *"
    ),
    Mutation(
        "nn: pixel centres",
        "torch.arange(width, device=device, dtype=torch.float32) + 0.5",
        "torch.arange(width, device=device, dtype=torch.float32) + 0.4",
    ),
    Mutation("nn: edge to edge", "(2 * locations[:, :, :, index] - 1)", "(2 * locations[:, :, :, index] - 0.9)"),
    Mutation(
        "nn: offsets per level", "torch.stack([one * width, one * height])", "torch.stack([one * height, one * width])"
    ),
    Mutation("nn: record detaches", "seen[name] = output.detach()", "seen[name] = output"),
    Mutation("decoders: bins overlap", "(start < (index + 1) * length)", "(start <= (index + 1) * length)"),
    Mutation(
        "decoders: bins' mean", "(rows.sum(0) * columns.sum(0)).float()", "(rows.sum(0) + columns.sum(0)).float()"
    ),
    Mutation(
        "decoders: pooled corners",
        "resize(stage(averages), size, align_corners=True)",
        "resize(stage(averages), size, align_corners=False)",
    ),
    Mutation(
        "decoders: merged corners",
        "[resize(level, size, align_corners=self.align_corners) for level in coarser]",
        "[resize(level, size, align_corners=not self.align_corners) for level in coarser]",
    ),
    Mutation("decoders: non-local scale", "value, scale=1.0)", "value, scale=None)"),
    Mutation("decoders: dilation at 8", "(12, 24, 36)", "(6, 12, 18)"),
    Mutation("decoders: dilation of DenseASPP", "rates = (3, 6, 12, 18, 24)", "rates = (3, 6, 12, 18, 25)"),
    Mutation(
        "decoders: DCN's x and y",
        "dy, dx = torch.unflatten(offset.to(wide)",
        "dx, dy = torch.unflatten(offset.to(wide)",
    ),
    Mutation(
        "models: FAM's flow",
        "stack([xs + dx / width, ys[:, None] + dy / height]",
        "stack([xs + dx / height, ys[:, None] + dy / width]",
    ),
    Mutation(
        "models: correlation", "y : y + height, x : x + width]).mean(1)", "y : y + height, x : x + width]).sum(1)"
    ),
    Mutation(
        "models: DDSM's modulated scores", "sampled_dot(query, key, grid) * modulation", "sampled_dot(query, key, grid)"
    ),
    Mutation(
        "models: DDSM's channel map",
        "resize(x_cout, x_l.shape[-2:], align_corners=False)",
        "resize(x_cout, x_l.shape[-2:], align_corners=True)",
    ),
    Mutation("models: AGLN's resampling", "torch.softmax(energies, dim=2)", "torch.softmax(energies, dim=1)"),
    Mutation("models: AGLN's gate", "refined * torch.sigmoid(m)", "refined * torch.sigmoid(-m)"),
    Mutation("models: UN-EPT's positions", "10000.0 ** (-torch.arange(quarter", "1000.0 ** (-torch.arange(quarter"),
    Mutation("models: training heads saved", " if not k.startswith(TRAINING_ONLY)", ""),
    Mutation("evaluation: distance inclusive", "away <= min(distance, reach) ** 2", "away < min(distance, reach) ** 2"),
    Mutation("evaluation: F", "np.divide(2 * precision * recall,", "np.divide(precision * recall,"),
    Mutation("evaluation: nothing predicted", "out=np.ones(matched.shape)", "out=np.zeros(matched.shape)"),
    Mutation("evaluation: union", "self.truth + self.predicted - self.hits", "self.truth + self.predicted"),
    Mutation("evaluation: absent class", "count = present.sum(axis)", "count = np.ones_like(present).sum(axis)"),
    Mutation("evaluation: ignored pixels", "counts[IGNORE] = 0", "counts[IGNORE] += 0"),
    Mutation("evaluation: both tails", "tail = (1 - level / 100) / 2", "tail = 1 - level / 100"),
    Mutation(
        "evaluation: band of Boundary IoU",
        "round(dilation_ratio * math.hypot(*shape))",
        "math.ceil(dilation_ratio * math.hypot(*shape))",
    ),
    Mutation("training: poly", "max(0.0, 1 - behind) ** config.power", "max(0.0, 1 - behind) ** 1.0"),
    Mutation("training: warm-up", "(step + 1) / config.warmup", "step / config.warmup"),
    Mutation("training: step schedule", "behind >= share", "behind > share"),
    Mutation(
        "training: backbone's rate",
        '(config.backbone_lr_factor if part == "backbone" else 1.0)',
        '(config.backbone_lr_factor if part == "decoder" else 1.0)',
    ),
    Mutation(
        "training: hard pixels",
        "round(self.hard_fraction * int(counted.sum()))",
        "round(self.hard_fraction * losses.numel())",
    ),
    Mutation(
        "training: deep supervision",
        "total + self.auxiliary_weight * self.loss(logits, labels)",
        "total + self.loss(logits, labels)",
    ),
    Mutation("training: weights of Eq. 7", '"boundary": 3.0, "direction": 0.7', '"boundary": 0.7, "direction": 3.0'),
    Mutation("training: class weights", "self.class_weights[labels[counted]].sum()", "counted.sum()"),
]


class Plan(NamedTuple):
    """Where a mistake is planted, and which tests could notice."""

    file: Path
    """Relative to the package's parent folder."""
    tests: list[str]


def plan(mutation: Mutation, source: Path, data: CoverageData, cost: dict[str, float]) -> Plan | str:
    """Where the text stands, and the tests that run it, the cheapest first; or why there is nothing to do."""
    texts = {path: path.read_text(encoding="utf-8") for path in (source / PACKAGE).rglob("*.py")}
    found = [path for path, text in texts.items() for _ in range(text.count(mutation.old))]
    if len(found) != 1:
        return f"occurs {len(found)} times"
    file = found[0].relative_to(source)
    recorded = [name for name in data.measured_files() if Path(name).parts[-len(file.parts) :] == file.parts]
    if not recorded:
        return "file without coverage"
    by_line = data.contexts_by_lineno(recorded[0])
    text = texts[found[0]]
    first = text[: text.index(mutation.old)].count("\n") + 1
    last = first + mutation.old.count("\n")
    tests = contexts(by_line, *statement(ast.parse(text), first, last)) or contexts(by_line, 1, text.count("\n") + 1)
    return Plan(file, sorted(tests, key=lambda test: (cost[test], test))[:TESTS_AT_MOST])


def contexts(by_line: dict[int, list[str]], first: int, last: int) -> set[str]:
    """The tests that ran any of these lines."""
    found = {context for line in range(first, last + 1) for context in by_line.get(line, [])}
    return {test_of(context) for context in found if "::" in context}


def test_of(context: str) -> str:
    """pytest-cov appends the phase: `tests/test_nn.py::test_a|run`."""
    return context.rsplit("|", 1)[0]


def statement(tree: ast.AST, first: int, last: int) -> tuple[int, int]:
    """First and last line of the innermost statement there: of a function's head its body, of others the head alone."""
    lines = first, last
    for node in ast.walk(tree):  # outer nodes come before inner ones
        if isinstance(node, ast.stmt) and node.lineno <= first and last <= (node.end_lineno or 0):
            lines = node.lineno, node.end_lineno or node.lineno
            body = getattr(node, "body", None)
            if body and last < body[0].lineno:
                is_function = isinstance(node, ast.FunctionDef)
                lines = (body[0].lineno, node.end_lineno or 0) if is_function else (node.lineno, body[0].lineno - 1)
    return lines


def costs(data: CoverageData, durations: Path | None) -> dict[str, float]:
    """What orders the tests: seconds in pytest's list of the slowest; below these, lines of code that they run."""
    lines: Counter[str] = Counter()
    for name in data.measured_files():
        for ran in data.contexts_by_lineno(name).values():
            lines.update({test_of(context) for context in ran})
    cost = {test: count * 1e-9 for test, count in lines.items()}
    seconds: defaultdict[str, float] = defaultdict(float)
    if durations is not None:
        for each in re.finditer(r"^\s*([\d.]+)s (?:call|setup)\s+(\S.*?)$", durations.read_text(), re.MULTILINE):
            seconds[each[2]] += float(each[1])
    return cost | {test: value for test, value in seconds.items() if test in cost}


def run_tests(source: Path, root: Path, tests: Sequence[str], seconds: float) -> tuple[str, list[str]]:
    """passed, failed or time; and the tests that failed, or that pytest does not find."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider", "--tb=no", *tests]
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "time", []
    if done.returncode == 0:
        return "passed", []
    output = done.stdout + done.stderr
    missing = re.findall(
        r"^ERROR: (?:not found|file or directory not found): (?:.*?/)?(tests/.*)$", output, re.MULTILINE
    )
    if done.returncode == 4:
        return "missing", [test for test in tests if any(test == name.strip() for name in missing)]
    named = re.findall(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", output, re.MULTILINE)
    return "failed", [test for test in tests if any(name.startswith(test) for name in named)]


def try_out(mutation: Mutation, source: Path, root: Path, data: CoverageData, cost: dict[str, float]) -> dict[str, str]:
    """Plant a mistake and run the tests: caught, survived or not applicable, with details."""
    planned = plan(mutation, source, data, cost)
    if isinstance(planned, str):
        return {"result": "not applicable", "details": planned}
    tests = planned.tests
    with tempfile.TemporaryDirectory() as folder:
        sound, changed = Path(folder) / "sound", Path(folder) / "changed"
        for copy in (sound, changed):
            shutil.copytree(source / PACKAGE, copy / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        path = changed / planned.file
        path.write_text(path.read_text(encoding="utf-8").replace(mutation.old, mutation.new), encoding="utf-8")
        end = time.monotonic() + SECONDS_AT_MOST
        for _ in range(RETRIES):
            if not tests:
                break
            outcome, named = run_tests(changed, root, tests, max(end - time.monotonic(), 1))
            if outcome == "failed" and (not named or run_tests(sound, root, named[:1], 120)[0] == "passed"):
                return {"result": "caught", "details": named[0] if named else "no test can be collected"}
            if outcome in ("passed", "time") or not named:
                details = "time is up" if outcome == "time" else f"{len(tests)} tests pass"
                return {"result": "survived", "details": details}
            tests = [test for test in tests if test not in named]  # gone, or failing anyway
    return {"result": "survived", "details": "no test ran to an end" if planned.tests else "no test runs it"}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="folder with the package crispseg")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", help="folder of the tests")
    parser.add_argument("--coverage", type=Path, default=ROOT / ".coverage", help="coverage data with contexts")
    parser.add_argument("--durations", type=Path, help="output of pytest --durations, to run quick tests first")
    parser.add_argument("--only", nargs="+", metavar="ID", help="mutations whose id begins so, such as 'nn:'")
    parser.add_argument("--json", type=Path, help="also write the results there")
    arguments = parser.parse_args(argv)
    data = CoverageData(str(arguments.coverage))
    data.read()
    cost = costs(data, arguments.durations)
    results: dict[str, dict[str, str]] = {}
    console = Console()
    for mutation in MUTATIONS:
        if arguments.only and not mutation.id.startswith(tuple(arguments.only)):
            continue
        began = time.monotonic()
        found = try_out(mutation, arguments.source.resolve(), arguments.tests.resolve().parent, data, cost)
        results[mutation.id] = {**found, "seconds": f"{time.monotonic() - began:.0f}"}
        console.print(
            f"{mutation.id}: {found['result']} ({found['details']})", markup=False, highlight=False, soft_wrap=True
        )
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    table = Table("mutation", "result", "seconds")
    for name, row in results.items():
        table.add_row(name, row["result"], row["seconds"])
    console.print(table)
    console.print(dict(Counter(row["result"] for row in results.values())))


if __name__ == "__main__":
    main()
