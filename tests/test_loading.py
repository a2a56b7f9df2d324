"""A compiled model of this package comes back in a fresh process, with one import."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import neural_alignment
from neural_alignment import alignments, layers, optimizers
from neural_alignment.models.normalization import BatchNormalization
from neural_alignment.optimizers import rate_scheduler

pytestmark = pytest.mark.backend

X = np.random.default_rng(0).normal(size=(16, 6, 6, 2)).astype("float32")
Y = np.arange(16) % 3


def save(path, rule="mirror"):
    keras.utils.set_random_seed(0)
    schedule = rate_scheduler.LearningRate(value=0.01, steps_per_epoch=4)
    made = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, alignment=rule),
            BatchNormalization(),
            keras.layers.Flatten(),
            layers.Dense(3, alignment=alignments.Symmetric(self_coef=schedule)),
        ]
    )
    nested = optimizers.Noisy(optimizers.get("swats", learning_rate=schedule))
    made.compile(
        optimizers.RoutedOptimizer(
            optimizers.get("momentum", learning_rate=schedule),
            nested,
            loss_rate=rate_scheduler.LossRate(alternate_step_freq=1),
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    from neural_alignment.callbacks import GlobalStep

    made.fit(X, Y, verbose=0, callbacks=[GlobalStep()])
    made.save(path)
    return made


LOAD = """
import sys
{imports}
model = {load}(sys.argv[1])
print(type(model.optimizer).__name__, type(model.optimizer.alignment_optimizer).__name__,
      int(model.optimizer.iterations), model.optimizer.loss_rate.alternate_step_freq)
import numpy as np
print(np.abs(model.predict(np.load(sys.argv[2]), verbose=0) - np.load(sys.argv[3])).max())
"""


def run(code, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    return result.returncode, result.stdout.splitlines(), result.stderr


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    made = save(folder / "m.keras")
    np.save(folder / "x.npy", X)
    np.save(folder / "z.npy", made.predict(X, verbose=0))
    return folder


@pytest.mark.parametrize(
    ("imports", "load"),
    [
        ("import neural_alignment\nimport keras", "keras.saving.load_model"),
        pytest.param(
            "import keras\nimport neural_alignment",
            "keras.saving.load_model",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "import neural_alignment", "neural_alignment.load_model", marks=pytest.mark.slow
        ),
        pytest.param(
            "import neural_alignment\nfrom keras.models import load_model",
            "load_model",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "import keras\nfrom neural_alignment import metrics",
            "keras.saving.load_model",
            marks=pytest.mark.slow,
        ),
    ],  # fmt: skip
)
def test_one_import_in_a_fresh_process_is_enough(saved, imports, load):
    code, lines, errors = run(
        LOAD.format(imports=imports, load=load),
        saved / "m.keras", saved / "x.npy", saved / "z.npy",
    )  # fmt: skip
    assert code == 0, errors
    assert lines[0] == "RoutedOptimizer Noisy 1 1"
    assert float(lines[1]) < 1e-5


def test_loading_here_gives_the_same_model(saved):
    loaded = neural_alignment.load_model(saved / "m.keras", compile=False)
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0), np.load(saved / "z.npy"), rtol=1e-5, atol=1e-6
    )


def test_importing_the_package_imports_no_keras_and_leaves_other_imports_alone():
    code, lines, errors = run(
        "import sys, neural_alignment\n"
        "print(sorted({'keras', 'tensorflow', 'jax', 'torch', 'numpy'} & set(sys.modules)))\n"
        "import json.tool, numpy, keras\n"
        "print(keras.__spec__.loader.__class__.__name__, keras.__version__ != '')\n"
        "import importlib.resources\n"
        "print(importlib.resources.files('keras').is_dir())\n"
        "print([one for one in sys.meta_path if 'neural' in type(one).__module__])"
    )
    assert code == 0, errors
    assert lines == ["[]", "SourceFileLoader True", "True", "[]"]


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="which imports itself")
def test_no_other_framework_is_imported():
    backend = keras.backend.backend()
    code, lines, errors = run(
        "import sys, keras\n"
        "before = set(sys.modules)\n"
        "import neural_alignment\n"
        "from neural_alignment import alignments, callbacks, layers, metrics, models, optimizers\n"
        "optimizers.RoutedOptimizer, optimizers.rate_scheduler\n"
        "print(sorted({'tensorflow', 'jax', 'torch'} & (set(sys.modules) - before)))"
    )
    assert code == 0, errors
    assert lines == ["[]"], backend


RULE = '''
import dataclasses
import keras
from neural_alignment.alignments.alignment import LayerwiseAlignment
from neural_alignment.alignments.options import option
from neural_alignment.alignments.registry import register

@register("plain")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain(LayerwiseAlignment):
    """Plain: `R = plain_coef * sum B^2`."""

    plain_coef: float = option(1.0, "coefficient")

    def primitives(self, p, variables):
        return {"plain": lambda: keras.ops.sum(p.backward_kernel ** 2)}
'''
SAVE = """
import sys
import keras
{imports}
from neural_alignment import layers
dense = layers.Dense(3, alignment={{"name": "plain", "plain_coef": 0.5}})
keras.Sequential([keras.Input((4,)), dense]).save(sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("imports", "named"),
    [
        pytest.param("import rules_of_mine", "module 'rules_of_mine'", id="module"),
        pytest.param(RULE, "the script or notebook it was made in", id="script"),
    ],
)
def test_a_rule_of_ones_own_names_its_module(imports, named, tmp_path, monkeypatch):
    (tmp_path / "rules_of_mine.py").write_text(RULE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    code, _, errors = run(SAVE.format(imports=imports), tmp_path / "m.keras")
    assert code == 0, errors
    load = "import sys, neural_alignment; model = neural_alignment.load_model(sys.argv[1]);"
    code, _, errors = run(load, tmp_path / "m.keras")
    assert code == 1
    assert f"Expected the rule 'plain' to be registered, which {named} does" in errors
    shown = "print(model.layers[0].alignment)"
    code, lines, errors = run(f"{imports}\n{load}{shown}", tmp_path / "m.keras")
    assert code == 0, errors
    assert "plain_coef=0.5" in lines[0]


@pytest.mark.parametrize("name", alignments.names())
def test_rules_of_the_package_name_none(name):
    assert "module" not in alignments.serialize(alignments.rule(name)())
