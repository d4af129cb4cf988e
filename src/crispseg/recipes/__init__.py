"""Recipes: settings that train the papers' models, and every row of the papers' tables.

`sfnet.yaml` and the like have the rows of a paper; the recipes that train them are in the folder of that name.
"""

from crispseg.recipes.rows import PAPERS, PaperRow, Score, find_row, read_rows

__all__ = ["PAPERS", "PaperRow", "Score", "find_row", "read_rows"]
