"""Flags of presets, as scripts/train.py reads them."""

from neural_alignment import config


def parse(*argv):
    """The checked flags of a command line."""
    fv = config.parsed(config.expand(["train.py", *argv]))
    config.validate(fv)
    return fv


# What is doubted of settings that were published so: B is not held to W's size.
_DOUBTED = {"makrout_kp": "first difference stays", "makrout_wm": "B grows without bound"}


def check_doubts(preset, found):
    """A preset's settings are not doubted, but for those of a code that has no decay."""
    said = _DOUBTED.get(preset)
    assert len(found) == (said is not None), found
    assert said is None or said in found[0]
