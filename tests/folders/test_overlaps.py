"""Overlapping crops of one image, found by their pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import save

from crispseg.data import Folder
from crispseg.data.examination import shared_images
from crispseg.folders.copies import sharing
from crispseg.folders.facts import image_facts
from crispseg.folders.finding import Severity
from crispseg.folders.wording import line

from .trees import Tree, ids, photo

SIDE = 96


def crops(step: int, maps: int = 4) -> Iterator[np.ndarray]:
    """Nine crops of each map."""
    for number in range(maps):
        size = SIDE + 2 * step
        noise = np.random.default_rng(number).integers(0, 30, (size, size, 3), np.uint8)
        whole = photo(number, (size, size)) // 2 + noise
        for top in range(0, 3 * step, step):
            yield from (whole[top : top + SIDE, left : left + SIDE] for left in range(0, 3 * step, step))


@pytest.mark.parametrize(("step", "bits", "found"), [(37, 8, True), (48, 16, True), (SIDE, 8, False)])
def test_crops_that_overlap_are_named_or_kept_together(step: int, bits: int, found: bool, tmp_path: Path) -> None:
    map_of = {}
    for index, crop in enumerate(crops(step)):
        name = f"{7919 * (index + 1) % 1009:04}"
        map_of[name] = index // 9
        save(tmp_path / f"images/{name}.png", crop if bits == 8 else crop[..., 0] * np.uint16(9))
        save(tmp_path / f"masks/{name}.png", ids(index, crop.shape[:2]))
    for seed in range(4):
        drawn = {split: Folder(root=tmp_path, seed=seed).pairs(split) for split in ("train", "val")}
        both = set.intersection(*({map_of[pair.name] for pair in pairs} for pairs in drawn.values()))
        assert bool(both) != found
    (tmp_path / "val.txt").write_text("\n".join(sorted(map_of)[:5]))
    lines = [line(finding) for finding in shared_images(Folder(root=tmp_path))]
    assert any("images that overlap" in text and "5 of 5 in val" in text for text in lines) == found


def test_crops_of_one_map_are_divided_and_named(tmp_path: Path) -> None:
    for index, crop in enumerate(crops(48, maps=1)):
        save(tmp_path / f"images/{index:03}.png", crop)
        save(tmp_path / f"masks/{index:03}.png", ids(index, crop.shape[:2]))
    data = Folder(root=tmp_path)
    assert len(data.pairs("val")) == 2
    assert any("2 of 2 in val" in line(finding) for finding in shared_images(replace(data, copies="none")))


@pytest.mark.parametrize(("known", "severity"), [(3, Severity.WARNING), (2, Severity.INFORMATION)])
def test_patients_of_half_of_val_that_are_in_train(known: int, severity: Severity, tmp_path: Path) -> None:
    tree = Tree(tmp_path, train=0, val=0)
    for patient in range(8):
        for number in range(3):
            in_val = (number == 0 and patient < known) or patient == 7
            tree.add(f"P{patient:02}_slice_{number}", "val" if in_val else "train")
    found = tree.findings()["parts-in-two-splits"]
    assert found.severity is severity and found.count == known


@pytest.mark.parametrize("shared", ["padding", "border", "logo at the bottom right", "still background", "stamp"])
def test_other_equal_pixels_do_not_count(shared: str) -> None:
    noise, images = np.random.default_rng(9).integers(0, 256, (160, 160, 3), np.uint8), []
    for index in range(40):
        side = 100 + 5 * (index % 3) * (shared[0] == "l")
        image = np.random.default_rng(index).integers(0, 256, (side, side, 3), np.uint8)
        if shared == "padding":
            image[index % 7 * 8 :, index % 5 * 8 :] = 255 * (index % 2)
        elif shared == "border":
            image[:40] = noise[:40, :100]
        elif shared.startswith("logo"):
            image[-50:, -50:] = noise[:50, :50]
        elif shared == "still background":
            image[:, :80] = noise[:100, :80]
        else:  # in nearly all images, at any place
            top, left = index % 8 * 5, index % 10 * 4
            image[top : top + 50, left : left + 50] = noise[:50, :50]
        images.append(image_facts(str(index), image))
    assert not sharing(images, images) and len(images[0].windows) >= (0 if shared == "padding" else 40)
