"""Flags of presets, as scripts/train.py reads them."""

from neural_alignment import config


def parse(*argv):
    """The checked flags of a command line."""
    fv = config.parsed(config.expand(["train.py", *argv]))
    config.validate(fv)
    return fv
