"""Custom data from a folder of images and a folder of masks, optionally in splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from crispseg.config.settings import CHECKS, Settings
from crispseg.data.dataset import DataSource, FileDataset
from crispseg.data.formats import advice_on_annotations
from crispseg.data.open_folder import OpenFolder
from crispseg.errors import CrispsegError, Question
from crispseg.folders.content import content_of, unwrapped
from crispseg.folders.layouts import LAYOUTS, Located, locate, located_at, recognise
from crispseg.folders.lookup import INSTANCE_CLASSES, ColorLookup, IdLookup
from crispseg.folders.meaning import Declared
from crispseg.folders.names import names_or_file, read_names
from crispseg.folders.palettes import as_color, numbered_colors
from crispseg.folders.survey import Pair
from crispseg.folders.tree import Tree
from crispseg.io.value_range import check_range
from crispseg.labels import IGNORE, Color, LabelSet


@dataclass(frozen=True, config=CHECKS)
class Folder(Settings, DataSource):
    """Custom data: images in one folder and masks with the same names in another, or both in one folder.

    The mask of `x.jpg` is `x.png`, `x_mask.png`, `x_label.png`, `mask_x.png` or similar. Mask values are class ids and
    255 means ignore, unless a palette is given or all masks contain only 0 and 255. A grey value v equals the colour
    (v, v, v). Sub-folders are searched. Sub-folders train, val and test of both folders are the splits.

    Args:
        images: folder of images; or a pattern of folders, such as data/*/rgb, or of files, such as data/*.tif.
        masks: folder of masks; or a pattern with the same wildcards.
        root: folder that contains both under common names, such as images and masks or train/images and train/masks, if
            these are not given. It may also contain classes.txt, train.txt, val.txt and test.txt.
        classes: class names in the order of their ids: a list, names separated by commas, or a text file with one name
            per line, or with an id and a name, such as "2 car".
        num_classes: number of classes if they have no names. It is inferred from the masks if classes, num_classes and
            palette are not given.
        palette: colour of each class, [r, g, b] from 0 to 255, or a list of its colours; or a file of colours and
            names: lines "r g b name", CSV, JSON, YAML or CVAT's labelmap.txt. Equal names are one class.
            Classes are displayed in these colours, unless all are greys.
        palette_tolerance: largest RGB distance, 0 to 442, at which another colour counts as the nearest one of
            palette; auto derives it from the masks.
        val_ratio: share of the images for validation, if neither folders nor lists define the splits.
        seed: random seed of the choice of these images.
        train_list: text file with the names of the training images, used instead of val_ratio.
        val_list: text file with the names of the validation images. With only one list, the other split is the rest.
        test_list: text file with the names of the test images.
        group: keeps images of one patient, scene or video in one split. `folder` groups by sub-folder. A name pattern,
            such as patient*_slice*, groups by the text of its first *, or of {*} as in slice*_P{*}.
        copies: keeps copies of one image in one split. `names` finds copies by names of augmentation tools, such as
            a_aug_1 and a_flip; `pixels` also finds equal, mirrored and overlapping images; `none` disables the search.
        folds: number of equal parts of the train and val images, for cross-validation.
        fold: number of the part that is the val split, 1 to folds; the others are the train split.
        ignore: further mask values, or [r, g, b] colours, that mean ignore.
        merge: class → names of the classes to merge into it, as {vehicle: [car, bus]}; it may be new or exist already.
        drop: names of classes to remove; their pixels are ignored.
        exclude: names of images to leave out, or a text file of names; training adds images with odd masks.
        value_range: values of 16-bit images that become black and white, such as [0, 4095]; auto measures them in all
            training images together. `image` measures them in each image, also of 8 bits, for images of different
            exposure.
        instances: folder of instance masks to evaluate objects: grey files with the names of the images. 0 is
            background, and 1, 2, … number the objects of a class. If masks are not given, they are made from these with
            classes background, object and border (within 2 pixels of two objects). Three names in classes
            replace these.
    """

    prefix: ClassVar[str] = "data."
    images: str | Path | None = None
    masks: str | Path | None = None
    root: str | Path | None = None
    classes: list[str] | str | Path | None = None
    num_classes: int | None = None
    palette: list[Color | list[Color]] | str | Path | None = None
    palette_tolerance: Annotated[float, Field(ge=0, le=442)] | Literal["auto"] = "auto"
    val_ratio: Annotated[float, Field(ge=0, le=1)] = 0.2
    seed: NonNegativeInt = 0
    train_list: str | Path | None = None
    val_list: str | Path | None = None
    test_list: str | Path | None = None
    group: str | None = None
    copies: Literal["names", "pixels", "none"] = "pixels"
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: PositiveInt = 1
    ignore: tuple[Annotated[int, Field(ge=0, le=0xFFFF)] | Color, ...] = ()
    merge: dict[str, list[str]] = Field(default_factory=dict)
    drop: list[str] = Field(default_factory=list)
    exclude: list[str] = Field(default_factory=list)
    value_range: tuple[float, float] | Literal["auto", "image"] = "auto"
    instances: str | Path | None = None
    name: ClassVar[str] = "folder"

    def __post_init__(self) -> None:
        both = self.images is not None and (self.masks is not None or self.instances is not None)
        if not both and self.root is None:
            raise CrispsegError("give either data.root, or data.images and data.masks (or data.instances)")
        if self.of_instances and (self.palette is not None or self.ignore):
            raise CrispsegError("data.palette and data.ignore apply to data.masks; leave them out, or give data.masks")
        if self.fold > (self.folds or 1):
            raise CrispsegError(f"data.fold is {self.fold}; give 1 to {self.folds or 1}, the number of data.folds")
        if self.group not in (None, "folder") and "*" not in str(self.group):
            raise CrispsegError("has no *; give folder, or a pattern such as patient*_slice*", "data.group")
        check_range(self.value_range, "data.value_range")

    @property
    def of_instances(self) -> bool:
        """Whether masks are made from `instances`."""
        return self.instances is not None and self.masks is None and self.root is None

    def open(self) -> OpenFolder:
        """Walk through the folders once; a missing folder, or an unknown layout, raises a `CrispsegError`."""
        return self._opened

    @cached_property
    def _opened(self) -> OpenFolder:
        given = {"train": self.train_list, "val": self.val_list, "test": self.test_list}
        lists = {split: Path(file) for split, file in given.items() if file is not None}
        tree = None if self.root is None else unwrapped(Tree.of(self.root))
        return OpenFolder(self, content_of(self._located(tree), lists, tree))

    def _located(self, tree: Tree | None) -> Located:
        """Return the given images and masks, or those in the tree of the root."""
        images, masks = self.images, self.instances if self.of_instances else self.masks
        if images is not None and masks is not None:
            return located_at(Path(images), Path(masks))
        assert tree is not None
        if images is None and masks is None:
            return recognised(tree)
        fitting = (locate(tree, layout) for layout in LAYOUTS)
        usual = next(filter(None, fitting), None) or recognised(tree)
        return located_at(Path(images or usual.images), Path(masks or usual.masks))

    def label_set(self) -> LabelSet:
        """Return names and colours of the classes.

        Raises:
            CrispsegError: the declarations contradict each other, or the masks do not determine the classes.
        """
        return self.open().meaning.labels

    def splits(self) -> tuple[str, ...]:
        """Return the available splits; `dataset` also accepts "all" for all images. Errors are those of `open`."""
        return self.open().splits

    def dataset(self, split: str) -> FileDataset:
        """Return one split, defined by folders, by lists or by a seeded shuffle of the sorted names.

        Raises:
            CrispsegError: the split is unknown or empty, the folders do not match, or a list is wrong.
        """
        return self.open().dataset(split)

    def pairs(self, split: str, strict: bool = True) -> list[Pair]:
        """Return the files of one split, see `OpenFolder.pairs`."""
        return self.open().pairs(split, strict)

    def notes(self) -> list[str]:
        """Return notes about inferred settings, one per line. Errors are those of `dataset`."""
        return self.open().notes()

    def names_to_record(self, pairs: Iterable[Pair]) -> list[str]:
        """Return the names of pairs as in list files."""
        return self.open().full_names(pairs)

    def images_without_mask(self) -> list[Path]:
        """Return the images that have no mask."""
        return [Path(file) for file in self.open().unpaired()["image-without-mask"]]

    def with_fold(self, folds: int, fold: int) -> Folder:
        """Return the data with part number `fold` of `folds` equal parts as val."""
        return replace(self, folds=folds, fold=fold)

    def settled(self) -> Folder:
        """Return the same data with inferred settings declared, so that files added later do not change them.

        Errors are those of `label_set` and `dataset`.
        """
        data = self.open()
        lookup, inferred = data.meaning.lookup, dict[str, Any]()
        if self.copies == "pixels" and len({*data.related("names").values()}) == len({*data.groups.values()}):
            inferred["copies"] = "names"  # so that files are compared once
        if isinstance(lookup, ColorLookup):
            inferred |= {"palette": self.palette or [*lookup.palette], "palette_tolerance": lookup.tolerance}
        elif isinstance(lookup, IdLookup):
            inferred["num_classes"] = self.num_classes if data.declared.count else lookup.classes
            if any(IGNORE in mask.held for mask in data.masks if not mask.colors):
                inferred["ignore"] = (*{*self.ignore, IGNORE},)  # else other masks may seem black and white
        settled = replace(
            self, classes=self.class_list(data.content.classes), exclude=names_or_file(self.exclude), **inferred
        )
        settled.__dict__["_opened"] = replace(data, settings=settled)  # the folder is not walked through again
        return settled

    def class_list(self, file: Path | None) -> list[str] | str | Path | None:
        """Return the class names, or a file of them; `file` is one in the root."""
        classes = file if self.classes is None else self.classes
        if classes is None or isinstance(classes, list) or Path(str(classes)).exists():
            return classes
        words = [word.strip() for word in str(classes).split(",")]
        return words if len(words) > 1 else classes

    def declared(self, class_file: Path | None = None) -> Declared:
        """Return the declared meaning of the masks; `class_file` is one in the root.

        Contradictions raise a `CrispsegError`.
        """
        colors, names = (None, None) if self.palette is None else numbered_colors(self.palette)
        classes = self.class_list(class_file)
        if classes is not None:
            names = tuple(classes if isinstance(classes, list) else read_names(classes))
        elif names is None and self.of_instances:
            names = INSTANCE_CLASSES
        count = self._declared_count(None if classes is None else names, colors)
        tolerance = 0.0 if self.palette_tolerance == "auto" else self.palette_tolerance
        ignore = self._ignored(colors)
        return Declared(count, names, colors, ignore, tolerance, self.of_instances, self.merge, self.drop)

    def _declared_count(self, names: tuple[str, ...] | None, colors: Mapping[Color, int] | None) -> int | None:
        """Return the number of classes that all declarations agree on; None without declarations."""
        declared = {
            "data.classes": None if names is None else len(names),
            "data.num_classes": self.num_classes,
            "data.palette": None if colors is None else len({*colors.values()}),
            "data.instances": len(INSTANCE_CLASSES) if self.of_instances else None,
        }
        counts = {key: count for key, count in declared.items() if count is not None}
        if len({*counts.values()}) > 1:
            stated = ", ".join(f"{key} {count}" for key, count in counts.items())
            raise CrispsegError(f"the numbers of classes differ: {stated}; make them agree")
        return next(iter(counts.values()), None)

    def _ignored(self, colors: Mapping[Color, int] | None) -> tuple[Any, ...]:
        """Return the values to ignore, as colours if there is a palette."""
        if colors is None:
            several = [list(value) for value in self.ignore if not isinstance(value, int)]
            if several:
                raise CrispsegError(f"data.ignore has the colour {several[0]}, which needs data.palette; add it")
            return self.ignore
        ignore = tuple(as_color(value) for value in self.ignore)
        if both := [list(color) for color in colors if color in ignore]:
            conflict = f"data.palette and data.ignore both have the colour {both[0]}"
            raise CrispsegError(f"{conflict}; remove it from one of them, or give data.drop with the name of the class")
        return ignore


def recognised(tree: Tree) -> Located:
    """Return the images and masks in a folder. A `Question` asks where they are, with advice about annotations."""
    try:
        return recognise(tree)
    except Question as question:
        advice = "; ".join(filter(None, [advice_on_annotations(tree), question.advice]))
        raise Question(question.title, question.facts, question.choices, advice) from None


def settle(source: DataSource) -> tuple[DataSource, list[str]]:
    """Return a data source with its inferred settings declared, and notes about them."""
    return source.settled(), source.notes()
