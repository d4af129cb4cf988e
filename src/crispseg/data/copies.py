"""Related images: copies by name and pixels, groups by name, and near duplicates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise, repeat
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import KDTree

from crispseg.folders.facts import ImageFacts, read_image_facts, turns
from crispseg.io.parallel import parallel, spread, tried

T = TypeVar("T", bound=Hashable)

MOST_COMPARED = 10_000  # maximum number of images whose pixels are compared; all names are compared

_CHANGE = (
    r"(?:aug(?:mented|mentation)?(?![-_. ]?(?:19|20)\d\d)[-_. ]?\d*"
    r"|(?:[hv]|horizontal|vertical)?[-_. ]?(?:flip|mirror)(?:ped|ed)?(?:[-_. ]?(?:[hvxy\d]|lr|ud|horizontal|vertical))?"
    r"|rot[-_. ]?(?:45|90|135|180|225|270|315)|rotat(?:ed?|ion)[-_. ]?\d*)"
)
_IMAGE, _UUID = r"(?:jpe?g|png|bmp|tiff?|webp)", r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_COPIED = re.compile(
    rf"(?<=.)(?:[-_. ]{_CHANGE}|(?:_{_IMAGE})?\.rf\.\w+|\.{_IMAGE}_{_UUID})+$|^(?:{_CHANGE}[-_. ])+(?=.)", re.I
)
"""Name affixes of augmentation tools: a_aug_3, a_flip, a_rot90, a_jpg.rf.3f2a, a.png_ and a UUID."""
_PART = re.compile(
    r"(?<=.)(?:[-_. ]?(?:slice|frame|tile|patch|crop)[-_. ]?\d+|[-_. ][xyrc]?\d{1,5}[-_x][xyrc]?\d{1,5})$"
    r"|(?<=frame)[-_. ]\d+$|(?<=.)[-_](?:mp4|mov|avi)[-_]\d+$",
    re.I,
)
"""Name endings of slices, frames and tiles: a_slice_3, a_0_512, a_x0_y512, frame_7."""
_OF_SCENE = re.compile(r"\d{1,4}([-_]\d{1,4})")  # 7-3: an image of scene 7
_SIDE = re.compile(r"(?:[-_](?:left|right|l|r|od|os|p(?:re|ost)(?:[-_]\w+)?)|(?<=\d)[lr])$", re.I)  # of two images
_NOT_GROUPS = (
    "slice|frame|tile|patch|crop|part|page|row|col|column|layer|stack|depth|time|day|hour|img|image|im|pic|picture|photo"
    "|mask|label|class|cls|aug|rot|rotate|flip|copy|version|scale|size|res|level|zoom|mag|view|channel|ch|band|fold"
    "|train|training|val|valid|validation|test|testing|sample|item|file|no|nr|num|by|of"
)
_MEMBER = re.compile(
    rf"(?<![^-_. ])(?!(?:{_NOT_GROUPS}|[a-oq-z])[-_. ]?\d)([a-z]+[-_. ]?)(?!(?:19|20)\d\d)\d+(?![^-_. ])", re.I
)
"""Words with the number of a patient or scene: P01, patient7, case_12; not parts, single letters but p, and years."""
_SCENE = re.compile(r"L[CEMOT]0\d_L\w{3}_(?=\d{6}_)")  # before path and row of a Landsat scene


def original(place: PurePosixPath) -> PurePosixPath:
    """Return the path of the original of an augmented copy; the same path for any other image.

    >>> str(original(PurePosixPath("cells/a_flip_aug_3"))), str(original(PurePosixPath("black_rot_12")))
    ('cells/a', 'black_rot_12')
    """
    return place.with_name(_COPIED.sub("", place.name))


def group_of(pattern: str, place: PurePosixPath) -> str | None:
    """Return the group of an image by its path in the folder of images, without suffix, or None.

    Args:
        pattern: `folder` for the sub-folder; or a pattern of the file name, or of the path if it contains a slash. The
            group is the shortest text of {*}, else the longest of the first *. Any other * matches anything, and [LR]
            one of these letters.
    """
    if pattern == "folder":
        return str(place.parent) if place.parent.name else None
    before, mark, after = pattern.partition("{*}" if "{*}" in pattern else "*")
    first, last = (re.sub(r"\\\[(\w+)\\\]", r"[\1]", re.escape(side)).replace(r"\*", ".*") for side in (before, after))
    found = re.fullmatch(f"{first}(.+{'?' * (mark == '{*}')}){last}", str(place) if "/" in pattern else place.name)
    return found and found[1]


def likely_group(places: Iterable[PurePosixPath]) -> str | None:
    """Return a pattern of `group_of` for images of several patients, scenes, objects or one video, or None."""
    places = list(places)
    matches = (_PART.search(original(place).name) or _OF_SCENE.fullmatch(place.name) for place in places)
    ends = (each[each.lastindex or 0] for each in matches if each)
    parts = Counter("*" + re.sub(r"\d+", "*", end) for end in ends).most_common(1)
    members = Counter(pattern for place in places for pattern in _member_patterns(place.name)).most_common(3)
    sided = (found[0] for place in places[:1] if (found := _SIDE.search(place.name)))
    stars = (f"*{end[: 2 if end[1:2] in 'pP' else 1]}*" if len(end) > 1 else "*[LRlr]" for end in sided)
    clips = len({place.parent for place in places}) > 1 and all(re.match(r"frame[-_. ]?\d", one.name) for one in places)
    inner = {one.parts[:2] for one in places if len(one.parts) == 3}  # such as patient1/scan1 and video2/video2_080
    repeats = len(inner) > len({name for _, name in inner}) or all(name.startswith(folder) for folder, name in inner)
    whole = [*["{*}/*"] * (bool(inner) and repeats), "folder", *stars]
    for pattern, count in [*parts, *zip(whole, repeat(len(places))), *members]:
        groups = Counter(group for place in places if (group := group_of(pattern, place)))
        several = max(groups.values(), default=0) > 1 and (len(groups) > 1 or ("frame" in groups and not clips))
        by_folder = pattern in ("{*}/*", "folder") and not clips
        if by_folder and not any(re.search(r"\d", group) for group in groups):  # may be classes
            continue
        # most images have a member, and the mean group has two of them; else its number is that of the image
        if several and ("{" not in pattern or 2 * count >= max(len(places), 4 * len(groups))):
            return pattern
    return None


def _member_patterns(name: str) -> Iterator[str]:
    """Yield a pattern for each member in a name, if the rest of the name can be the number of the image."""
    if found := _SCENE.search(name):
        yield f"*{found[0]}{{*}}_*"
    for found in _MEMBER.finditer(name):
        before, after = name[: found.start()], name[found.end() :]
        if not before or re.search(r"\d", before + after):
            yield f"{before and '*' + before[-1]}{found[1]}{{*}}{after and after[0] + '*'}"


def together(items: Iterable[T], *keys: Mapping[T, Hashable], pairs: Iterable[tuple[T, T]] = ()) -> dict[T, T]:
    """Return the representative of each item; items that are connected by keys or pairs share one."""
    sets = DisjointSet(items)
    for pair in pairs:
        sets.merge(*pair)
    for key in keys:
        first: dict[Hashable, T] = {}
        for item in items:
            if item in key:
                sets.merge(first.setdefault(key[item], item), item)
    return {item: sets[item] for item in items}


def image_facts(path: Path) -> ImageFacts:
    """Return the facts of a file, cached until it changes; errors are those of `read_image`."""
    stat = path.stat() if path.is_file() else None
    return _facts_of_file(path, stat and (stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=2 * MOST_COMPARED)
def _facts_of_file(path: Path, state: tuple[int, int] | None) -> ImageFacts:
    return read_image_facts(path)


# Largest RMS difference between thumbnails of one image, as a share of their contrast. JPEG compression, resizing and
# sometimes neighbouring video frames stay below it.
NEAR = 0.03
TURNED = 2  # factor of `NEAR` for mirrored or rotated images, which cannot be neighbouring frames
LEAST_CONTRAST = 2.0  # minimum standard deviation of a thumbnail for a comparison, on a scale of 0 to 255
NEIGHBOURS = range(1, 9)  # ranks of the nearest images that an image is compared with


def alike(some: Sequence[ImageFacts], others: Sequence[ImageFacts]) -> list[tuple[int, int]]:
    """Return index pairs of near duplicates in `some` and `others`, including mirrored, rotated and brighter ones."""
    if not some or not others:
        return []
    (ours, contrast), (theirs, _) = _standardised(some), _standardised(others)
    radii = NEAR * np.where(contrast >= LEAST_CONTRAST, 1, -1) * ours[0].size ** 0.5
    # The mean over all turns is a projection, so it never increases distances. One quarter of it is enough.
    low, high = (2 * np.mean(turns(each), 0)[:, :4, :4].reshape(len(each), -1) for each in (theirs, ours))
    distances, near = KDTree(low).query(high, NEIGHBOURS, distance_upper_bound=max(TURNED * radii.max(), 1e-6))
    first, rank = np.nonzero(distances <= TURNED * radii[:, None])
    second = near[first, rank]
    apart = [((turned[first] - theirs[second]) ** 2).sum((1, 2, 3)) ** 0.5 for turned in turns(ours)]
    found = (apart[0] <= radii[first]) | (np.min(apart[1:], 0) <= TURNED * radii[first])
    return list(zip(first[found].tolist(), second[found].tolist(), strict=True))


def natural(path: object) -> list[tuple[str, int]]:
    """Return the key by which paths are sorted with 2 before 10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", str(path))]


