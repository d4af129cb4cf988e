"""Settings of custom data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from crispseg.config.settings import CHECKS, Settings
from crispseg.errors import CrispsegError
from crispseg.folders.lookup import INSTANCE_CLASSES
from crispseg.folders.meaning import Declared
from crispseg.folders.names import checked_names, read_names
from crispseg.folders.palettes import Colors, as_color, numbered_colors
from crispseg.io.value_range import check_range
from crispseg.labels import Color


@dataclass(frozen=True, config=CHECKS)
class FolderSettings(Settings):
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
            palette; auto is 0.
        val_ratio: share of the images for validation, if neither folders nor lists define the splits.
        seed: random seed of the choice of these images.
        train_list: text file with the names of the training images, used instead of val_ratio.
        val_list: text file with the names of the validation images. With only one list, the other split is the rest.
        test_list: text file with the names of the test images.
        group: keeps images of one patient, scene or video in one split. `folder` groups by sub-folder. A name pattern,
            such as patient*_slice*, groups by the text of its first *, or of {*} as in slice*_P{*}.
        copies: keeps copies of one image in one split. `names` finds copies by names of augmentation tools, such as
            a_aug_1 and a_flip; `pixels` also finds equal, mirrored and rotated images; `none` disables the search.
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
        licence: licence of the images and masks, such as CC-BY-4.0, which models that are trained on them record.
    """

    prefix: ClassVar[str] = "data."
    images: str | Path | None = None
    masks: str | Path | None = None
    root: str | Path | None = None
    classes: list[str] | str | Path | None = None
    num_classes: int | None = None
    palette: list[Colors] | str | Path | None = None
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
    licence: str | None = None

    def __post_init__(self) -> None:
        if self.root is None and None in (self.images, self.masks or self.instances):
            raise CrispsegError("give either data.root, or data.images and data.masks (or data.instances)")
        if self.of_instances and (self.palette is not None or self.ignore):
            raise CrispsegError("data.palette and data.ignore apply to data.masks; leave them out, or give data.masks")
        folds = self.folds or 1
        if self.fold > folds:
            raise CrispsegError(f"data.fold is {self.fold}; give 1 to {folds}, the number of data.folds")
        if self.group not in (None, "folder") and "*" not in str(self.group):
            raise CrispsegError("has no *; give folder, or a pattern such as patient*_slice*", "data.group")
        check_range(self.value_range, "data.value_range")

    @property
    def of_instances(self) -> bool:
        """Whether masks are made from `instances`."""
        return self.instances is not None and self.masks is None and self.root is None

    def class_list(self, file: Path | None) -> list[str] | str | Path | None:
        """Return the class names, or a file of them; `file` is one in the root."""
        classes = file if self.classes is None else self.classes
        if isinstance(classes, str) and "," in classes and not Path(classes).exists():
            return [word.strip() for word in classes.split(",")]
        return classes

    def declared(self, class_file: Path | None = None) -> Declared:
        """Return the declared meaning of the masks; `class_file` is one in the root.

        Contradictions raise a `CrispsegError`.
        """
        colors, names = (None, None) if self.palette is None else numbered_colors(self.palette)
        classes = self.class_list(class_file)
        if isinstance(classes, list):
            names = checked_names(classes, "data.classes")
        elif classes is not None:
            names = read_names(classes)
        elif self.of_instances:
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
            ignored_colors = [list(value) for value in self.ignore if not isinstance(value, int)]
            if ignored_colors:
                raise CrispsegError(f"data.ignore has the colour {ignored_colors[0]}, which needs data.palette; add it")
            return self.ignore
        ignore = tuple(map(as_color, self.ignore))
        if shared := colors.keys() & ignore:
            conflict = f"data.palette and data.ignore both have the colour {list(shared.pop())}"
            raise CrispsegError(f"{conflict}; remove it from one of them, or give data.drop with the name of the class")
        return ignore
