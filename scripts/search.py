"""Searches training settings, or reports on a search ([K] appendix B.1).

search.py --space=wm_ad_digits --trials=30 --searchdir=DIR
search.py report DIR
"""

from absl import app
from absl import flags as absl_flags

from neural_alignment.search import flags
from neural_alignment.search import main as search

if __name__ == "__main__":
    flags.define_flags()
    absl_flags.adopt_module_key_flags(flags)
    app.run(search.main, flags_parser=search.parse)
