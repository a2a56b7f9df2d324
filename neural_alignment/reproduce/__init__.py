"""Figures and tables of the papers: the runs that each needs, and the published numbers.

A recipe is a TOML file in `recipes/`; `neural-alignment reproduce NAME` runs it.
"""

from neural_alignment.reproduce.recipe import Published, Recipe, Series, Sweep, get, names

__all__ = ["Published", "Recipe", "Series", "Sweep", "get", "names"]
