"""Projects that are painted, learned and segmented in turns, and their window in napari."""

from crispseg.annotation.project import Progress, Project

__all__ = ["Progress", "Project"]
