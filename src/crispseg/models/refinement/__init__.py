"""Refinement of a segmentation along its boundaries. `crispseg.models.boundary_targets` has its training targets."""

from typing import Literal

from crispseg.models.refinement.boundary import (
    DIRECTIONS,
    STEPS,
    STEPS_TAKEN,
    BoundaryRefinement,
    RefinePath,
    SpatialBranch,
    shift,
)

Refinement = Literal["boundary"]
"""What `create_model`'s `refine` can be, beside None."""

REFINE_OPTIONS = ("refine", "refine_steps", "refine_path")
"""Those options of `create_model` that say how a model refines; a model that does is saved with all of them."""

__all__ = [
    "DIRECTIONS",
    "REFINE_OPTIONS",
    "STEPS",
    "STEPS_TAKEN",
    "BoundaryRefinement",
    "RefinePath",
    "Refinement",
    "SpatialBranch",
    "shift",
]
