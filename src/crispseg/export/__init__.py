"""Models as files of other runtimes, and the check that such a file computes what its model does."""

from crispseg.export.pipeline import export_model

__all__ = ["export_model"]
