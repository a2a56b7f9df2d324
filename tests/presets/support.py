"""Flags of presets, as scripts/train.py reads them."""

from absl import flags

from neural_alignment import config


def parse(*argv):
    """The checked flags of a command line."""
    fv = flags.FlagValues()
    config.define_flags(fv)
    fv(config.expand(["train.py", *argv]))
    config.validate(fv)
    return fv
