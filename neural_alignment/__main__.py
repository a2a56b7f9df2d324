"""`python -m neural_alignment COMMAND`: see `neural_alignment.cli.main`."""

import sys

from neural_alignment.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
