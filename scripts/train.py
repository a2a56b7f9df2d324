"""Trains a model with a learning rule: `python scripts/train.py --preset=digits_symmetric`."""

import sys

from neural_alignment.cli.main import script

if __name__ == "__main__":
    sys.exit(script("train"))
