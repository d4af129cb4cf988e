"""Built-in street scenes: drawn on demand, with pixel-exact masks, so that nothing has to be downloaded.

A scene is laid out in metres (street, houses, cars, people, poles), painted from far to near and then photographed:
texture, vignette, blur and sensor noise change the image and never the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.data.dataset import Sample, SegmentationDataset
from crispseg.data.scenes.layout import KERBSTONE, Street, furnish, lay_out_street
from crispseg.data.scenes.painter import Brush, Camera, Kind, Light, Points, Rgb
from crispseg.data.scenes.things import LOOKS, draw_tone
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.labels import LabelSet

FloatImage = NDArray[np.float32]

_CLASSES = LOOKS["classes"]
LABELS = LabelSet(tuple(one["name"] for one in _CLASSES), tuple(tuple(one["color"]) for one in _CLASSES))
# Texture per class id: standard deviation of the grain (one pixel) and of the mottling (a few pixels), in grey levels.
GRAIN, MOTTLE = (np.array([one[key] for one in _CLASSES], np.float32) for key in ("grain", "mottle"))
SMALLEST, LARGEST = 64, 4096  # pixels


def render_scene(
    seed: int | Sequence[int], size: tuple[int, int] = (192, 256)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a street.

    Args:
        seed: non-negative; the same seed and size give the same bytes.
        size: height and width in pixels, each at least 64.

    Returns:
        The image, (H, W, 3) uint8 RGB, and its class ids, (H, W) uint8, without any ignored pixel.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    height, width = size
    camera = Camera(
        focal=height * rng.uniform(0.85, 1.1),
        centre=width * rng.uniform(0.34, 0.66),
        horizon=height * rng.uniform(0.4, 0.52),
        eye=rng.uniform(1.5, 2.3),
        bend=rng.uniform(-0.0016, 0.0016),
    )
    sky = LOOKS["skies"][int(rng.integers(len(LOOKS["skies"])))]
    brush = Brush(np.empty((height, width, 4), np.uint8), camera, _weather(rng, haze=sky[1]), rng)
    street = lay_out_street(rng)
    things = sorted(furnish(rng, street, camera), key=lambda thing: -thing.distance)

    _paint_sky(brush, sky)
    _paint_ground(brush, street)
    _cast_shadows(brush, [solid for thing in things for solid in thing.solids])
    for thing in things:
        if brush.sees(np.concatenate(thing.solids)):
            thing.draw(brush)
    labels = brush.canvas[..., 3].copy()
    return _photograph(rng, brush.canvas[..., :3], labels), labels


def _weather(rng: np.random.Generator, haze: Rgb) -> Light:
    azimuth, elevation = rng.uniform(0, 2 * pi), rng.uniform(0.65, 1.15)
    sun = (cos(elevation) * cos(azimuth), sin(elevation), cos(elevation) * sin(azimuth))
    direct = rng.uniform(0.45, 0.75) if rng.random() < 0.65 else rng.uniform(0.05, 0.15)
    visibility = rng.uniform(140, 400) if rng.random() < 0.8 else rng.uniform(60, 120)
    return Light(sun, direct, 1.02 - 0.7 * direct, haze, visibility)


def _paint_sky(brush: Brush, sky: tuple[Rgb, Rgb]) -> None:
    """Everything down to the horizon: a gradient and clouds."""
    rng, width = brush.rng, brush.canvas.shape[1]
    rows = int(brush.camera.horizon) + 1
    zenith, horizon = np.array(sky, np.float32)
    fall = (np.arange(rows, dtype=np.float32) / rows)[:, None, None] ** 1.3
    air = np.repeat(zenith + fall * (horizon - zenith), width, axis=1)  # (rows, width, 3)
    clouds = np.full((rows, width), rng.uniform(-0.5, 0.3), np.float32)
    for cells, weight in ((3, 0.6), (9, 0.3)):
        coarse = rng.standard_normal((cells, 2 * cells), np.float32)
        clouds += weight * cv2.resize(coarse, (width, rows), interpolation=cv2.INTER_CUBIC)
    veil = np.clip(1.4 * clouds, 0, 0.85)[..., None]
    air += veil * (np.float32(233 * rng.uniform(0.75, 1.05)) - air)
    brush.canvas[:rows, :, :3] = np.clip(air, 0, 255)
    brush.canvas[:rows, :, 3] = Kind.SKY


def _paint_ground(brush: Brush, street: Street) -> None:
    """Everything below the horizon, each pixel by the place on the ground that it shows."""
    rng, camera = brush.rng, brush.camera
    height, width = brush.canvas.shape[:2]
    first = int(camera.horizon) + 1
    rows, columns = np.arange(first, height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    z = camera.focal * camera.eye / (rows - camera.horizon)  # (rows, 1) metres
    x = (columns - camera.centre) * (z / camera.focal) - camera.bend * z * z  # (rows, width) metres

    kind, color = _surface(rng, street, x, z)
    road = kind == Kind.ROAD
    left, near, length = rng.uniform(-6, 1), rng.uniform(4, 14), rng.uniform(2, 8)
    mended = road & (x > left) & (x < left + 2.4) & (z > near) & (z < near + length)
    color[mended] += rng.normal(0, 14)
    slab = rng.uniform(0.5, 1.0)
    joint = (x % slab < 0.012 * z) | (z % slab < 0.003 * z * z)
    color[joint & (kind == Kind.PAVEMENT) & (z < 14)] *= 0.86

    painted = road & _markings(rng, street, x, z, pixel=z / camera.focal)
    kind[painted] = Kind.MARKING
    paint = np.array((220, 218, 210) if rng.random() < 0.8 else (214, 178, 84), np.float32)
    color[painted] += rng.uniform(0.55, 0.9) * (paint - color[painted])

    clear = np.exp(-z / brush.light.visibility)[..., None]
    color *= brush.light.on((0, 1, 0)) * clear
    color += (1 - clear) * np.array(brush.light.haze, np.float32)
    brush.canvas[first:, :, :3] = np.clip(color, 0, 255)
    brush.canvas[first:, :, 3] = kind


def _surface(
    rng: np.random.Generator, street: Street, x: FloatImage, z: FloatImage
) -> tuple[NDArray[np.uint8], FloatImage]:
    """Class ids (H, W) and colours (H, W, 3) of the bare ground."""
    asphalt, paving, grass = (draw_tone(rng, LOOKS[ground]) for ground in ("asphalt", "paving", "grass"))
    stone = (paving[0] + 24, paving[1] + 24, paving[2] + 24)
    outwards = [(Kind.PAVEMENT, stone), (Kind.TERRAIN, grass), (Kind.PAVEMENT, paving), (Kind.TERRAIN, grass)]
    strips = [*reversed(outwards), (Kind.ROAD, asphalt), *outwards]
    left, right = ([side.kerb, side.kerb + KERBSTONE, side.verge, side.pavement] for side in street.sides)
    edges = np.array([-edge for edge in reversed(left)] + right, np.float32)
    strip = np.searchsorted(edges, x)
    if street.crossing:
        near, far = street.crossing
        corner = (z > near - 2.5) & (z < far + 2.5) & ((strip < 2) | (strip > 6))
        strip[corner] = 2  # pavement
        strip[((z > near) & (z < far)).ravel()] = 4  # road
    kinds, colors = (list(column) for column in zip(*strips, strict=True))
    return np.array(kinds, np.uint8)[strip], np.array(colors, np.float32)[strip]


def _markings(
    rng: np.random.Generator, street: Street, x: FloatImage, z: FloatImage, pixel: FloatImage
) -> NDArray[np.bool_]:
    """Where a road is painted, (H, W). Lines are at least 1.5 pixels wide and end where they would be mere dots.

    `pixel` is the width of one pixel on the ground in metres.
    """
    half = np.maximum(0.08, 0.75 * pixel)
    shift, dash = rng.uniform(0, 6), rng.uniform(2.1, 3.6)
    dashed, solid = ((z + shift) % 6 < dash) & (z < 22), z < 32
    painted = np.zeros(x.shape, bool)
    for lane in street.lanes[1:-1]:
        painted |= (abs(x - lane) < half) & (solid if rng.random() < 0.3 else dashed)
    for side in street.sides:
        if rng.random() < 0.35:
            painted |= (abs(x - side.sign * (side.kerb - 0.35)) < half) & solid
    if street.crossing:
        near, far = street.crossing
        painted &= (z < near - 1) | (z > far + 1)
    if street.zebra is not None:
        near, far = street.zebra, street.zebra + 2.8
        painted &= (z < near - 1) | (z > far + 1)
        painted |= (z > near) & (z < far) & (x % 1.1 < 0.55)
    return painted


def _cast_shadows(brush: Brush, solids: Sequence[Points]) -> None:
    """Darken the ground where the hulls of (N, 3) points keep the sun off it."""
    shadow = np.zeros(brush.canvas.shape[:2], np.uint8)
    outlines = brush.camera.pixels(brush.light.cast(np.concatenate(solids)))
    for outline in np.split(outlines, np.cumsum([len(solid) for solid in solids])[:-1]):
        cv2.fillConvexPoly(shadow, cv2.convexHull(outline), 255)
    first = int(brush.camera.horizon) + 1
    soft = cv2.GaussianBlur(shadow[first:], (0, 0), 0.8)
    sunshine = brush.light.direct / (brush.light.direct + brush.light.ambient)
    ground = brush.canvas[first:, :, :3]
    ground[...] = ground * (1 - np.float32(0.9 * sunshine / 255) * soft)[..., None]


def _photograph(rng: np.random.Generator, scene: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Texture, exposure, vignette, blur and sensor noise."""
    height, width = labels.shape
    coarse = rng.standard_normal((height // 3 + 1, width // 3 + 1), np.float32)
    texture = MOTTLE[labels] * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    texture += GRAIN[labels] * rng.standard_normal((height, width), np.float32)
    image: FloatImage = scene + texture[..., None]

    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    across = np.linspace(-1, 1, width, dtype=np.float32) ** 2
    vignette = 1 - np.float32(rng.uniform(0, 0.14)) * (down + across)
    tint = rng.uniform(0.95, 1.25) * (1 + rng.normal(0, 0.03, 3))
    image *= vignette[..., None] * tint.astype(np.float32)

    image = cv2.GaussianBlur(image, (5, 5), rng.uniform(0.4, 0.7))
    noise = rng.random(image.shape, np.float32)
    noise -= 0.5
    image += np.float32(rng.uniform(4, 13)) * noise
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


@dataclass(frozen=True)
class Scenes:
    """Built-in street scenes: 12 classes with pixel-exact masks, drawn on demand, nothing to download.

    Args:
        train: number of scenes to train on.
        val: number of scenes to validate on.
        test: number of scenes to test on.
        height: height of the images in pixels, at least 64.
        width: width of the images in pixels, at least 64.
        seed: another number draws another town.
    """

    train: int = 400
    val: int = 60
    test: int = 60
    height: int = 192
    width: int = 256
    seed: int = 0
    name: ClassVar[str] = "scenes"

    def label_set(self) -> LabelSet:
        return LABELS

    def splits(self) -> tuple[str, ...]:
        return ("train", "val", "test")

    def dataset(self, split: str) -> SegmentationDataset:
        """The scenes of one split.

        Raises:
            CrispsegError: an unknown split, an empty one, a negative seed, or a size under 64 or over 4096.
        """
        if split not in self.splits():
            raise CrispsegError(f"the built-in scenes have no split '{split}'{did_you_mean(split, self.splits())}")
        counts, sides = (1, 1_000_000), (SMALLEST, LARGEST)
        bounds = {"train": counts, "val": counts, "test": counts, "height": sides, "width": sides, "seed": (0, 2**64)}
        for key, (least, most) in bounds.items():
            if not least <= (value := getattr(self, key)) <= most:
                word, bound = ("least", least) if value < least else ("most", most)
                raise CrispsegError(f"data.{key} is {value} for the built-in scenes; set it to at {word} {bound}")
        return SceneDataset(
            split, getattr(self, split), (self.height, self.width), (self.seed, self.splits().index(split))
        )


class SceneDataset(SegmentationDataset):
    """`count` scenes of one split; each is drawn when first asked for and then kept."""

    labels = LABELS

    def __init__(self, split: str, count: int, size: tuple[int, int], seed: tuple[int, int]) -> None:
        self.split, self.size, self.seed = split, size, seed
        self._drawn: list[Sample | None] = [None] * count

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]  # negative indices, and IndexError beyond the end
        sample = self._drawn[index]
        if sample is None:
            sample = Sample(*render_scene((*self.seed, index), self.size), name=f"{self.split}_{index:04d}")
            self._drawn[index] = sample
        return sample
