"""The model of a run, for Python: features, saliency maps, a look at the weights."""

from __future__ import annotations

import os
import pathlib

import keras

from neural_alignment import config
from neural_alignment.config import UsageError
from neural_alignment.config.modules import import_modules
from neural_alignment.config.presets import values
from neural_alignment.runs import checkpoints
from neural_alignment.runs.folders import is_run
from neural_alignment.training import keras_settings
from neural_alignment.training.build import build_model, load_dataset
from neural_alignment.training.variables import model_variables


def load_run(run: str | os.PathLike[str], step: int | None = None) -> keras.Model:
    """Builds a run's model as its flags.cfg says, with the weights of a checkpoint.

    Its data set says what goes in and how many classes there are, so that it has to be where the
    run had it. Random seeds of Python, NumPy and Keras are set to the run's on the way.

    Args:
        run: the run directory.
        step: of the checkpoint; None is the newest whole one.

    Returns:
        A functional model that ends in logits, not compiled.

    Raises:
        UsageError: no run directory, flags that make no sense any more, or data that are not there.
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    folder = pathlib.Path(run)
    if not folder.is_dir() or not is_run(folder):
        raise UsageError(f"expected a run directory. Received: {str(run)!r}")
    argv = config.with_flags_of_run(["load_run", f"--load_checkpoint={folder}"])
    import_modules(values(argv, "import"))
    try:
        fv = config.parsed(argv)
    except UsageError as error:
        raise UsageError(f"{folder / 'flags.cfg'}: {error}") from error
    settings = config.validate(fv)
    prefix = checkpoints.find(str(folder), step)
    with keras_settings.of_a_run(settings.devices.tf32):
        model = build_model(settings, load_dataset(settings, to_train=False))
        checkpoints.assign(prefix, model_variables(model), within="model/")
    return model
