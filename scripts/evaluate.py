"""Validates a checkpoint: `python scripts/evaluate.py --load_checkpoint=RUN`."""

import sys

from neural_alignment.cli.main import script

if __name__ == "__main__":
    sys.exit(script("evaluate"))
