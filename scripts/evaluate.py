"""Validates a checkpoint: `python scripts/evaluate.py --load_checkpoint=RUN`."""

import os
import sys

from absl import app, flags

from neural_alignment.training import command
from neural_alignment.training import flags as training_flags

training_flags.define_flags()
flags.adopt_module_key_flags(training_flags)

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    argv = training_flags.with_flags_of_run(training_flags.command_line(sys.argv))
    app.run(lambda argv: command.run("evaluate", argv), argv)
