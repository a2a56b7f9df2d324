"""One HTML page about runs, with all that it shows inside it: settings, curves, angles, times."""

from neural_alignment.report.page import write

__all__ = ["write"]
