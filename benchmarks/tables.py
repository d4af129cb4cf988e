"""Tables of networks compared on CamVid; each table has one recipe.

To add a table, add it to `TABLES`. Tables share the folder of runs, so a network in several tables has one name and the
same flags.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECIPE = HERE / "camvid.yaml"
SHORT = HERE / "camvid_short.yaml"
RESULTS = HERE / "camvid"
PLOTS = HERE.parent / "docs" / "assets"


@dataclass(frozen=True)
class Entry:
    """Network in a table.

    Args:
        label: name in printed tables.
        flags: flags of `crispseg train` after the recipe.
        seeds: seeds of its runs.
        base: name of the network without the part that this one adds; the paired difference is reported.
        trained_as: name of the entry whose runs are scored; networks of crispseg are then scored at 1×.
        seen: inference scale for networks that do not upscale images themselves. Use it with `trained_as`, since
            training evaluates at 1×.
    """

    label: str
    flags: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    base: str | None = None
    trained_as: str | None = None
    seen: float = 1


@dataclass(frozen=True)
class Comparison:
    """Table of networks.

    Args:
        name: name on the command line and in file names.
        entries: networks by name, in the order of the table.
        distances: distances of boundary F in pixels.
        classes: classes whose IoU is reported.
        recipe: recipe of all trainings.
        halved: whether images have half the height and width.
        corrected: whether intervals are Bonferroni-corrected: 95 % for all gains of the table together.
    """

    name: str
    entries: Mapping[str, Entry]
    distances: tuple[int, ...] = (3,)
    classes: tuple[str, ...] = ()
    recipe: Path = RECIPE
    halved: bool = False
    corrected: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return (180, 240) if self.halved else (360, 480)

    @property
    def scores(self) -> Path:
        """CSV file with a row for each run."""
        return RESULTS / f"{self.name}.csv"

    @property
    def seconds(self) -> Path:
        """CSV file with a row for each network."""
        return RESULTS / f"{self.name}_seconds.csv"

    @property
    def plot(self) -> Path:
        return PLOTS / f"camvid_{self.name}.png"


# "--model NAME" drops the recipe's width, which is for SFNet, so these flags set it.
_UPERNET = "--model upernet --model.width 64"
_DDSM_UPERNET = "--model ddsm_upernet --model.width 64 --model.pixels 9 --model.fuse_levels [3,4]"

_SFNET = Comparison(
    "sfnet",
    {
        "sfnet": Entry("SFNet", base="sfnet_add"),
        "sfnet_add": Entry("SFNet, no flow", "--model.fuse add", seeds=(0,)),
        "smp_fpn": Entry("FPN (smp)", "--model smp_fpn"),
        "smp_deeplabv3plus": Entry("DeepLabV3+ (smp)", "--model smp_deeplabv3plus"),
    },
)

_DDSM = Comparison(
    "ddsm",
    {
        "upernet": Entry("UPerNet", _UPERNET),
        "upernet_dcn": Entry(
            "UPerNet + DCN", f"{_UPERNET} --model.fuse dcn --model.fuse_levels [3,4]", seeds=(0,), base="upernet"
        ),
        "ddsm_upernet_spatial": Entry(
            "UPerNet + S", f"{_DDSM_UPERNET} --model.affinity spatial", seeds=(0,), base="upernet"
        ),
        "ddsm_upernet_channel": Entry(
            "UPerNet + C", f"{_DDSM_UPERNET} --model.affinity channel", seeds=(0,), base="upernet"
        ),
        "ddsm_upernet": Entry("UPerNet + S + C", _DDSM_UPERNET, base="upernet"),
        "deeplabv3plus": Entry("DeepLabV3+", "--model deeplabv3plus --model.width 64", seeds=(0,)),
        "ddsm_deeplabv3plus": Entry(
            "DeepLabV3+ + S + C",
            "--model ddsm_deeplabv3plus --model.width 64 --model.pixels 9",
            seeds=(0,),
            base="deeplabv3plus",
        ),
    },
    distances=(3, 5, 9, 12),
)

_AGLN_WIDTH = "--model agln --model.width 64"
_STRAIGHT = f"{_AGLN_WIDTH} --model.connection straight"
_EQ_4 = "--model.block paper"  # the default when these rows were trained

_AGLN = Comparison(
    "agln",
    {
        "fpn": Entry("FPN", "--model fpn --model.width 64"),
        "agln_minus": Entry("AGLN⁻, straight", f"{_STRAIGHT} --model.refinement none", seeds=(0,), base="fpn"),
        "agln_minus_dense": Entry("AGLN⁻, dense", f"{_AGLN_WIDTH} --model.refinement none", seeds=(0,), base="fpn"),
        "agln_straight": Entry("AGLN, straight, Eq. 4", f"{_STRAIGHT} {_EQ_4}", seeds=(0,), base="fpn"),
        "agln": Entry("AGLN, dense, Eq. 4", f"{_AGLN_WIDTH} {_EQ_4}", base="fpn"),
        "agln_residual": Entry("AGLN, dense", _AGLN_WIDTH, base="fpn"),
        "agln_lite": Entry(
            "AGLN-Lite, dense, Eq. 4", f"--model agln_lite --model.width 64 {_EQ_4}", seeds=(0,), base="fpn"
        ),
        "agln_lite_residual": Entry("AGLN-Lite, dense", "--model agln_lite --model.width 64", seeds=(0,), base="fpn"),
    },
)

# The paper's setting, 16 points and all levels at 1/8, takes too long for this recipe.
_UNEPT_LIGHT = "--model unept --model.width 64 --model.points 4 --model.output_stride 16 --model.refine null"

_UNEPT = Comparison(
    "unept",
    {
        "unept_base": Entry("UN-EPT, L = 1", f"{_UNEPT_LIGHT} --model.levels 1 --model.queries naive", seeds=(0,)),
        "unept_pyramid": Entry(
            "+ pyramid features", f"{_UNEPT_LIGHT} --model.queries naive", seeds=(0,), base="unept_base"
        ),
        "unept": Entry("+ dynamic queries", _UNEPT_LIGHT, seeds=(0,), base="unept_pyramid"),
        "unept_refined": Entry(
            "+ boundary refinement", f"{_UNEPT_LIGHT} --model.refine boundary", seeds=(0,), base="unept"
        ),
        "sfnet": Entry("SFNet"),
        "sfnet_refined": Entry("SFNet + boundary refinement", "--model.refine boundary", base="sfnet"),
    },
)

# First version of crisp: narrow levels, smoothed and concatenated.
_NARROW = "--model crisp --model.width 48 --model.context conv --model.merge concat"

_WIDE = "--model crisp --model.width 256"  # crisp before its channels were halved

_CRISP = Comparison(
    "crisp",
    {
        "crisp": Entry("crisp", "--model crisp"),
        "crisp_s": Entry(
            "crisp_s: images at their size", "--model crisp --model.inference_scale 1", base="crisp", trained_as="crisp"
        ),
        "crisp_l": Entry("crisp_l", "--model crisp_l"),
        "wide": Entry("256 channels", _WIDE, base="crisp"),
        "wide_as_it_is": Entry(
            "… images at their size", f"{_WIDE} --model.inference_scale 1", base="wide", trained_as="wide"
        ),
        "wide_no_flow": Entry("… no flow", f"{_WIDE} --model.fuse add", base="wide"),
        "wide_corners": Entry("… corner pixels aligned", f"{_WIDE} --model.align_corners true", base="wide"),
        "narrow": Entry("48 channels, concatenated", _NARROW, base="crisp"),
        "narrow_as_it_is": Entry(
            "… images at their size", f"{_NARROW} --model.inference_scale 1", base="narrow", trained_as="narrow"
        ),
        "narrow_no_flow": Entry("… no flow", f"{_NARROW} --model.fuse add", base="narrow"),
        "narrow_corners": Entry("… corner pixels aligned", f"{_NARROW} --model.align_corners true", base="narrow"),
        "smp_fpn": Entry("FPN (smp)", "--model smp_fpn"),
        "smp_unet": Entry("U-Net (smp)", "--model smp_unet"),
        "smp_deeplabv3plus": Entry("DeepLabV3+ (smp)", "--model smp_deeplabv3plus"),
        "smp_upernet": Entry("UPerNet (smp)", "--model smp_upernet"),
        "smp_segformer": Entry("SegFormer's decoder (smp)", "--model smp_segformer"),
        "smp_segformer_larger": Entry(
            "… input upscaled 1.33×",
            "--model smp_segformer",
            base="smp_segformer",
            trained_as="smp_segformer",
            seen=1.33,
        ),
        "smp_deeplabv3": Entry("DeepLabV3 (smp)", "--model smp_deeplabv3", seeds=(0,)),
        "smp_pspnet": Entry("PSPNet (smp)", "--model smp_pspnet", seeds=(0,)),
        "lraspp": Entry("LR-ASPP (torchvision)", "--model lraspp", seeds=(0,)),
        "sfnet_lite": Entry("SFNet-Lite", "--model sfnet_lite --model.width 64", seeds=(0,)),
        "crisp_40": Entry("crisp, 40 epochs", "--model crisp --epochs 40", seeds=(0,)),
        "wide_40": Entry("256 channels, 40 epochs", f"{_WIDE} --epochs 40", seeds=(0,)),
        "narrow_40": Entry("48 channels, concatenated, 40 epochs", f"{_NARROW} --epochs 40", seeds=(0,)),
        "smp_fpn_40": Entry("FPN (smp), 40 epochs", "--model smp_fpn --epochs 40", seeds=(0,)),
    },
    classes=("pole",),
)

# Differences of parts, at five seeds.
_five = functools.partial(Entry, seeds=(0, 1, 2, 3, 4))
_PAIRED = Comparison(
    "paired",
    {
        "sfnet": _five("SFNet", base="sfnet_add"),
        "sfnet_add": _five("UPerNet, which is SFNet without flow", "--model.fuse add"),
        "wide": _five("crisp of 256 channels", _WIDE, base="wide_no_flow"),
        "wide_no_flow": _five("… no flow", f"{_WIDE} --model.fuse add"),
        "ddsm_upernet": _five("UPerNet + S + C", _DDSM_UPERNET, base="sfnet_add"),
    },
)


def _fitted(label: str, model: str, base: str | None = None) -> Entry:
    """Return a network by its default settings and five seeds; "--model NAME" drops the recipe's design."""
    return _five(label, f"--model {model} --model.design fitted", base=base)


