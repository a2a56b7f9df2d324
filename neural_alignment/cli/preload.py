"""All that a training job imports, for the process that a search forks its trials from.

None of it starts TensorFlow's runtime, which does not survive a fork.
"""

from neural_alignment.cli import environment

environment.import_or_exit()

import neural_alignment.training.job  # noqa: E402, F401
