"""Whether the tests notice small mistakes that are planted in the code, one at a time.

    python benchmarks/mutations.py --only nn

Each mistake is made in a copy of the code. The fast tests of the changed file's package, `tests/PACKAGE`, run on the
copy until one fails. A mistake is a piece of text that occurs once in the code; others no longer apply.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


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
    Mutation("evaluation: absent class", "present.sum(axis))", "np.ones_like(present).sum(axis))"),
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


def try_out(mutation: Mutation) -> str:
    """Plant a mistake and run the tests; return caught, survived or not applicable."""
    source = ROOT / "src" / "crispseg"
    found = [path for path in source.rglob("*.py") if mutation.old in path.read_text(encoding="utf-8")]
    if len(found) != 1 or found[0].read_text(encoding="utf-8").count(mutation.old) != 1:
        return "not applicable"
    inside = found[0].relative_to(source)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source, Path(folder) / "crispseg", ignore=shutil.ignore_patterns("__pycache__"))
        changed = Path(folder) / "crispseg" / inside
        changed.write_text(changed.read_text(encoding="utf-8").replace(mutation.old, mutation.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, str(ROOT / "tests" / inside.parts[0])],
            env=os.environ | {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            cwd=ROOT,
            check=False,
        )
    return "survived" if done.returncode == 0 else "caught"


def main(argv: Sequence[str] | None = None) -> None:
    """Print what comes of each mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="ID", help="mutations whose id begins so")
    given = parser.parse_args(argv)
    results = Counter[str]()
    for mutation in MUTATIONS:
        if mutation.id.startswith(tuple(given.only)):
            outcome = try_out(mutation)
            results[outcome] += 1
            print(f"{mutation.id}: {outcome}", flush=True)
    print(dict(results))


if __name__ == "__main__":
    main()
