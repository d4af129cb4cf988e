"""Palette files, and mask colours that are near palette colours."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, starmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from crispseg.config.yaml_files import parse_yaml
from crispseg.data.dataset import read_lines
from crispseg.data.mask_lookup import TONE, ColorLookup, MaskStatistics, as_colors, in_flat_areas, part
from crispseg.errors import CrispsegError, few, one_line
from crispseg.labels import IGNORE, Color

_COLOR_FIRST = re.compile(r"(?P<color>\d+[\s,]+\d+[\s,]+\d+)(?:[\s,]+(?P<name>\S.*))?")
_NAME_FIRST = re.compile(r"(?:(?P<id>\d+)[,\s]\s*(?=\D))?(?P<name>.*?)[\s,:]+(?P<color>\d+([\s,]+\d+){2})\s*(?::.*)?")
_TITLES = {"red": "r", "green": "g", "blue": "b", "class": "name", "label": "name", "title": "name", "alpha": "a"}
_TITLES |= {title.lower(): title for title in ("r", "g", "b", "a", "name", "id", "trainId")}


def read_palette(path: Path) -> tuple[list[list[Color]], tuple[str, ...] | None]:
    """Read the colours of each class, and the names if all have one; equal names are one class.

    JSON and YAML have {road: [128, 64, 128]}, {"#804080": road}, a list of {name, color}, or `names` and `colors`.
    CSV has the columns r, g, b, and optionally name, id, trainId and a. Text has lines "r g b name", "id name r g b" or
    CVAT's "name:r,g,b:parts:actions". Classes are in the order of ids below 255 if all have one, else in file order.
    """
    lines = read_lines(path)
    delimiter = max(",;\t", key=lines[0].count)
    titles = [word.strip(' "').lower() for word in lines[0].split(delimiter)]
    titles, entries = [_TITLES.get(word, word) for word in titles], list[Mapping[str, Any]]()
    try:
        if path.suffix.lower() in (".json", ".yaml", ".yml"):
            entries = _entries(parse_yaml(path.read_text(encoding="utf-8-sig")))
        elif {*"rgb"} <= {*titles}:
            if unknown := {*titles} - {*_TITLES.values()}:
                raise ValueError(f"the column {min(unknown)} is unknown; remove it, or call it name, id, r, g, b or a")
            for row in csv.DictReader(lines[1:], titles, delimiter=delimiter, skipinitialspace=True):
                ids = {key: int(row[key]) for key in ("id", "trainId") if key in row}
                entries.append({"name": row.get("name"), "color": [row[key] for key in "rgb"], **ids})
        else:
            first = not any(map(str.isdigit, lines[0]))  # header
            entries = [_entry(line.replace('"', "")) for line in lines[first:]]
        found = [each for entry in _ordered(entries) for each in _named_colors(entry)]
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        example = "write lines such as '128 64 128 road', or for example {road: [128, 64, 128]} as YAML"
        raise CrispsegError(f"{path} has no valid colours ({one_line(error)}); {example}") from None
    named = bool(found) and all(name is not None for name, _ in found)
    groups: dict[Any, list[Color]] = {}
    for index, (name, color) in enumerate(found):
        groups.setdefault(name if named else index, []).append(as_color(color))
    return [*groups.values()], tuple(map(str, groups)) if named else None


def _entry(line: str) -> dict[str, Any]:
    after = line.partition(":")[2] or line
    fields = re.split(r"\s*,\s*|(?<=\d)\s+(?=\d+(?:[\s,]|$))" if "," in after else r"\s+", after.strip())
    if "1111" in "".join(str(int(field.isdigit())) for field in fields):
        raise ValueError(f"'{line}' has more than three numbers in a row; separate columns by commas, without alpha")
    if match := _COLOR_FIRST.fullmatch(line) or _NAME_FIRST.fullmatch(line):
        number, color = match.groupdict().get("id"), re.findall(r"\d+", match["color"])
        return {"name": match["name"], "color": color} | ({"id": int(number)} if number else {})
    raise ValueError(f"'{line}' is not 'r g b name'")


def _entries(tree: Any) -> list[Mapping[str, Any]]:
    """Return a mapping with a color, and optionally a name and ids, for each entry of a JSON or YAML file."""
    if isinstance(tree, Mapping):
        lists = [tree[key] for key in ("labels", "classes", "categories") if isinstance(tree.get(key), list)]
        tree = next((each for each in lists if isinstance(each[0], Mapping)), tree)
    if not isinstance(tree, Mapping):
        return [each if isinstance(each, Mapping) else {"color": each} for each in tree]
    colors, names = tree.get("colors", tree.get("palette", tree)), tree.get("names", tree.get("classes"))
    in_hex = isinstance(colors, Mapping) and all(re.fullmatch(r"#[0-9a-fA-F]{6}", str(key)) for key in colors)
    if in_hex and all(isinstance(name, str) for name in colors.values()):
        return [{"name": name, "color": color} for color, name in colors.items()]
    if isinstance(colors, Mapping) and not all(str(key).isdigit() for key in colors):
        return [{"name": name, "color": color} for name, color in colors.items()]
    colors, names = (
        {int(key): value for key, value in (each.items() if isinstance(each, Mapping) else enumerate(each or ()))}
        for each in (colors, names)
    )
    if names and names.keys() != colors.keys():
        raise ValueError(f"names have the ids {few(names)}, but colours {few(colors)}")
    return [{"id": index, "name": names.get(index), "color": color} for index, color in colors.items()]


def _ordered(entries: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the entries sorted by trainId, or otherwise by id, if all have a valid one."""
    for key in ("trainId", "id"):
        ids = [entry.get(key) for entry in entries]
        if outside := [value for value in ids if key == "trainId" and value is not None and not 0 <= value < IGNORE]:
            raise ValueError(f"trainId {outside[0]} is not a class; remove it, or give its colours as data.ignore")
        if all(isinstance(value, int) and 0 <= value < IGNORE for value in ids):
            return sorted(entries, key=lambda entry: int(entry[key]))
    return entries


