"""The things that stand in the built-in street scenes: shapes in metres, looks drawn by lot, and brush strokes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from math import cos, pi, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.data.scenes.painter import NEAR, Brush, Kind, Points, Rgb, part, rules

# Colours of the materials, of plates (shape, rim, face) and of skies (zenith, horizon); shapes of cars; and the classes
# with their texture. The colours overlap between the classes on purpose: grey cars on grey roads, green signs before
# trees, brown poles before brick, pale houses before a pale sky.
LOOKS: dict[str, Any] = json.loads(resources.files("crispseg.data.scenes").joinpath("looks.json").read_text())

TURN = np.arange(12) * (2 * pi / 12)
DISC = np.stack([np.cos(TURN), 0 * TURN, np.sin(TURN)], axis=1)  # (12, 3), lying, of radius 1
WHEEL = 0.34 * np.stack([np.cos(TURN), 1 + np.sin(TURN), 0 * TURN], axis=1)  # (12, 3) forward, up, right; on the ground


@dataclass(frozen=True)
class Thing:
    """Something that stands in the street."""

    distance: float  # metres to its far end: things are painted in descending order of it
    solids: list[Points]  # point clouds (N, 3) whose convex hulls cast its shadow and hold all that is painted
    draw: Callable[[Brush], None]  # paints it over what is there


def draw_tone(rng: np.random.Generator, palette: Sequence[Rgb], spread: float = 12.0) -> Rgb:
    """One of the colours, a little lighter or darker and off in hue."""
    base = palette[int(rng.integers(len(palette)))]
    level, r, g, b = (spread * rng.standard_normal(4)).tolist()
    return base[0] + level + 0.35 * r, base[1] + level + 0.35 * g, base[2] + level + 0.35 * b


def panel(x0: float, z0: float, x1: float, z1: float, height: float) -> Points:
    """The corners (4, 3) of an upright rectangle between two places on the ground."""
    return np.array([(x0, 0, z0), (x1, 0, z1), (x1, height, z1), (x0, height, z0)], float)


def building(rng: np.random.Generator, x: float, outer: float, near: float, far: float, height: float) -> Thing:
    """A house between the street at `x` and its back at `outer`: a wall along the street, one towards the camera."""
    wall = draw_tone(rng, LOOKS["walls"])
    shift = -26.0 if rng.random() < 0.5 else 24.0
    trim = (wall[0] + shift, wall[1] + shift, wall[2] + shift)  # string courses, brick joints
    rise = rng.uniform(1.8, 3.5) if rng.random() < 0.5 else 0.0  # of the pitched roof; 0 for a flat one
    roof, glass = draw_tone(rng, LOOKS["roofs"]), draw_tone(rng, LOOKS["glass"])
    shop = rng.random() < 0.3
    storeys = max(1, round(height / 3.1))

    def draw(brush: Brush) -> None:
        inward = -1.0 if x > 0 else 1.0
        along, across = brush.light.on((inward, 0, 0)), brush.light.on((0, 0, -1))
        if rise:
            middle, ridge = (x + outer) / 2, height + rise
            slope = np.array([(x, height, near), (x, height, far), (middle, ridge, far), (middle, ridge, near)])
            brush.face(slope, Kind.BUILDING, roof, brush.light.on((inward * 0.6, 0.8, 0)))
            gable = np.array([(x, height, near), (outer, height, near), (middle, ridge, near)])
            brush.face(gable, Kind.BUILDING, wall, across)
        draw_wall(brush, panel(x, near, x, far, height), far - max(near, NEAR), along)
        if near > NEAR:
            draw_wall(brush, panel(x, near, outer, near, height), abs(outer - x), across)

    def draw_wall(brush: Brush, quad: Points, length: float, shade: float) -> None:
        brush.face(quad, Kind.BUILDING, wall, shade)
        scale = brush.camera.focal / max(float(quad[:, 2].mean()), NEAR)  # pixels a metre
        if scale < 1.5 or brush.room(quad) < 5:
            return
        courses = storeys if scale < 9 else 6 * storeys  # floors, or stones where there is room for them
        if scale > 3 and courses > 1:
            brush.lines(rules(courses, False) @ quad, Kind.BUILDING, trim, shade)
        brush.panes(quad, max(1, round(length / 2.9)), storeys, Kind.BUILDING, glass, shade)
        low = 1 / storeys
        if shop:
            brush.face(part(0.04, 0.96, 0.72 * low, 0.98 * low) @ quad, Kind.BUILDING, roof, shade)
            brush.face(part(0.06, 0.94, 0.12 * low, 0.68 * low) @ quad, Kind.BUILDING, glass, 0.8 * shade)
        brush.face(part(0, 1, 1 - 0.1 * low, 1) @ quad, Kind.BUILDING, trim, 1.05 * shade)

    ends = [panel(x, z, outer, z, height) for z in (near, far)]
    return Thing(far, [np.concatenate(ends)], draw)


def fence(x0: float, z0: float, x1: float, z1: float, height: float, color: Rgb, boards: bool) -> Thing:
    """A stretch of wooden fence, of upright boards, or else of masonry wall, of courses of stone."""
    corners, distance = panel(x0, z0, x1, z1, height), max(z0, z1)

    def draw(brush: Brush) -> None:
        normal = (-1.0 if x0 > 0 else 1.0, 0.0, 0.0) if x0 == x1 else (0.0, 0.0, -1.0)
        shade = brush.light.on(normal)
        brush.face(corners, Kind.FENCE, color, shade)
        metres, room = float(np.hypot(x1 - x0, z1 - z0)), brush.room(corners)
        if not boards:
            metres, room = height, round(height * brush.camera.focal / distance)
        strips = min(round(metres / 0.22), room // 3)
        if strips > 1:
            brush.lines(rules(strips, boards) @ corners, Kind.FENCE, color, 0.72 * shade)
        brush.face(part(0, 1, 0.93, 1) @ corners, Kind.FENCE, color, 1.15 * shade)

    return Thing(distance, [corners], draw)


def tree(x: float, z: float, crown: float, radius: float, leaves: Rgb, bark: Rgb) -> Thing:
    """A trunk under an irregular crown whose centre is at the height `crown`; a bush when that sits on the ground."""

    def draw(brush: Brush) -> None:
        rng, light = brush.rng, brush.light
        scale = brush.camera.focal / z
        girth = 0.09 * radius
        if crown > radius:
            foot = 1.3 * girth
            trunk = np.array([(x - foot, 0, z), (x + foot, 0, z), (x + girth, crown, z), (x - girth, crown, z)])
            brush.face(trunk, Kind.TREE, bark, light.on((0, 0, -1)))
        count = int(np.clip(scale * radius, 12, 44))
        turn, reach = rng.uniform(0, 2 * pi, count), np.sqrt(rng.random(count))
        across, up = 0.8 * reach * np.cos(turn), 0.68 * reach * np.sin(turn)
        # Lumps that face away from the light come first, so that the lit ones lie on top.
        lit = up + 0.7 * light.sun[0] * across + rng.normal(0, 0.2, count)
        columns = brush.camera.column(x + radius * across, np.full(count, z))
        rows = brush.camera.row(crown + radius * up, np.full(count, z))
        radii = np.minimum(rng.uniform(0.2, 0.38, count) * radius * scale, brush.camera.row(0.0, z) - rows)
        lumps = np.rint(np.stack([columns, rows, np.maximum(radii, 1)], axis=1)).astype(int)[np.argsort(lit)]
        for i, tone in enumerate((0.62, 0.78, 0.9, 1.0, 1.12)):
            ink = brush.ink(Kind.TREE, leaves, z, tone)
            for column, row, size in lumps[count * i // 5 : count * (i + 1) // 5].tolist():
                cv2.circle(brush.canvas, (column, row), size, ink, cv2.FILLED)

    disc = np.array((x, crown, z)) + 1.1 * radius * DISC
    return Thing(z, [disc, panel(x - 0.15, z, x + 0.15, z, crown)], draw)


WINDSCREEN = part(0.08, 0.92, 0.1, 0.86)  # of the cabin's ends
DOORS = part(0.06, 0.48, 0.1, 0.86), part(0.54, 0.94, 0.1, 0.86)  # windows in the cabin's sides
LAMPS = np.stack([part(0.03, 0.19, 0.6, 0.85), part(0.81, 0.97, 0.6, 0.85)])  # of the body's ends


def car(rng: np.random.Generator, x: float, z: float, yaw: float) -> Thing:
    """A body and a cabin, each a six-sided block, on four wheels; `yaw` 0 drives away from the camera, pi comes."""
    shape = LOOKS["cars"][rng.choice(len(LOOKS["cars"]), p=[shape["share"] for shape in LOOKS["cars"]])]
    length, width, height, waist = (shape[key] for key in ("length", "width", "height", "waist"))
    base_rear, roof_rear, roof_front, base_front = shape["cabin"]  # as fractions of the length
    yaw += rng.normal(0, 0.025)
    paint = draw_tone(rng, LOOKS["paints"], 8)

    def world(local: Points) -> Points:
        """(…, 3) forward, up, right → (…, 3) x, y, z."""
        forward, up, right = local[..., 0], local[..., 1], local[..., 2]
        c, s = cos(yaw), sin(yaw)
        return np.stack([x + forward * s + right * c, up, z + forward * c - right * s], axis=-1)

    def block(low: float, high: float, base: tuple[float, float], top: tuple[float, float], inset: float) -> Points:
        """The (5, 4, 3) faces rear, front, left, right and top; the corners start bottom left, seen from outside."""
        w, v = width / 2, width / 2 - inset
        rear, front, rear_top, front_top = (length * (share - 0.5) for share in (*base, *top))
        a, b, c, d = (rear, low, -w), (rear, low, w), (front, low, w), (front, low, -w)
        e, f, g, h = (rear_top, high, -v), (rear_top, high, v), (front_top, high, v), (front_top, high, -v)
        return world(np.array([(a, b, f, e), (c, d, h, g), (d, a, e, h), (b, c, g, f), (e, f, g, h)], float))

    def draw(brush: Brush) -> None:
        size = brush.camera.focal / z * height  # pixels
        if size < 4:
            return
        body = block(0.28, waist, (0, 1), (0.02, 0.98), 0.04)
        cabin = block(waist, height, (base_rear, base_front), (roof_rear, roof_front), 0.16)
        at = [(u * length, 0.0, v * width / 2) for v in (-1, 1) for u in (-0.31, 0.31)]
        wheels = world(WHEEL + np.array(at)[:, None, :])  # (4, 12, 3): two on the left, two on the right
        brush.face(wheels, Kind.CAR, (30, 30, 32))
        seen = _paint_block(brush, body, paint)
        if size > 10:
            for end, lamp in ((0, (190, 30, 30)), (1, (245, 240, 215))):
                if seen[end]:
                    brush.face(part(0, 1, 0, 0.3) @ body[end], Kind.CAR, paint, 0.55)
                    brush.face(part(0.36, 0.64, 0.34, 0.52) @ body[end], Kind.CAR, (205, 205, 195))
                    brush.face(LAMPS @ body[end], Kind.CAR, lamp)
            for side, pair in ((2, wheels[:2]), (3, wheels[2:])):
                if seen[side]:
                    brush.face(pair, Kind.CAR, (34, 34, 36))
                    brush.face(0.45 * pair.mean(axis=1, keepdims=True) + 0.55 * pair, Kind.CAR, (135, 135, 140))
        seen = _paint_block(brush, cabin, paint)
        panes = [WINDSCREEN @ cabin[side] for side in (0, 1) if seen[side]]
        panes += [door @ cabin[side] for side in (2, 3) if seen[side] for door in DOORS]
        if panes:
            brush.face(np.stack(panes), Kind.CAR, (52, 62, 72))

    return Thing(z, [block(0, height * 0.85, (0, 1), (0.1, 0.9), 0.1).reshape(-1, 3)], draw)


def _paint_block(brush: Brush, quads: Points, paint: Rgb) -> NDArray[np.bool_]:
    """Paint the visible ones of a car's (5, 4, 3) faces and tell which they are."""
    seen = brush.visible(quads)
    up, across = quads[seen, 3] - quads[seen, 0], quads[seen, 1] - quads[seen, 0]
    normals = up[:, [1, 2, 0]] * across[:, [2, 0, 1]] - up[:, [2, 0, 1]] * across[:, [1, 2, 0]]  # np.cross is slow
    normals /= np.sqrt((normals**2).sum(axis=1, keepdims=True))
    for quad, normal in zip(quads[seen], normals.tolist(), strict=True):
        brush.face(quad, Kind.CAR, paint, brush.light.on(normal))
    return seen


