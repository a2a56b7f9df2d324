"""The former place of `neural_alignment.cli.search`."""

from neural_alignment.deprecation import moved

__getattr__ = moved(__name__, {"main": "neural_alignment.cli.search"})
