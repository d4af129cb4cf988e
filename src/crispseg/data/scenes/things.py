"""The things that stand in the built-in street scenes, in metres, colours and brush strokes."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.data.scenes.painter import NEAR, Brush, Kind, Points, Rgb, dim, part, rules


class Thing(Protocol):
    """Something that stands in the street."""

    @property
    def distance(self) -> float:
        """Metres to its far end: things are painted in descending order of it."""

    def solids(self) -> list[Points]:
        """Point clouds (N, 3) whose convex hulls cast its shadow and hold all that is painted."""

    def draw(self, brush: Brush) -> None:
        """Paint it over what is there."""


def upright(base: Points, height: float) -> Points:
    """The (2N, 3) corners of a prism on (N, 3) points."""
    return np.concatenate([base, base + np.array((0.0, height, 0.0))])


@dataclass(frozen=True)
class Building:
    """A house beside the street: one wall along it, one towards the camera."""

    x: float  # of the wall along the street
    outer: float  # x of its back
    near: float
    far: float
    height: float
    rise: float  # of the pitched roof; 0 for a flat one
    wall: Rgb
    roof: Rgb
    glass: Rgb
    trim: Rgb  # string courses, brick joints, shop front
    shop: bool

    @property
    def distance(self) -> float:
        return self.far

    def solids(self) -> list[Points]:
        ground = np.array([(x, 0, z) for x in (self.x, self.outer) for z in (self.near, self.far)], float)
        return [upright(ground, self.height)]

    def draw(self, brush: Brush) -> None:
        x, outer, near, far, top = self.x, self.outer, self.near, self.far, self.height
        inward = -1.0 if x > 0 else 1.0
        along, across = brush.light.on((inward, 0, 0)), brush.light.on((0, 0, -1))
        if self.rise:
            middle, ridge = (x + outer) / 2, top + self.rise
            slope = np.array([(x, top, near), (x, top, far), (middle, ridge, far), (middle, ridge, near)])
            brush.face(slope, Kind.BUILDING, self.roof, brush.light.on((inward * 0.6, 0.8, 0)))
            gable = np.array([(x, top, near), (outer, top, near), (middle, ridge, near)])
            brush.face(gable, Kind.BUILDING, self.wall, across)
        street = np.array([(x, 0, near), (x, 0, far), (x, top, far), (x, top, near)])
        self._wall(brush, street, far - max(near, NEAR), along)
        front = np.array([(x, 0, near), (outer, 0, near), (outer, top, near), (x, top, near)])
        if near > NEAR:
            self._wall(brush, front, abs(outer - x), across)

    def _wall(self, brush: Brush, quad: Points, length: float, shade: float) -> None:
        brush.face(quad, Kind.BUILDING, self.wall, shade)
        scale = brush.camera.focal / max(float(quad[:, 2].mean()), NEAR)  # pixels a metre
        if scale < 1.5 or brush.room(quad) < 5:
            return
        storeys, bays = max(1, round(self.height / 3.1)), max(1, round(length / 2.9))
        courses = storeys if scale < 9 else 6 * storeys  # floors, or stones where there is room for them
        if scale > 3 and courses > 1:
            brush.lines(rules(courses, False) @ quad, Kind.BUILDING, self.trim, shade)
        brush.panes(quad, bays, storeys, Kind.BUILDING, self.glass, shade)
        if self.shop:
            low = 1 / storeys
            brush.face(part(0.04, 0.96, 0.72 * low, 0.98 * low) @ quad, Kind.BUILDING, self.roof, shade)
            brush.face(part(0.06, 0.94, 0.12 * low, 0.68 * low) @ quad, Kind.BUILDING, self.glass, 0.8 * shade)
        brush.face(part(0, 1, 1 - 0.1 / storeys, 1) @ quad, Kind.BUILDING, self.trim, 1.05 * shade)


@dataclass(frozen=True)
class Fence:
    """A stretch of wooden fence or masonry wall."""

    start: tuple[float, float]  # x and z of its near end
    end: tuple[float, float]
    height: float
    color: Rgb
    boards: bool  # upright boards, else courses of stone

    @property
    def distance(self) -> float:
        return max(self.start[1], self.end[1])

    def _corners(self) -> Points:
        (x0, z0), (x1, z1) = self.start, self.end
        return np.array([(x0, 0, z0), (x1, 0, z1), (x1, self.height, z1), (x0, self.height, z0)], float)

    def solids(self) -> list[Points]:
        return [self._corners()]

    def draw(self, brush: Brush) -> None:
        corners = self._corners()
        (x0, z0), (x1, z1) = self.start, self.end
        normal = (-1.0 if x0 > 0 else 1.0, 0.0, 0.0) if x0 == x1 else (0.0, 0.0, -1.0)
        shade = brush.light.on(normal)
        brush.face(corners, Kind.FENCE, self.color, shade)
        metres, room = float(np.hypot(x1 - x0, z1 - z0)), brush.room(corners)
        if not self.boards:
            metres, room = self.height, round(self.height * brush.camera.focal / self.distance)
        strips = min(round(metres / 0.22), room // 3)
        if strips > 1:
            brush.lines(rules(strips, self.boards) @ corners, Kind.FENCE, self.color, 0.72 * shade)
        brush.face(part(0, 1, 0.93, 1) @ corners, Kind.FENCE, self.color, 1.15 * shade)


TURN = np.arange(12) * (2 * pi / 12)
DISC = np.stack([np.cos(TURN), 0 * TURN, np.sin(TURN)], axis=1)  # (12, 3), lying, of radius 1
WHEEL = 0.34 * np.stack([np.cos(TURN), 1 + np.sin(TURN), 0 * TURN], axis=1)  # (12, 3) forward, up, right; on the ground


@dataclass(frozen=True)
class Standing:
    """What stands at one place."""

    x: float
    z: float

    @property
    def distance(self) -> float:
        """Metres to it."""
        return self.z


@dataclass(frozen=True)
class Tree(Standing):
    """A trunk under an irregular crown; a bush when the crown sits on the ground."""

    crown: float  # height of the crown's centre
    radius: float
    leaves: Rgb
    bark: Rgb

    def solids(self) -> list[Points]:
        disc = np.array((self.x, self.crown, self.z)) + 1.1 * self.radius * DISC
        trunk = np.array([(self.x - 0.15, 0, self.z), (self.x + 0.15, 0, self.z)])
        return [disc, upright(trunk, self.crown)]

    def draw(self, brush: Brush) -> None:
        rng, light = brush.rng, brush.light
        scale = brush.camera.focal / self.z
        girth = 0.09 * self.radius
        if self.crown > self.radius:
            foot, top = 1.3 * girth, self.crown
            trunk = [(self.x - foot, 0, self.z), (self.x + foot, 0, self.z), (self.x + girth, top, self.z)]
            trunk.append((self.x - girth, top, self.z))
            brush.face(np.array(trunk), Kind.TREE, self.bark, light.on((0, 0, -1)))
        count = int(np.clip(scale * self.radius, 12, 44))
        turn, reach = rng.uniform(0, 2 * pi, count), np.sqrt(rng.random(count))
        across, up = 0.8 * reach * np.cos(turn), 0.68 * reach * np.sin(turn)
        # Lumps that face away from the light come first, so that the lit ones lie on top.
        lit = up + 0.7 * light.sun[0] * across + rng.normal(0, 0.2, count)
        columns = brush.camera.column(self.x + self.radius * across, np.full(count, self.z))
        rows = brush.camera.row(self.crown + self.radius * up, np.full(count, self.z))
        radii = np.minimum(rng.uniform(0.2, 0.38, count) * self.radius * scale, brush.camera.row(0.0, self.z) - rows)
        lumps = np.rint(np.stack([columns, rows, np.maximum(radii, 1)], axis=1)).astype(int)[np.argsort(lit)]
        for i, tone in enumerate((0.62, 0.78, 0.9, 1.0, 1.12)):
            ink = brush.ink(Kind.TREE, self.leaves, self.z, tone)
            for column, row, radius in lumps[count * i // 5 : count * (i + 1) // 5].tolist():
                cv2.circle(brush.canvas, (column, row), radius, ink, cv2.FILLED)


WINDSCREEN = part(0.08, 0.92, 0.1, 0.86)  # of the cabin's ends
DOORS = part(0.06, 0.48, 0.1, 0.86), part(0.54, 0.94, 0.1, 0.86)  # windows in the cabin's sides
LAMPS = np.stack([part(0.03, 0.19, 0.6, 0.85), part(0.81, 0.97, 0.6, 0.85)])  # of the body's ends


@dataclass(frozen=True)
class Car(Standing):
    """A body and a cabin, each a six-sided block, on four wheels."""

    yaw: float  # 0 drives away from the camera, pi towards it
    length: float
    width: float
    height: float
    waist: float  # height of the bonnet
    cabin: tuple[float, float, float, float]  # rear to front as fractions of the length: base, roof, roof, base
    paint: Rgb

    def _world(self, local: Points) -> Points:
        """(…, 3) forward, up, right → (…, 3) x, y, z."""
        forward, up, right = local[..., 0], local[..., 1], local[..., 2]
        c, s = cos(self.yaw), sin(self.yaw)
        return np.stack([self.x + forward * s + right * c, up, self.z + forward * c - right * s], axis=-1)

    def _block(
        self, low: float, high: float, base: tuple[float, float], top: tuple[float, float], inset: float
    ) -> Points:
        """The (5, 4, 3) faces rear, front, left, right and top; the corners start bottom left, seen from outside."""
        w, v = self.width / 2, self.width / 2 - inset
        rear, front, rear_top, front_top = (self.length * (a - 0.5) for a in (*base, *top))
        a, b, c, d = (rear, low, -w), (rear, low, w), (front, low, w), (front, low, -w)
        e, f, g, h = (rear_top, high, -v), (rear_top, high, v), (front_top, high, v), (front_top, high, -v)
        return self._world(np.array([(a, b, f, e), (c, d, h, g), (d, a, e, h), (b, c, g, f), (e, f, g, h)], float))

    def solids(self) -> list[Points]:
        return [self._block(0, self.height * 0.85, (0, 1), (0.1, 0.9), 0.1).reshape(-1, 3)]

    def draw(self, brush: Brush) -> None:
        size = brush.camera.focal / self.z * self.height  # pixels
        if size < 4:
            return
        body = self._block(0.28, self.waist, (0, 1), (0.02, 0.98), 0.04)
        base, roof = (self.cabin[0], self.cabin[3]), (self.cabin[1], self.cabin[2])
        cabin = self._block(self.waist, self.height, base, roof, 0.16)
        wheels = self._wheels()
        brush.face(wheels, Kind.CAR, (30, 30, 32))
        seen = self._shell(brush, body)
        if size > 10:
            for end, lamp in ((0, (190, 30, 30)), (1, (245, 240, 215))):
                if seen[end]:
                    self._end(brush, body[end], lamp)
            for side, pair in ((2, wheels[:2]), (3, wheels[2:])):
                if seen[side]:
                    brush.face(pair, Kind.CAR, (34, 34, 36))
                    brush.face(0.45 * pair.mean(axis=1, keepdims=True) + 0.55 * pair, Kind.CAR, (135, 135, 140))
        seen = self._shell(brush, cabin)
        panes = [WINDSCREEN @ cabin[side] for side in (0, 1) if seen[side]]
        panes += [door @ cabin[side] for side in (2, 3) if seen[side] for door in DOORS]
        if panes:
            brush.face(np.stack(panes), Kind.CAR, (52, 62, 72))

    def _shell(self, brush: Brush, quads: Points) -> NDArray[np.bool_]:
        """Paint the visible ones of (5, 4, 3) faces and tell which they are."""
        seen = brush.visible(quads)
        up, across = quads[seen, 3] - quads[seen, 0], quads[seen, 1] - quads[seen, 0]
        normals = up[:, [1, 2, 0]] * across[:, [2, 0, 1]] - up[:, [2, 0, 1]] * across[:, [1, 2, 0]]
        normals /= np.sqrt((normals**2).sum(axis=1, keepdims=True))
        for quad, normal in zip(quads[seen], normals.tolist(), strict=True):
            brush.face(quad, Kind.CAR, self.paint, brush.light.on(normal))
        return seen

    def _end(self, brush: Brush, quad: Points, lamp: Rgb) -> None:
        brush.face(part(0, 1, 0, 0.3) @ quad, Kind.CAR, self.paint, 0.55)
        brush.face(part(0.36, 0.64, 0.34, 0.52) @ quad, Kind.CAR, (205, 205, 195))
        brush.face(LAMPS @ quad, Kind.CAR, lamp)

    def _wheels(self) -> Points:
        """(4, 12, 3) discs: two on the left, two on the right."""
        at = [(u * self.length, 0.0, v * self.width / 2) for v in (-1, 1) for u in (-0.31, 0.31)]
        return self._world(WHEEL + np.array(at)[:, None, :])


@dataclass(frozen=True)
class Pedestrian(Standing):
    """Head, torso, arms and two legs."""

    height: float
    stride: float  # half the distance between the feet, metres
    skin: Rgb
    hair: Rgb
    coat: Rgb
    trousers: Rgb

    def solids(self) -> list[Points]:
        feet = np.array([(self.x + dx, 0, self.z) for dx in (-0.2, 0.2)], float)
        return [upright(feet, self.height)]

    def draw(self, brush: Brush) -> None:
        scale = brush.camera.focal / self.z * self.height
        if scale < 9:
            return
        shade = brush.light.on((0, 0, -1))
        h = self.height

        def limb(color: Rgb, *outline: tuple[float, float]) -> None:
            corners = np.array([(self.x + x, y * h, self.z) for x, y in outline])
            brush.face(corners, Kind.PEDESTRIAN, color, shade)

        for step, tone in ((-self.stride, 0.85), (self.stride, 1.0)):
            limb(dim(self.trousers, tone), (-0.1, 0.5), (0.1, 0.5), (step + 0.08, 0.0), (step - 0.08, 0.0))
        swing = 0.5 * self.stride
        sleeve = dim(self.coat, 0.8)
        limb(sleeve, (-0.2, 0.8), (-0.12, 0.8), (-0.18 - swing, 0.46), (-0.26 - swing, 0.46))
        limb(sleeve, (0.12, 0.8), (0.2, 0.8), (0.26 + swing, 0.46), (0.18 + swing, 0.46))
        limb(self.coat, (-0.2, 0.82), (0.2, 0.82), (0.17, 0.45), (-0.17, 0.45))
        ink = [brush.ink(Kind.PEDESTRIAN, color, self.z, shade) for color in (self.hair, self.skin)]
        column, row = round(brush.camera.column(self.x, self.z)), brush.camera.row(0.91 * h, self.z)
        radius = max(1, round(0.075 * scale))
        cv2.circle(brush.canvas, (column, round(row)), radius, ink[0], cv2.FILLED)
        cv2.circle(brush.canvas, (column, round(row + 0.3 * radius)), max(1, round(0.75 * radius)), ink[1], cv2.FILLED)


@dataclass(frozen=True)
class Pole(Standing):
    """A post 2 to 4 pixels wide, with a lamp arm, a traffic sign or traffic lights on it, or nothing."""

    height: float
    color: Rgb
    arm: float = 0.0  # metres towards +x
    sign: str = ""  # "round", "triangle", "square", "lights", or empty for none
    plate: tuple[Rgb, Rgb] = ((0, 0, 0), (0, 0, 0))  # rim and face

    def solids(self) -> list[Points]:
        foot = np.array([(self.x + dx, 0, self.z) for dx in (-0.08, 0.08)], float)
        arm = np.array([(self.x + dx, self.height, self.z) for dx in (0, self.arm)], float)
        return [upright(foot, self.height), arm]

    def draw(self, brush: Brush) -> None:
        camera, scale = brush.camera, brush.camera.focal / self.z
        ink = brush.ink(Kind.POLE, self.color, self.z, brush.light.on((0.8 * brush.light.sun[0], 0, -0.6)))
        width = min(max(round(0.15 * scale), 2), 4)
        left = round(camera.column(self.x, self.z) - width / 2)
        top, foot = round(camera.row(self.height, self.z)), round(camera.row(0.0, self.z))
        cv2.rectangle(brush.canvas, (left, top), (left + width - 1, foot), ink, cv2.FILLED)
        if self.arm:
            lamp = brush.ink(Kind.POLE, (225, 222, 205), self.z)
            end, bulb = left + round(self.arm * scale), left + round(0.65 * self.arm * scale)
            cv2.rectangle(brush.canvas, (left, top), (end, top + 1), ink, cv2.FILLED)
            cv2.rectangle(brush.canvas, (bulb, top + 1), (end, top + 2), lamp, cv2.FILLED)
        middle = left + width / 2 - 0.5
        if self.sign == "lights":
            self._lights(brush, middle, scale)
        elif self.sign:
            self._plate(brush, middle, scale)

    def _lights(self, brush: Brush, column: float, scale: float) -> None:
        row, half = brush.camera.row(self.height - 0.5, self.z), max(2.0, 0.2 * scale)
        corners = (round(column - half), round(row - 2.6 * half)), (round(column + half), round(row + 2.6 * half))
        cv2.rectangle(brush.canvas, *corners, brush.ink(Kind.SIGN, self.plate[0], self.z), cv2.FILLED)
        burning = brush.rng.integers(3)
        for i, lamp in enumerate(((230, 60, 45), (235, 180, 50), (70, 210, 120))):
            ink = brush.ink(Kind.SIGN, lamp, self.z, 1.0 if i == burning else 0.35)
            at = round(column), round(row + (i - 1) * 1.65 * half)
            cv2.circle(brush.canvas, at, max(1, round(0.5 * half)), ink, cv2.FILLED)

    def _plate(self, brush: Brush, column: float, scale: float) -> None:
        row = brush.camera.row(self.height - 0.4, self.z)
        corners = {"round": 14, "triangle": 3, "square": 4}[self.sign]
        turn = np.arange(corners) * (2 * pi / corners) - (pi / 4 if self.sign == "square" else pi / 2)
        outline = np.stack([np.cos(turn), np.sin(turn)], 1) * max(0.42 * scale, 2.0)
        if self.sign != "round":
            outline *= 1.2
        for color, share in zip(self.plate, (1.0, 0.66), strict=True):
            polygon = np.rint((column, row) + share * outline).astype(np.int32)
            cv2.fillPoly(brush.canvas, [polygon], brush.ink(Kind.SIGN, color, self.z, 0.95))