def _named_colors(entry: Mapping[str, Any]) -> Iterator[tuple[Any, Color]]:
    color = entry.get("color", entry.get("rgb"))
    for one in color if isinstance(color, list) and isinstance(color[0], list) else [color]:
        red, green, blue = bytes.fromhex(one.lstrip("#")) if isinstance(one, str) else map(int, one)
        yield entry.get("name", entry.get("title")), (red, green, blue)


def as_color(value: int | Color) -> Color:
    """Return the colour of a value; a grey value v is (v, v, v). Levels above 255 raise a `CrispsegError`."""
    color = (value, value, value) if isinstance(value, int) else value
    if not all(0 <= level <= 255 for level in color):
        raise CrispsegError(f"{list(color)} is not a colour; write three numbers from 0 to 255: [r, g, b]")
    return color


def numbered_colors(
    palette: Sequence[Color | list[Color]] | str | Path,
) -> tuple[dict[Color, int], tuple[str, ...] | None]:
    """Return colour → class, and class names if known; a colour that two classes share raises a `CrispsegError`."""
    if isinstance(palette, (str, Path)):
        groups, names = read_palette(Path(palette))
    else:
        groups, names = [each if isinstance(each, list) else [each] for each in palette], None
    found = {as_color(color): index for index, group in enumerate(groups) for color in group}
    if twice := [color for index, group in enumerate(groups) for color in group if found[as_color(color)] != index]:
        raise CrispsegError(f"data.palette gives the colour {list(twice[0])} to two classes; use different colours")
    return found, names


NEAR = 16  # largest distance at which a colour may replace a palette colour that its mask lacks
OVERSHOOT = 0.15  # share of the range of levels by which cubic interpolation goes beyond it
FARTHEST = 442.0  # distance between black and white, rounded up


