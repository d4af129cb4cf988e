"""What was measured, as tables and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Group
from rich.markup import escape

from crispseg.benchmarking.run import Report, Row, Settings
from crispseg.evaluation.tables import text_table
from crispseg.inference.device import processor_name

PACKAGES = ("crispseg", "torch", "timm", "segmentation-models-pytorch")


def as_tables(report: Report) -> Group:
    """The conditions, what networks count and how long a call takes, and how long an image takes to its labels."""
    settings = report.settings
    network, labels = [], []
    for row in report.rows:
        times, name = row.milliseconds, _label(row, settings)
        counts = f"{row.parameters / 1e6:.2f}", f"{row.multiply_adds / 1e9:.2f}"
        network.append([name, *counts, *_one_decimal(times["forward"]), f"{row.ratio['forward']:.2f}"])
        if "total" in times:
            stages = _one_decimal(times[stage].median for stage in ("preprocess", "network", "postprocess"))
            ratio = f"{row.ratio['total']:.2f}" if "total" in row.ratio else "–"  # the baseline is a backbone
            labels.append([name, *stages, *_one_decimal(times["total"]), ratio])
    tables = [
        text_table(
            ["model", "M parameters", "G multiply-adds", "ms", "p95", "×"],
            network,
            title="One call of the network, to logits at the images' size",
        )
    ]
    if labels:
        head = ["model", "pre", "network", "post", "total ms", "p95", "×"]
        tables.append(text_table(head, labels, title="From images to label maps"))
    notes = [
        _conditions(report),
        f"Times are medians (p95: 95th percentiles) of {settings.repeats} rounds after {settings.warmup} of warm-up; "
        f"in each round all take their turn. ×: over the baseline, {escape(report.rows[0].model)}.",
    ]
    if any(row.num_classes is None for row in report.rows):
        notes.append("timm's networks are called to their last features, and give no labels.")
    return Group(*notes, *tables)


def _one_decimal(values: Iterable[float]) -> list[str]:
    return [f"{value:.1f}" for value in values]


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values; times in milliseconds to a tenth of a microsecond."""
    settings = dataclasses.asdict(report.settings)
    return {
        "settings": {**settings, "threads": report.threads, "device": str(report.device)},
        "processor": processor_name(report.device),
        "versions": versions(),
        "baseline": report.rows[0].model,
        "models": [
            {
                **dataclasses.asdict(row),
                "milliseconds": {
                    stage: {key: round(value, 4) for key, value in latency._asdict().items()}
                    for stage, latency in row.milliseconds.items()
                },
                "ratio": {key: round(value, 4) for key, value in row.ratio.items()},
            }
            for row in report.rows
        ],
    }


def _conditions(report: Report) -> str:
    settings = report.settings
    height, width = settings.size
    words = [
        f"{settings.batch} image{'s' if settings.batch > 1 else ''} of {height}×{width} (height × width)",
        f"{settings.num_classes} classes",
        f"backbone {settings.backbone}",
        settings.dtype,
        f"batch norms {'merged' if settings.fold else 'not merged'}",
        "channels last" if settings.channels_last else "channels first",
        f"{report.device}: {processor_name(report.device)}",
        f"{report.threads} thread{'s' if report.threads > 1 else ''}",
        *(f"{name} {number}" for name, number in versions().items()),
    ]
    return ", ".join(words)


def _label(row: Row, settings: Settings) -> str:
    """With what neither the name nor the conditions say of a saved model."""
    unsaid = []
    if row.backbone != settings.backbone and not row.model.partition("{")[0].rstrip().endswith(f":{row.backbone}"):
        unsaid.append(row.backbone)
    if row.num_classes not in (settings.num_classes, None):
        unsaid.append(f"{row.num_classes} classes")
    return f"{row.model} ({', '.join(unsaid)})" if unsaid else row.model


def versions() -> dict[str, str]:
    """The versions of the packages that are compared, where they are installed."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
