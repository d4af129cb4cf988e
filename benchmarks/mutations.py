"""Plant small mistakes in the code, one at a time, and report whether the tests find them.

    python benchmarks/mutations.py --only nn

Each mistake is made in a copy of the code. The fast tests of the changed package, `tests/PACKAGE`, run until one fails.
A mistake replaces text that occurs exactly once in the code; otherwise it is not applicable.
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

ROOT = Path(__file__).resolve().parents[1]


MUTATIONS: list[tuple[str, str, str]] = [
    ("nn: single value norm", "input.shape[2] * input.shape[3] == 1", "input.shape[2] * input.shape[3] == 2"),
    ("nn: resize skips half", "x.shape[-2:] == torch.Size(size)", "x.shape[-1] == size[-1]"),
    ("nn: gradient of a dot", "return _sum(gradient, source, grid), *", "return _sum(-gradient, source, grid), *"),
    ("nn: gradient of a sum", "return _dot(gradient, source, grid), *", "return _dot(-gradient, source, grid), *"),
    (
        "nn: pixel centres",
        "torch.arange(width, device=device, dtype=torch.float32) + 0.5",
        "torch.arange(width, device=device, dtype=torch.float32) + 0.4",
    ),
    ("nn: edge to edge", "(2 * locations[:, :, :, index] - 1)", "(2 * locations[:, :, :, index] - 0.9)"),
    ("nn: offsets per level", "torch.stack([one * width, one * height])", "torch.stack([one * height, one * width])"),
    ("nn: record detaches", "seen[name] = output.detach()", "seen[name] = output"),
    ("decoders: bins overlap", "(start < (index + 1) * length)", "(start <= (index + 1) * length)"),
    ("decoders: bins' mean", "(rows.sum(0)[:, None] * columns", "(rows.sum(0)[:, None] + columns"),
    (
        "decoders: pooled corners",
        "resize(stage(average_bins(feature, bins)), size, align_corners=True)",
        "resize(stage(average_bins(feature, bins)), size, align_corners=False)",
    ),
    (
        "decoders: merged corners",
        "[resize(level, size, align_corners=self.align_corners) for level in coarser]",
        "[resize(level, size, align_corners=not self.align_corners) for level in coarser]",
    ),
    ("decoders: non-local scale", "value, scale=1.0)", "value, scale=None)"),
    ("decoders: dilation at 8", "(12, 24, 36)", "(6, 12, 18)"),
    ("decoders: dilation of DenseASPP", "rates = (3, 6, 12, 18, 24)", "rates = (3, 6, 12, 18, 25)"),
    ("decoders: DCN's x and y", "dy, dx = torch.unflatten(upcast(offset)", "dx, dy = torch.unflatten(upcast(offset)"),
    ("models: FAM's flow", "* 2 - 1 + dx / width", "* 2 - 1 + dx / height"),
    ("models: correlation", "y : y + height, x : x + width]).mean(1)", "y : y + height, x : x + width]).sum(1)"),
    ("models: DDSM's modulated scores", "sampled_dot(query, key, grid) * modulation", "sampled_dot(query, key, grid)"),
    (
        "models: DDSM's channel map",
        "resize(x_cout, x_l.shape[-2:], align_corners=False)",
        "resize(x_cout, x_l.shape[-2:], align_corners=True)",
    ),
    ("models: AGLN's resampling", "torch.softmax(energies, dim=2)", "torch.softmax(energies, dim=1)"),
    ("models: AGLN's gate", "refined * torch.sigmoid(m)", "refined * torch.sigmoid(-m)"),
    ("models: UN-EPT's positions", "10000.0 ** (-torch.arange(quarter", "1000.0 ** (-torch.arange(quarter"),
    ("models: training heads saved", " if not key.startswith(TRAINING_ONLY)", ""),
    ("evaluation: distance inclusive", "ours[away <= distance]", "ours[away < distance]"),
    ("evaluation: F", "np.divide(2 * precision * recall,", "np.divide(precision * recall,"),
    ("evaluation: nothing predicted", "out=np.ones(matched.shape)", "out=np.zeros(matched.shape)"),
    ("evaluation: union", "self.truth + self.predicted - self.hits", "self.truth + self.predicted"),
    ("evaluation: absent class", "present.sum(axis))", "np.ones_like(present).sum(axis))"),
    ("evaluation: ignored pixels", ".masked_fill_(ignored, IGNORE)", ""),
    ("evaluation: both tails", "tail = (1 - LEVEL / 100) / 2", "tail = 1 - LEVEL / 100"),
    (
        "evaluation: band of Boundary IoU",
        "round(self.dilation_ratio * math.hypot(*maps[0].shape))",
        "math.ceil(self.dilation_ratio * math.hypot(*maps[0].shape))",
    ),
    ("training: poly", "max(0.0, 1 - behind) ** config.power", "max(0.0, 1 - behind) ** 1.0"),
    ("training: warm-up", "(step + 1) / config.warmup", "step / config.warmup"),
    ("training: step schedule", "behind >= share", "behind > share"),
    (
        "training: backbone's rate",
        '(config.backbone_lr_factor if part == "backbone" else 1.0)',
        '(config.backbone_lr_factor if part == "decoder" else 1.0)',
    ),
    (
        "training: hard pixels",
        "round(self.hard_fraction * int(counted.sum()))",
        "round(self.hard_fraction * losses.numel())",
    ),
    (
        "training: deep supervision",
        "total + self.auxiliary_weight * self._of_logits(logits, labels)",
        "total + self._of_logits(logits, labels)",
    ),
    ("training: weights of Eq. 7", '"boundary": 3.0, "direction": 0.7', '"boundary": 0.7, "direction": 3.0'),
    ("training: class weights", "self.class_weights[labels[counted]].sum()", "counted.sum()"),
]
"""Name, text that occurs once in the whole package, and its replacement."""


def try_out(old: str, new: str) -> str:
    """Plant a mistake and run the tests; return caught, survived or not applicable."""
    source = ROOT / "src" / "crispseg"
    found = [path for path in source.rglob("*.py") if old in path.read_text(encoding="utf-8")]
    if len(found) != 1 or found[0].read_text(encoding="utf-8").count(old) != 1:
        return "not applicable"
    inside = found[0].relative_to(source)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source, Path(folder) / "crispseg", ignore=shutil.ignore_patterns("__pycache__"))
        changed = Path(folder) / "crispseg" / inside
        changed.write_text(changed.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="ID", help="prefixes of mutations' names")
    given = parser.parse_args(argv)
    results = Counter[str]()
    for name, old, new in MUTATIONS:
        if name.startswith(tuple(given.only)):
            outcome = try_out(old, new)
            results[outcome] += 1
            print(f"{name}: {outcome}", flush=True)
    print(dict(results))


if __name__ == "__main__":
    main()