def tolerance_for(lookup: ColorLookup, masks: Iterable[MaskStatistics]) -> tuple[float, int, list[MaskStatistics]]:
    """Determine whether colours that a palette lacks are noise.

    Returns:
        A tolerance: half of the smallest distance between two classes, or `FARTHEST` if colours are farther, as along
        soft edges. The largest distance from the palette, `FARTHEST` if a mask has too many colours. Masks with only
        their possible class colours: colours of flat areas in interpolated and lossy masks, and in other masks colours
        that do not replace a near one.
    """
    palette, ids = np.array([*lookup.meaning]), np.array([*lookup.meaning.values()])
    between = np.linalg.norm(palette[:, None] - palette, axis=-1)[ids[:, None] != ids]
    half, largest, strange, whole = between.min(initial=FARTHEST) / 2, 0.0, [], True
    for mask in masks:
        distances, nearest = KDTree(palette).query(as_colors(mask))
        if mask.lossy or mask.interpolated:
            tone = TONE if mask.colors else TONE * 3**0.5  # distance of a grey that differs by TONE in each channel
            others = in_flat_areas(mask, distances > min(tone, half))
            if not mask.lossy:
                others = np.union1d(others, np.flatnonzero(beyond(as_colors(mask), palette)))
        else:
            alone = (np.bincount(nearest)[nearest] == 1) & (mask.colors or not lookup.in_color)
            others = np.flatnonzero((distances > 0) & ~(alone & (distances <= NEAR)))
        if len(others):
            strange.append(part(mask, others))
        largest, whole = max(largest, distances.max()), whole and mask.distinct == len(distances)
    largest = largest if whole else FARTHEST
    return half if largest <= half else FARTHEST, math.ceil(largest), strange


def beyond(colors: NDArray[Any], palette: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which colours `(n, 3)` no interpolation of palette colours gives, even if it overshoots."""
    low, high = palette.min(0), palette.max(0)
    margin = OVERSHOOT * (high - low)
    return np.asarray(((colors < low - margin) | (colors > high + margin)).any(1))


def proposed(colors: Sequence[Color], masks: Sequence[MaskStatistics]) -> list[Color]:
    """Propose a palette for mask colours that are sorted by frequency.

    A colour is a variant of a near one if no mask contains both. An exception are remaining colours that are near each
    other too, such as ids in one channel.
    """
    held = [{*map(tuple, mask.values.tolist())} for mask in masks]
    kept: list[Color] = []
    for color in colors:
        like = [other for other in kept if math.dist(color, other) <= NEAR]
        if not like or any({color, other} <= one for other in like for one in held):
            kept.append(color)
    near = min(starmap(math.dist, combinations(kept, 2)), default=0.0) <= 2 * NEAR
    return sorted(colors if near else kept)


COLOR_MAPS = "viridis", "plasma", "inferno", "magma", "cividis", "jet", "turbo", "hot"


def color_map_levels(colors: Iterable[Color]) -> dict[Color, int]:
    """Return the levels of colours, 0 to 255, in the colour map of matplotlib that contains all; empty without one."""
    from matplotlib import colormaps  # imported here, because it takes half a second

    for name in COLOR_MAPS:
        table = colormaps[name](np.arange(256), bytes=True)[:, :3].tolist()
        levels = {(red, green, blue): level for level, (red, green, blue) in enumerate(table)}
        if levels.keys() >= {*colors}:
            return levels
    return {}


def palettes_differ(masks: Sequence[MaskStatistics]) -> bool:
    """Return whether a colour of palette files has several indices, or an index is transparent in some files only."""
    indices: dict[Color, set[int]] = {}
    for mask in masks:
        used = {mask.palette[index]: index for index in mask.held if index < len(mask.palette)} if mask.palette else {}
        for color, index in used.items() if len(used) == len(mask.values) else ():  # all colours differ
            indices.setdefault(color, set()).add(index)
    files = [mask for mask in masks if mask.palette]
    clear = set().union(*(mask.held & mask.clear for mask in files))
    opaque = set().union(*(mask.held - mask.clear for mask in files))
    clear &= opaque - {0, IGNORE}  # background and ignored pixels may be both
    return bool(clear) or any(len(found) > 1 for found in indices.values())


def compact(palette: Iterable[Color]) -> str:
    """Return the colours of the classes as a setting for a shell command."""
    return str([*map(list, palette)]).replace(" ", "")
