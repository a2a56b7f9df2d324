"""Searches training settings, or reports on a search ([K] appendix B.1).

search.py --space=wm_ad_digits --trials=30 --searchdir=DIR
search.py report DIR
"""

import sys

from neural_alignment.cli.main import script

if __name__ == "__main__":
    sys.exit(script("search"))
