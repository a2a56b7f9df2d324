"""Flags of presets, as scripts/train.py reads them."""

from absl import flags

from neural_alignment.training import flags as training_flags


def parse(*argv):
    """The checked flags of a command line."""
    fv = flags.FlagValues()
    training_flags.define_flags(fv)
    fv(training_flags.expand_presets(["train.py", *argv]))
    training_flags.validate(fv)
    return fv