# Parts of the papers in networks by their default settings, on half-size images. An entry that lacks a part of its base
# has a negative gain if the part helps.
_SHORT = Comparison(
    "short",
    {
        "pair_fpn": _fitted("FPN", "fpn", base="pair_agln"),
        "pair_upernet": _fitted("UPerNet, which is SFNet without FAM", "upernet"),
        "pair_sfnet": _fitted("SFNet", "sfnet", base="pair_upernet"),
        "pair_sfnet_conv": _fitted("SFNet, no PPM", "sfnet --model.context conv", base="pair_sfnet"),
        "pair_spatial": _fitted("UPerNet + S", "ddsm_upernet --model.affinity spatial", base="pair_upernet"),
        "pair_channel": _fitted("UPerNet + C", "ddsm_upernet --model.affinity channel", base="pair_upernet"),
        "pair_ddsm": _fitted("UPerNet + S + C", "ddsm_upernet", base="pair_upernet"),
        "pair_agln": _fitted("AGLN", "agln", base="pair_agln_closed"),
        "pair_agln_closed": _fitted("AGLN, α = 0", "agln_closed"),
        "pair_agln_average": _fitted("AGLN, average pooling", "agln --model.pooling average", base="pair_agln"),
        "pair_agln_one": _fitted("AGLN, N = 1", "agln --model.descriptors 1", base="pair_agln"),
        "pair_agln_minus": _fitted("AGLN⁻", "agln --model.refinement none", base="pair_agln"),
        "pair_unept": _fitted("UN-EPT", "unept", base="pair_unept_level"),
        "pair_unept_level": _fitted("UN-EPT, one level", "unept --model.levels 1"),
        "pair_unept_naive": _fitted("UN-EPT, naive queries", "unept --model.queries naive", base="pair_unept"),
        "pair_unept_straight": _fitted("UN-EPT, no refinement", "unept --model.refine null", base="pair_unept"),
    },
    recipe=SHORT,
    halved=True,
    corrected=True,
)