def pedestrian(rng: np.random.Generator, x: float, z: float) -> Thing:
    """Head, torso, arms and two legs."""
    height = rng.uniform(1.45, 1.9)
    stride = rng.uniform(0.04, 0.26)  # half the distance between the feet, metres
    skin, hair = draw_tone(rng, LOOKS["skin"], 6), draw_tone(rng, LOOKS["hair"], 6)
    coat, trousers = draw_tone(rng, LOOKS["clothes"]), draw_tone(rng, LOOKS["clothes"])
    swing = 0.5 * stride
    # Colour, tone and outline: x in metres from the middle, y as fractions of the height.
    limbs = [
        (trousers, 0.85, ((-0.1, 0.5), (0.1, 0.5), (0.08 - stride, 0.0), (-stride - 0.08, 0.0))),
        (trousers, 1.0, ((-0.1, 0.5), (0.1, 0.5), (stride + 0.08, 0.0), (stride - 0.08, 0.0))),
        (coat, 0.8, ((-0.2, 0.8), (-0.12, 0.8), (-0.18 - swing, 0.46), (-0.26 - swing, 0.46))),
        (coat, 0.8, ((0.12, 0.8), (0.2, 0.8), (0.26 + swing, 0.46), (0.18 + swing, 0.46))),
        (coat, 1.0, ((-0.2, 0.82), (0.2, 0.82), (0.17, 0.45), (-0.17, 0.45))),
    ]

    def draw(brush: Brush) -> None:
        scale = brush.camera.focal / z * height
        if scale < 9:
            return
        shade = brush.light.on((0, 0, -1))
        for color, tone, outline in limbs:
            brush.face(np.array([(x + dx, y * height, z) for dx, y in outline]), Kind.PEDESTRIAN, color, tone * shade)
        column, row = round(brush.camera.column(x, z)), brush.camera.row(0.91 * height, z)
        radius = max(1, round(0.075 * scale))
        for color, drop, size in ((hair, 0.0, radius), (skin, 0.3, max(1, round(0.75 * radius)))):
            ink = brush.ink(Kind.PEDESTRIAN, color, z, shade)
            cv2.circle(brush.canvas, (column, round(row + drop * radius)), size, ink, cv2.FILLED)

    return Thing(z, [panel(x - 0.2, z, x + 0.2, z, height)], draw)


