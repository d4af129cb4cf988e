"""Refinement of a segmentation along its boundaries."""

from typing import Literal

from crispseg.refinement.boundary import BoundaryRefinement, SpatialBranch, shift
from crispseg.refinement.targets import BoundaryTargets, boundary_targets

Refinement = Literal["boundary"]
"""What `create_model`'s `refine` can be, beside None."""

__all__ = ["BoundaryRefinement", "BoundaryTargets", "Refinement", "SpatialBranch", "boundary_targets", "shift"]