# Fuse parts of `crisp`; see upsamplers.py. The label of an entry is the name of its part.
_UPSAMPLERS = Comparison(
    "upsamplers",
    {
        f"upsampler_{fuse}": _five(
            fuse, f"--model crisp --model.fuse {fuse}", base=None if fuse == "add" else "upsampler_add"
        )
        for fuse in ("add", "fam", "carafe", "sapa", "fade", "dysample", "sharp_flow")
    },
    recipe=SHORT,
    halved=True,
)

# The papers' networks by their default settings, and what they are compared with.
_PAPERS = Comparison(
    "papers",
    {
        f"{name}_default": Entry(label, f"--model {name}")
        for name, label in {
            "sfnet": "SFNet",
            "ddsm_upernet": "UPerNet with DDSM",
            "agln": "AGLN",
            "unept": "UN-EPT",
            "sfnet_lite": "SFNet-Lite",
            "agln_lite": "AGLN-Lite",
            "ddsm_deeplabv3plus": "DeepLabV3+ with DDSM",
            "crisp": "crisp",
            "fpn": "FPN",
        }.items()
    },
)

# Networks of docs/results.md, timed in turns; their scores are in the tables above.
_ALL = Comparison(
    "all",
    {
        name: dataclasses.replace(table.entries[name], base=None)
        for table, names in (
            (_CRISP, ("crisp_s", "crisp", "crisp_l", "wide", "lraspp")),
            (_CRISP, ("smp_segformer", "smp_segformer_larger", "smp_upernet", "smp_fpn", "smp_unet")),
            (_CRISP, ("smp_deeplabv3plus", "smp_deeplabv3", "smp_pspnet")),
            (_PAPERS, [name for name in _PAPERS.entries if name not in ("crisp_default", "fpn_default")]),
        )
        for name in names
    },
)

TABLES = {
    table.name: table for table in (_CRISP, _SFNET, _DDSM, _AGLN, _UNEPT, _PAIRED, _SHORT, _UPSAMPLERS, _PAPERS, _ALL)
}
