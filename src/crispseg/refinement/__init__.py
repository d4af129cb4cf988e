"""Refinement of a segmentation along its boundaries. What it learns from masks is in `crispseg.refinement.targets`."""

from typing import Literal

from crispseg.refinement.boundary import DIRECTIONS, STEPS, BoundaryRefinement, SpatialBranch, shift

Refinement = Literal["boundary"]
"""What `create_model`'s `refine` can be, beside None."""

__all__ = ["DIRECTIONS", "STEPS", "BoundaryRefinement", "Refinement", "SpatialBranch", "shift"]
