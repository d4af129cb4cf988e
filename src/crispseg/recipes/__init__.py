"""Recipes: settings that train the papers' models, and all rows of the papers' tables.

Files such as `sfnet.yaml` contain the rows of a paper; the folder of the same name contains the recipes for training.
"""

from crispseg.recipes.rows import PAPERS, PaperRow, Score, find_row, read_rows

__all__ = ["PAPERS", "PaperRow", "Score", "find_row", "read_rows"]
