"""Where things stand in the built-in street scenes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import pi

import numpy as np

from crispseg.data.scenes.painter import NEAR, Camera, Rgb
from crispseg.data.scenes.things import LOOKS, Thing, building, car, draw_tone, fence, pedestrian, pole, tree

KERBSTONE = 0.18  # metres
END = 90.0  # metres; where the street meets its backdrop


@dataclass(frozen=True)
class Side:
    """One side of the street; distances from the camera's path outwards, in metres."""

    sign: int  # -1 left, 1 right
    kerb: float  # where the road ends
    verge: float  # where the grass beside the kerb ends; just behind the kerbstone where there is none
    pavement: float  # where the pavement ends
    line: float  # where houses stand
    parking: bool  # cars stand along the kerb
    park: bool  # trees and fences instead of houses


@dataclass(frozen=True)
class Street:
    """What the ground is like."""

    sides: tuple[Side, Side]  # left and right
    lanes: tuple[float, ...]  # x of the edges of the lanes
    crossing: tuple[float, float] | None  # near and far edge of a cross street
    zebra: float | None  # near edge of a zebra crossing


def lay_out_street(rng: np.random.Generator) -> Street:
    """Draw a street by lot."""
    lane, count = rng.uniform(2.9, 3.4), int(rng.integers(2, 4))
    first = -lane * (rng.integers(count) + 0.5) + rng.uniform(-0.5, 0.5)  # the camera drives in one of the lanes
    lanes = tuple(float(first + lane * i) for i in range(count + 1))
    sides = []
    for sign, edge in ((-1, -lanes[0]), (1, lanes[-1])):
        parking = rng.uniform(2.1, 2.5) if rng.random() < 0.45 else 0.0
        kerb = edge + max(parking, rng.uniform(0.2, 0.5))
        verge = kerb + (rng.uniform(1.0, 2.4) if rng.random() < 0.4 else KERBSTONE)
        pavement = verge + rng.uniform(2.0, 4.2)
        garden = rng.uniform(1.2, 4.0) if rng.random() < 0.5 else 0.0
        sides.append(Side(sign, kerb, verge, pavement, pavement + garden, parking > 0, bool(rng.random() < 0.35)))
    near = rng.uniform(13, 32)
    crossing = (near, near + rng.uniform(6, 9)) if rng.random() < 0.45 else None
    zebra = near - 5.5 if crossing and rng.random() < 0.7 else rng.uniform(7, 16) if rng.random() < 0.25 else None
    return Street((sides[0], sides[1]), lanes, crossing, zebra)


def furnish(rng: np.random.Generator, street: Street, camera: Camera) -> Iterator[Thing]:
    """What stands in and beside the street, in no order."""
    yield from _backdrop(rng)
    for side in street.sides:
        yield from _park(rng, street, side) if side.park else _houses(rng, street, side)
        yield from _street_trees(rng, street, side)
    yield from _cars(rng, street)
    yield from _pedestrians(rng, street)
    yield from _poles(rng, street, camera)


def _free(street: Street, near: float, far: float) -> bool:
    """Whether nothing between these distances would stand on the cross street."""
    return street.crossing is None or far < street.crossing[0] - 1 or near > street.crossing[1] + 1


def _backdrop(rng: np.random.Generator) -> Iterator[Thing]:
    """What closes the view at the end of the street and beyond parks."""
    x = -95.0
    while x < 95:
        wide = rng.uniform(7, 16)
        distance = END + rng.uniform(1, 12)
        if rng.random() < 0.55:
            yield building(rng, x, x + wide, distance, distance + 1, rng.uniform(5, 18))
        else:
            radius = rng.uniform(3, 6)
            leaves, bark = draw_tone(rng, LOOKS["leaves"]), draw_tone(rng, LOOKS["bark"])
            yield tree(x + wide / 2, distance, radius * 0.95, radius, leaves, bark)
        x += wide * rng.uniform(0.6, 1.0)


def _houses(rng: np.random.Generator, street: Street, side: Side) -> Iterator[Thing]:
    z = rng.uniform(-8, 0)
    storeys = rng.uniform(1.8, 4.6)
    fenced = side.line > side.pavement and rng.random() < 0.65
    color, boards, tall = draw_tone(rng, LOOKS["fences"]), bool(rng.random() < 0.5), rng.uniform(0.9, 1.7)
    while z < END:
        length = rng.uniform(7, 15)
        if street.crossing and z < street.crossing[1] + 3 and z + length > street.crossing[0] - 3:
            if (rest := street.crossing[0] - 3 - z) > 5:
                length = rest
            else:
                z = street.crossing[1] + 3
        height = 3.1 * max(1, round(storeys + rng.normal(0, 0.9))) + rng.uniform(0, 1)
        x, depth = side.sign * (side.line + rng.uniform(0, 0.5)), rng.uniform(8, 12)
        if z + length > NEAR:
            yield building(rng, x, x + side.sign * depth, z, z + length, height)
            if fenced:
                yield from _fences(side.sign * (side.pavement + 0.1), z, z + length, tall, color, boards)
        gap = rng.uniform(2.5, 5) if rng.random() < 0.3 else 0.0
        if gap and z + length > NEAR:
            at = z + length + 0.5 * gap
            height, color_across = rng.uniform(1.4, 2.2), draw_tone(rng, LOOKS["fences"])
            yield fence(x, at, x + side.sign * 12, at, height, color_across, bool(rng.random() < 0.5))
        z += length + gap


def _fences(x: float, near: float, far: float, height: float, color: Rgb, boards: bool) -> Iterator[Thing]:
    """A fence along the street, in pieces short enough to be sorted by distance."""
    cuts = np.linspace(max(near, NEAR), far, max(2, round((far - near) / 3.5) + 1)).tolist()
    return (fence(x, start, x, end, height, color, boards) for start, end in pairwise(cuts))


