"""Where things stand in the built-in street scenes, and which colours they have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from math import pi
from typing import Any

import numpy as np

from crispseg.data.scenes.painter import NEAR, Camera, Rgb
from crispseg.data.scenes.things import Building, Car, Fence, Pedestrian, Pole, Thing, Tree

KERBSTONE = 0.18  # metres
END = 90.0  # metres; where the street meets its backdrop

# Colours of the materials, of plates (shape, rim, face) and of skies (zenith, horizon). They overlap between the
# classes on purpose: grey cars on grey roads, green signs before trees, brown poles before brick, pale houses before a
# pale sky.
COLORS: dict[str, Any] = json.loads(resources.files("crispseg.data.scenes").joinpath("colors.json").read_text())


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

    left: Side
    right: Side
    lanes: tuple[float, ...]  # x of the edges of the lanes
    crossing: tuple[float, float] | None  # near and far edge of a cross street
    zebra: float | None  # near edge of a zebra crossing

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.left, self.right


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
    return Street(sides[0], sides[1], lanes, crossing, zebra)


def draw_tone(rng: np.random.Generator, palette: Sequence[Rgb], spread: float = 12.0) -> Rgb:
    """One of the colours, a little lighter or darker and off in hue."""
    base = palette[int(rng.integers(len(palette)))]
    level, r, g, b = (spread * rng.standard_normal(4)).tolist()
    return base[0] + level + 0.35 * r, base[1] + level + 0.35 * g, base[2] + level + 0.35 * b


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


def _building(rng: np.random.Generator, x: float, outer: float, near: float, far: float, height: float) -> Building:
    wall = draw_tone(rng, COLORS["walls"])
    shift = -26.0 if rng.random() < 0.5 else 24.0
    return Building(
        x=x,
        outer=outer,
        near=near,
        far=far,
        height=height,
        rise=rng.uniform(1.8, 3.5) if rng.random() < 0.5 else 0.0,
        wall=wall,
        roof=draw_tone(rng, COLORS["roofs"]),
        glass=draw_tone(rng, COLORS["glass"]),
        trim=(wall[0] + shift, wall[1] + shift, wall[2] + shift),
        shop=bool(rng.random() < 0.3),
    )


def _backdrop(rng: np.random.Generator) -> Iterator[Thing]:
    """What closes the view at the end of the street and beyond parks."""
    x = -95.0
    while x < 95:
        wide = rng.uniform(7, 16)
        distance = END + rng.uniform(1, 12)
        if rng.random() < 0.55:
            yield _building(rng, x, x + wide, distance, distance + 1, rng.uniform(5, 18))
        else:
            radius = rng.uniform(3, 6)
            yield Tree(
                x + wide / 2,
                distance,
                radius * 0.95,
                radius,
                draw_tone(rng, COLORS["leaves"]),
                draw_tone(rng, COLORS["bark"]),
            )
        x += wide * rng.uniform(0.6, 1.0)


def _houses(rng: np.random.Generator, street: Street, side: Side) -> Iterator[Thing]:
    z = rng.uniform(-8, 0)
    storeys = rng.uniform(1.8, 4.6)
    fenced = side.line > side.pavement and rng.random() < 0.65
    color, boards, tall = draw_tone(rng, COLORS["fences"]), bool(rng.random() < 0.5), rng.uniform(0.9, 1.7)
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
            yield _building(rng, x, x + side.sign * depth, z, z + length, height)
            if fenced:
                yield from _fence(side.sign * (side.pavement + 0.1), z, z + length, tall, color, boards)
        gap = rng.uniform(2.5, 5) if rng.random() < 0.3 else 0.0
        if gap and z + length > NEAR:
            at = z + length + 0.5 * gap
            ends = (x, at), (x + side.sign * 12, at)
            yield Fence(*ends, rng.uniform(1.4, 2.2), draw_tone(rng, COLORS["fences"]), bool(rng.random() < 0.5))
        z += length + gap


def _fence(x: float, near: float, far: float, height: float, color: Rgb, boards: bool) -> Iterator[Fence]:
    """A fence along the street, in pieces short enough to be sorted by distance."""
    cuts = np.linspace(max(near, NEAR), far, max(2, round((far - near) / 3.5) + 1))
    for start, end in pairwise(cuts):
        yield Fence((x, float(start)), (x, float(end)), height, color, boards)


def _park(rng: np.random.Generator, street: Street, side: Side) -> Iterator[Thing]:
    if rng.random() < 0.7:
        style = rng.uniform(0.9, 2.0), draw_tone(rng, COLORS["fences"]), bool(rng.random() < 0.6)
        near, far = street.crossing or (END, END)
        for start, end in ((NEAR, near - 2), (far + 2, END)):
            if end > start:
                yield from _fence(side.sign * (side.pavement + 0.1), start, end, *style)
    leaves, bark = draw_tone(rng, COLORS["leaves"]), draw_tone(rng, COLORS["bark"])
    for z in np.arange(rng.uniform(5, 9), END, rng.uniform(5, 9)):
        at, x = float(z) + rng.uniform(-2, 2), side.sign * (side.pavement + rng.uniform(2.5, 22))
        if _free(street, at - 2, at + 2):
            radius = rng.uniform(1.4, 3.2)
            crown = radius * (rng.uniform(1.5, 2.2) if rng.random() < 0.75 else 0.7)
            yield Tree(x, at, crown, radius, draw_tone(rng, (leaves,)), bark)


def _street_trees(rng: np.random.Generator, street: Street, side: Side) -> Iterator[Thing]:
    if rng.random() < 0.45:
        return
    x = side.sign * ((side.kerb + side.verge) / 2 if side.verge > side.kerb + KERBSTONE else side.kerb + 0.7)
    leaves, bark, size = draw_tone(rng, COLORS["leaves"]), draw_tone(rng, COLORS["bark"]), rng.uniform(1.1, 2.2)
    for z in np.arange(rng.uniform(7, 16), 70, rng.uniform(8, 16)):
        if _free(street, z - 2, z + 2) and rng.random() < 0.8:
            radius = size * rng.uniform(0.8, 1.2)
            yield Tree(x, float(z), radius + rng.uniform(1.6, 2.8), radius, draw_tone(rng, (leaves,), 8), bark)


def _car(rng: np.random.Generator, x: float, z: float, yaw: float) -> Car:
    shapes = (  # length, width, height, waist, cabin
        (4.0, 1.75, 1.48, 0.86, (0.01, 0.1, 0.56, 0.74)),  # hatchback
        (4.6, 1.8, 1.45, 0.84, (0.14, 0.28, 0.6, 0.76)),  # saloon
        (4.4, 1.85, 1.72, 0.98, (0.01, 0.06, 0.6, 0.76)),  # estate
        (5.2, 1.95, 2.25, 1.15, (0.0, 0.01, 0.76, 0.9)),  # van
    )
    length, width, height, waist, cabin = shapes[rng.choice(4, p=(0.35, 0.3, 0.22, 0.13))]
    return Car(
        x, z, yaw + rng.normal(0, 0.025), length, width, height, waist, cabin, draw_tone(rng, COLORS["paints"], 8)
    )


def _cars(rng: np.random.Generator, street: Street) -> Iterator[Thing]:
    for side in street.sides:
        if side.parking:
            yaw = 0.0 if side.sign > 0 or rng.random() < 0.3 else pi
            for z in np.arange(rng.uniform(5.5, 11), 60, 6.2):
                if rng.random() < 0.6 and _free(street, z - 3, z + 3):
                    yield _car(rng, side.sign * (side.kerb - 1.05), float(z) + rng.uniform(-0.4, 0.4), yaw)
    for left, right in pairwise(street.lanes):
        yaw = 0.0 if right > 0 else pi  # those on the left come towards the camera
        for z in np.arange(rng.uniform(7, 26), 70, rng.uniform(13, 26)):
            if rng.random() < 0.55:
                yield _car(rng, (left + right) / 2 + rng.uniform(-0.3, 0.3), float(z), yaw)
    if street.crossing and rng.random() < 0.7:
        near, far = street.crossing
        yield _car(rng, rng.uniform(-9, 9), 0.25 * far + 0.75 * near, pi / 2)


def _pedestrians(rng: np.random.Generator, street: Street) -> Iterator[Thing]:
    def pedestrian(x: float, z: float) -> Pedestrian:
        return Pedestrian(
            x=x,
            z=z,
            height=rng.uniform(1.45, 1.9),
            stride=rng.uniform(0.04, 0.26),
            skin=draw_tone(rng, COLORS["skin"], 6),
            hair=draw_tone(rng, COLORS["hair"], 6),
            coat=draw_tone(rng, COLORS["clothes"]),
            trousers=draw_tone(rng, COLORS["clothes"]),
        )

    for side in street.sides:
        for _ in range(int(rng.integers(2, 6))):
            x = side.sign * rng.uniform(side.verge + 0.9, side.pavement - 0.3)
            yield pedestrian(x, 6 + 26 * rng.random())
    if street.zebra is not None:
        for _ in range(int(rng.integers(0, 4))):
            yield pedestrian(rng.uniform(-street.left.kerb, street.right.kerb), street.zebra + rng.uniform(0.4, 2.4))


def _poles(rng: np.random.Generator, street: Street, camera: Camera) -> Iterator[Thing]:
    wanted: list[Pole] = []
    for side in street.sides:
        x = side.sign * (side.kerb + 0.45)
        if rng.random() < 0.55:
            color, height, arm = draw_tone(rng, COLORS["posts"], 8), rng.uniform(4.8, 7), rng.uniform(0.9, 1.8)
            for z in np.arange(rng.uniform(6, 18), 45, rng.uniform(16, 26)):
                wanted.append(Pole(x, float(z), height, color, -side.sign * arm))
        for _ in range(int(rng.integers(1, 4))):
            shape, rim, face = COLORS["plates"][int(rng.integers(len(COLORS["plates"])))]
            post, at = draw_tone(rng, COLORS["posts"], 8), rng.uniform(5, 22)
            wanted.append(Pole(x, at, rng.uniform(2.5, 3.2), post, sign=shape, plate=(rim, face)))
        if street.crossing and street.crossing[0] < 26 and rng.random() < 0.7:
            post, box = draw_tone(rng, COLORS["posts"], 8), draw_tone(rng, ((44, 46, 44), (62, 60, 52)), 6)
            at = street.crossing[0] - 1.5
            wanted.append(Pole(x, at, rng.uniform(3.2, 3.8), post, sign="lights", plate=(box, box)))
    taken: list[tuple[float, float]] = []  # column and half the width in pixels
    for pole in sorted(wanted, key=lambda pole: pole.z):  # side by side, two posts would look like one thick one
        column = camera.column(pole.x, pole.z)
        reach = 3 + (0.45 * camera.focal / pole.z if pole.sign else 0.0)
        if all(abs(column - other) > reach + its_reach for other, its_reach in taken):
            taken.append((column, reach))
            yield pole