# Largest difference between consecutive images of a sequence, as a share of that of others, and fewest such pairs.
# Sequences have 0.05 to 0.4 (CamVid 0.41), and unrelated images 0.8 to 1.1.
SEQUENCE, STEPS = 0.6, 8


def consecutive(places: Sequence[PurePosixPath], images: Sequence[ImageFacts]) -> list[tuple[int, int]]:
    """Return index pairs of images that are consecutive in a series and look alike, as frames and scenes do.

    A series is that of `series_of`, or of `ending_of` such as the camera of 0805_gate and 0835_gate. The result is
    empty unless most consecutive images of a series are much more alike than others.
    """
    keys = [*map(natural, places)]
    thumbnails = _standardised(images)[0].reshape(len(images), -1) if images else np.zeros((0, 1))
    for of in series_of, ending_of:
        series = [of(place) for place in places]
        order = sorted(range(len(places)), key=lambda at: (series[at] or "", keys[at]))
        pairs = [(one, other) for one, other in pairwise(order) if series[one] and series[one] == series[other]]
        if len(pairs) < STEPS or (of is ending_of and len({*series}) == 1):
            continue
        turned = thumbnails[order]
        far = [np.linalg.norm(turned - np.roll(turned, len(order) // part, 0), axis=1) for part in (2, 3)]
        near = np.linalg.norm(thumbnails[[one for one, _ in pairs]] - thumbnails[[other for _, other in pairs]], axis=1)
        bound = SEQUENCE * float(np.median(far))
        if np.median(near) <= bound:
            return [pairs[index] for index in np.flatnonzero(near <= bound)]
    return []


def series_of(place: PurePosixPath) -> str | None:
    """Return the path of an image up to its last number, such as A_take_ of A_take_0012; None without a number."""
    before, *rest = re.split(r"\d+(?=\D*$)", place.name)
    return str(place.with_name(before)) if rest and before else (f"{place.parent}/" if rest else None)


def ending_of(place: PurePosixPath) -> str | None:
    """Return the end of a name after its last number, such as _gate of 20230501_0805_gate, or None."""
    found = re.search(r"\d([-_][^\W\d_]+)$", place.name)
    return found and found[1]


FEWEST, COMMON = 6, 32  # fewest windows of an overlap, and most images in which a window is not a logo or a letter


def sharing(some: Sequence[ImageFacts], others: Sequence[ImageFacts]) -> list[tuple[int, int]]:
    """Return index pairs of images in `some` and `others` that share pixels at another place, as overlapping crops do.

    Equal pixels at equal places, such as borders, logos and the background of a fixed camera, do not count.
    """
    ours, theirs = (
        np.concatenate([np.zeros((0, 4), np.int64), *(np.insert(one.windows, 3, at, 1) for at, one in enumerate(each))])
        for each in (some, others)
    )
    theirs = theirs[theirs[:, 0].argsort()]
    start, end = (np.searchsorted(theirs[:, 0], ours[:, 0], side) for side in ("left", "right"))
    count = np.where(end - start > COMMON, 0, end - start)
    own = ours.repeat(count, 0)
    other = theirs[np.arange(len(own)) + (start - count.cumsum() + count).repeat(count)]
    shift = other[:, 1:3] - own[:, 1:3]
    sizes = [np.array([one.size for one in each]).reshape(-1, 2) for each in (some, others)]
    fixed = (shift == 0) | (shift == sizes[1][other[:, 3]] - sizes[0][own[:, 3]])  # from one of the corners
    rows = np.column_stack([own[:, 3], other[:, 3], shift])[~fixed.all(1)]
    found, count = np.unique(rows, axis=0, return_counts=True)
    return [(one, two) for one, two, *_ in found[count >= FEWEST].tolist()]


def _standardised(images: Sequence[ImageFacts]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return thumbnails `(n, 8, 8, 3)` without brightness and contrast, and the contrast `(n,)` that they had."""
    thumbnails = np.stack([image.thumbnail for image in images])
    contrast = thumbnails.std((1, 2, 3))
    centred = thumbnails - thumbnails.mean((1, 2), keepdims=True)
    return centred / np.maximum(contrast, LEAST_CONTRAST)[:, None, None, None], contrast


def same_pixels(files: Mapping[str, Path]) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """Return hashes by name, equal for mirrored copies, and pairs that overlap, of up to `MOST_COMPARED` images."""
    names = [*files]
    chosen = [names[index] for index in spread(len(names), MOST_COMPARED)]
    found = parallel(tried(image_facts), [files[name] for name in chosen], "Comparing images")
    facts = {name: image for name, image in zip(chosen, found, strict=True) if isinstance(image, ImageFacts)}
    names, images = [*facts], [*facts.values()]
    pairs = [(names[one], names[other]) for one, other in sharing(images, images)]
    return {name: image.digest[:-1] for name, image in facts.items() if not image.constant}, pairs