def _park(rng: np.random.Generator, street: Street, side: Side) -> Iterator[Thing]:
    if rng.random() < 0.7:
        style = rng.uniform(0.9, 2.0), draw_tone(rng, LOOKS["fences"]), bool(rng.random() < 0.6)
        near, far = street.crossing or (END, END)
        for start, end in ((NEAR, near - 2), (far + 2, END)):
            if end > start:
                yield from _fences(side.sign * (side.pavement + 0.1), start, end, *style)
    leaves, bark = draw_tone(rng, LOOKS["leaves"]), draw_tone(rng, LOOKS["bark"])
    for z in np.arange(rng.uniform(5, 9), END, rng.uniform(5, 9)):
        at, x = float(z) + rng.uniform(-2, 2), side.sign * (side.pavement + rng.uniform(2.5, 22))
        if _free(street, at - 2, at + 2):
            radius = rng.uniform(1.4, 3.2)
            crown = radius * (rng.uniform(1.5, 2.2) if rng.random() < 0.75 else 0.7)
            yield tree(x, at, crown, radius, draw_tone(rng, (leaves,)), bark)


def _street_trees(rng: np.random.Generator, street: Street, side: Side) -> Iterator[Thing]:
    if rng.random() < 0.45:
        return
    x = side.sign * ((side.kerb + side.verge) / 2 if side.verge > side.kerb + KERBSTONE else side.kerb + 0.7)
    leaves, bark, size = draw_tone(rng, LOOKS["leaves"]), draw_tone(rng, LOOKS["bark"]), rng.uniform(1.1, 2.2)
    for z in np.arange(rng.uniform(7, 16), 70, rng.uniform(8, 16)):
        if _free(street, z - 2, z + 2) and rng.random() < 0.8:
            radius = size * rng.uniform(0.8, 1.2)
            yield tree(x, float(z), radius + rng.uniform(1.6, 2.8), radius, draw_tone(rng, (leaves,), 8), bark)


def _cars(rng: np.random.Generator, street: Street) -> Iterator[Thing]:
    for side in street.sides:
        if side.parking:
            yaw = 0.0 if side.sign > 0 or rng.random() < 0.3 else pi
            for z in np.arange(rng.uniform(5.5, 11), 60, 6.2):
                if rng.random() < 0.6 and _free(street, z - 3, z + 3):
                    yield car(rng, side.sign * (side.kerb - 1.05), float(z) + rng.uniform(-0.4, 0.4), yaw)
    for left, right in pairwise(street.lanes):
        yaw = 0.0 if right > 0 else pi  # those on the left come towards the camera
        for z in np.arange(rng.uniform(7, 26), 70, rng.uniform(13, 26)):
            if rng.random() < 0.55:
                yield car(rng, (left + right) / 2 + rng.uniform(-0.3, 0.3), float(z), yaw)
    if street.crossing and rng.random() < 0.7:
        near, far = street.crossing
        yield car(rng, rng.uniform(-9, 9), 0.25 * far + 0.75 * near, pi / 2)


def _pedestrians(rng: np.random.Generator, street: Street) -> Iterator[Thing]:
    for side in street.sides:
        for _ in range(int(rng.integers(2, 6))):
            x = side.sign * rng.uniform(side.verge + 0.9, side.pavement - 0.3)
            yield pedestrian(rng, x, 6 + 26 * rng.random())
    if street.zebra is not None:
        left, right = street.sides
        for _ in range(int(rng.integers(0, 4))):
            x = rng.uniform(-left.kerb, right.kerb)
            yield pedestrian(rng, x, street.zebra + rng.uniform(0.4, 2.4))


def _poles(rng: np.random.Generator, street: Street, camera: Camera) -> Iterator[Thing]:
    wanted: list[tuple[float, float, float, Thing]] = []  # x, z and half the width of a sign on it, in metres
    for side in street.sides:
        x = side.sign * (side.kerb + 0.45)
        if rng.random() < 0.55:
            color, height, arm = draw_tone(rng, LOOKS["posts"], 8), rng.uniform(4.8, 7), rng.uniform(0.9, 1.8)
            for z in np.arange(rng.uniform(6, 18), 45, rng.uniform(16, 26)).tolist():
                wanted.append((x, z, 0.0, pole(x, z, height, color, -side.sign * arm)))
        for _ in range(int(rng.integers(1, 4))):
            shape, *plate = LOOKS["plates"][int(rng.integers(len(LOOKS["plates"])))]
            post, at = draw_tone(rng, LOOKS["posts"], 8), rng.uniform(5, 22)
            wanted.append((x, at, 0.45, pole(x, at, rng.uniform(2.5, 3.2), post, sign=shape, plate=plate)))
        if street.crossing and street.crossing[0] < 26 and rng.random() < 0.7:
            post, box = draw_tone(rng, LOOKS["posts"], 8), draw_tone(rng, LOOKS["boxes"], 6)
            at = street.crossing[0] - 1.5
            wanted.append((x, at, 0.45, pole(x, at, rng.uniform(3.2, 3.8), post, sign="lights", plate=[box])))
    taken: list[tuple[float, float]] = []  # column and half the width in pixels
    for x, z, half, post_there in sorted(wanted, key=lambda one: one[1]):
        column, reach = camera.column(x, z), 3 + half * camera.focal / z
        # Side by side, two posts would look like one thick one.
        if all(abs(column - other) > reach + its_reach for other, its_reach in taken):
            taken.append((column, reach))
            yield post_there
