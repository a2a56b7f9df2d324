"""Old places of public names: they give what the new ones do, with a warning."""

import importlib

import pytest

OLD = {
    "neural_alignment.training.flags": (
        "DATA_FLAGS", "MODEL_FLAGS", "PRESETS", "STRATEGIES", "UsageError", "coefficient_names",
        "command_line", "define_flags", "expand_presets", "preset_names", "rule_options",
        "validate", "with_flags_of_run",
    ),
    "neural_alignment.training.checkpoints": (
        "CheckpointError", "Checkpoints", "assign", "differences", "find", "not_finite", "step_of",
    ),
    "neural_alignment.training.run_directory": (
        "METRICS", "RunDirectoryError", "Table", "check_flags", "write_flags",
    ),
    "neural_alignment.training.command": ("FAILED", "INTERRUPTED", "USAGE"),
    "neural_alignment.training.callbacks": ("TensorBoardScalars",),
    "neural_alignment.training.job": ("learning_rate", "make_rule"),
    "neural_alignment.training.strategy": ("DeviceError",),
    "neural_alignment.training.loop": ("Evaluator", "Plan", "DivergenceError", "model_variables"),
    "neural_alignment.search.main": ("main",),
    "neural_alignment.layers.operations": (
        "Conv", "Linear", "Matmul", "conv", "matmul", "two_kernels",
    ),
    "neural_alignment.training.metrics": (
        "angle", "kernel_metrics", "local_gradient_angle", "mean_square", "norm_ratio",
        "path_metrics", "projection_angle", "squared_norm", "weight_angle",
    ),
    "neural_alignment.alignments.alignment": (
        "ProjectionAlignment", "draw_seed", "get", "names", "register", "rule", "serialize",
    ),
}  # fmt: skip
# These are where they were for another reason than the past, and do not warn.
STILL = {"DeviceError", "Evaluator", "Plan", "DivergenceError", "model_variables"}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in OLD.items() for name in names]
)
def test_an_old_place_still_has_it(module, name):
    old = importlib.import_module(module)
    if name in STILL:
        assert getattr(old, name) is not None
        return
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is neural_alignment"):
        assert getattr(old, name) is not None


@pytest.mark.parametrize("module", [name for name in OLD if "main" not in name])
def test_what_is_nowhere_is_said_as_usual(module):
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        importlib.import_module(module).nothing  # noqa: B018


def test_what_took_flags_still_takes_them():
    from neural_alignment import config
    from neural_alignment.training import job

    fv = config.parsed(["train.py", "--alignment=feedback", "--learning_rate=0.3"])
    assert job.load_dataset(fv).num_train == 1347
    with pytest.warns(DeprecationWarning):
        assert job.make_rule(fv, 5).name == "feedback"
    with pytest.warns(DeprecationWarning):
        assert job.learning_rate(fv, 5) == 0.3
