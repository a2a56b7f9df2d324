"""Validates a checkpoint: `python scripts/evaluate.py --load_checkpoint=RUN`."""

import sys

from neural_alignment.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