def pole(
    x: float, z: float, height: float, color: Rgb, arm: float = 0.0, sign: str = "", plate: Sequence[Rgb] = ()
) -> Thing:
    """A post 2 to 4 pixels wide, with a lamp on an arm `arm` metres to the right, a sign, or nothing.

    A sign is "round", "triangle", "square", of a rim and a face of the colours `plate`, or "lights" in a box of one.
    """

    def draw(brush: Brush) -> None:
        camera, scale = brush.camera, brush.camera.focal / z
        ink = brush.ink(Kind.POLE, color, z, brush.light.on((0.8 * brush.light.sun[0], 0, -0.6)))
        width = min(max(round(0.15 * scale), 2), 4)
        left = round(camera.column(x, z) - width / 2)
        top, foot = round(camera.row(height, z)), round(camera.row(0.0, z))
        cv2.rectangle(brush.canvas, (left, top), (left + width - 1, foot), ink, cv2.FILLED)
        if arm:
            lamp = brush.ink(Kind.POLE, (225, 222, 205), z)
            end, bulb = left + round(arm * scale), left + round(0.65 * arm * scale)
            cv2.rectangle(brush.canvas, (left, top), (end, top + 1), ink, cv2.FILLED)
            cv2.rectangle(brush.canvas, (bulb, top + 1), (end, top + 2), lamp, cv2.FILLED)
        middle = left + width / 2 - 0.5
        if sign == "lights":
            draw_lights(brush, middle, scale)
        elif sign:
            draw_plate(brush, middle, scale)

    def draw_lights(brush: Brush, column: float, scale: float) -> None:
        row, half = brush.camera.row(height - 0.5, z), max(2.0, 0.2 * scale)
        corners = (round(column - half), round(row - 2.6 * half)), (round(column + half), round(row + 2.6 * half))
        cv2.rectangle(brush.canvas, *corners, brush.ink(Kind.SIGN, plate[0], z), cv2.FILLED)
        burning = brush.rng.integers(3)
        for i, lamp in enumerate(((230, 60, 45), (235, 180, 50), (70, 210, 120))):
            ink = brush.ink(Kind.SIGN, lamp, z, 1.0 if i == burning else 0.35)
            at = round(column), round(row + (i - 1) * 1.65 * half)
            cv2.circle(brush.canvas, at, max(1, round(0.5 * half)), ink, cv2.FILLED)

    def draw_plate(brush: Brush, column: float, scale: float) -> None:
        row = brush.camera.row(height - 0.4, z)
        corners = {"round": 14, "triangle": 3, "square": 4}[sign]
        turn = np.arange(corners) * (2 * pi / corners) - (pi / 4 if sign == "square" else pi / 2)
        outline = np.stack([np.cos(turn), np.sin(turn)], 1) * max(0.42 * scale, 2.0)
        if sign != "round":
            outline *= 1.2
        for color, share in zip(plate, (1.0, 0.66), strict=True):
            polygon = np.rint((column, row) + share * outline).astype(np.int32)
            cv2.fillPoly(brush.canvas, [polygon], brush.ink(Kind.SIGN, color, z, 0.95))

    top = np.array([(x, height, z), (x + arm, height, z)], float)
    return Thing(z, [panel(x - 0.08, z, x + 0.08, z, height), top], draw)
