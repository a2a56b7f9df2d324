"""What is not installed is one message with the line to type, and a light installation trains."""

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from neural_alignment import data, extras
from neural_alignment.cli import environment, main

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Command, what is hidden: what each needs whatever its flags are, and what some flags need.
COMMANDS = [
    *[(name, hidden) for name, needs in environment.NEEDS.items() for hidden in ("absl", *needs)],
    *[("search --spark=local", hidden) for hidden in ("pyspark", "hyperopt")],
    *[("search report", hidden) for hidden in ("absl", "rich", "matplotlib")],
    *[("figures --figure=curves", hidden) for hidden in ("absl", "rich", "matplotlib")],
]
ARGUMENTS = {
    "train": ["train", "--workdir=out"],
    "evaluate": ["evaluate", "--load_checkpoint=nowhere"],
    "search": ["search", "--space=wm_digits", "--searchdir=out", "--trials=1"],
    "search --spark=local": [
        "search", "--space=wm_digits", "--searchdir=out", "--trials=1", "--spark=local"
    ],
    "figures": ["figures", "out", "--figure=scatter"],
    "figures --figure=curves": ["figures", "out", "--figure=curves"],
    "leaderboard": ["leaderboard", "out"],
    "reproduce": ["reproduce", "leaderboard_digits_mlp", "--outdir=out"],
    "figures --figure=predictivity": ["figures", "--figure=predictivity"],
    "report": ["report", "nowhere"],
    "search report": ["search", "report", "out"],
    "prepare": ["prepare", "--train=a", "--validation=b", "--output_dir=out"],
}  # fmt: skip


def test_every_command_is_in_the_table():
    assert environment.NEEDS.keys() == main.COMMANDS.keys()


def hide(monkeypatch, *modules):
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)


def assert_says_what_to_type(text, extra):
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    assert "Expected " in text and " to be installed. Received: no module named " in text
    assert f'pip install "neural-alignment[{extra}]"' in text
    assert f'pip install -e ".[{extra}]"' in text


@pytest.mark.parametrize(("command", "hidden"), COMMANDS)
def test_a_command_says_what_to_type(command, hidden, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    hide(monkeypatch, hidden)
    if command.startswith("search -"):  # pyspark may in truth be missing: one at a time
        others = {"pyspark", "hyperopt"} - {hidden}
        found = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: object() if name in others else found(name)
        )
    assert main.main(["neural-alignment", *ARGUMENTS[command]]) == 1
    printed = capfd.readouterr()
    assert_says_what_to_type(printed.err, extras.EXTRAS[hidden])
    assert printed.out == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", main.COMMANDS)
def test_help_needs_nothing_but_flags(command, monkeypatch, capsys):
    hide(monkeypatch, *extras.EXTRAS.keys() - {"absl"})
    assert main.main(["neural-alignment", command, "--help"]) == 0
    assert "usage:" in capsys.readouterr().out


def test_all_that_is_missing_is_one_line_to_type(monkeypatch, tmp_path, capfd):
    hide(monkeypatch, "tensorboard", "tensorflow", "hyperopt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # what runs on another back end has no TensorFlow
    assert main.main(["neural-alignment", *ARGUMENTS["search"]]) == 1
    text = capfd.readouterr().err
    assert "hyperopt, tensorboard and TensorFlow 2.19 to 2.21" in text
    assert 'pip install "neural-alignment[search,train,cpu]"' in text


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("mnist", "tensorflow"),
        ("cifar10", "tensorflow_datasets"),
        ("mnist", "requests"),
        ("image_folder", "PIL"),
    ],
)
def test_a_data_set_says_what_to_type(name, hidden, monkeypatch, tmp_path):
    hide(monkeypatch, hidden)
    with pytest.raises(extras.MissingPackageError) as raised:
        data.get(name, data_dir=str(tmp_path))
    text = str(raised.value)
    assert f"Expected the data set '{name}'" in text or f"the data set '{name}'" in text
    assert f'pip install "neural-alignment[{extras.EXTRAS[hidden]}]"' in text


def test_training_on_such_a_data_set_is_one_message(monkeypatch, tmp_path, capfd):
    hide(monkeypatch, "tensorflow_datasets")
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "--dataset=mnist", "--data_dir=.", "--workdir=out"]
    assert main.main(["neural-alignment", *arguments]) == 1
    text = capfd.readouterr().err.strip()
    assert len(text.splitlines()) == 1 and 'pip install "neural-alignment[train]"' in text
    assert not list(tmp_path.iterdir())


FIRST = "import sys; [sys.modules.update({name: None}) for name in sys.argv[1].split()]; "


def run(code, hidden, **environment):
    return subprocess.run(
        [sys.executable, "-c", FIRST + code, hidden],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("code", "hidden", "backend", "extra"),
    [
        ("from neural_alignment.layers import Dense", "tensorflow", "tensorflow", "cpu"),
        ("import neural_alignment, keras", "torch", "torch", "torch"),
        ("from neural_alignment.figures import plot_history", "matplotlib", "jax", "figures"),
    ],
)
def test_an_import_says_what_to_type(code, hidden, backend, extra):
    ended = run(code, hidden, KERAS_BACKEND=backend)
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: Expected ")
    assert f'pip install "neural-alignment[{extra}]"' in last


LIGHT = """
import keras, numpy as np
from neural_alignment import alignments, callbacks, data, layers, metrics, models, optimizers
assert keras.backend.backend() == "jax"
digits = data.get("digits")
x, y = digits.train_images[:64], digits.train_labels[:64]
model = keras.Sequential([keras.Input(digits.image_shape), keras.layers.Flatten(),
                          layers.Dense(8, "relu", alignment="mirror"),
                          layers.Dense(10, alignment="symmetric")])
optimizer = optimizers.RoutedOptimizer(optimizers.get("momentum", learning_rate=0.1),
                                       optimizers.get("adam", learning_rate=0.01))
model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
seen = [callbacks.GlobalStep(), callbacks.AlignmentMetrics(x, y)]
history = model.fit(x / 16, y, epochs=2, verbose=0, callbacks=seen).history
assert history["loss"][1] < history["loss"][0]
stock = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
layers.strip(layers.align(stock, "feedback"))
from neural_alignment.cli.main import main
sys.exit(main(["neural-alignment", "train"]))
"""


def test_keras_numpy_and_a_back_end_are_enough_for_layers():
    """All that extras bring but the back end, and Keras's own, is hidden."""
    pytest.importorskip("jax")
    of_keras = {"absl", "rich"}
    hidden = " ".join(extras.EXTRAS.keys() - of_keras - {"jax"})
    ended = run(LIGHT, hidden, KERAS_BACKEND="jax")
    assert ended.returncode == 1, ended.stderr
    assert_says_what_to_type(ended.stderr, "train,cpu")


def test_every_extra_brings_what_it_is_said_to():
    optional = PROJECT["optional-dependencies"]
    called = {"absl": "absl-py", "PIL": "pillow", "sklearn": "scikit-learn"}
    for module, extra in extras.EXTRAS.items():
        name = called.get(module, module.replace("_", "-"))
        assert any(line.startswith(name) for line in optional[extra]), module
    assert set(extras.EXTRAS.values()) <= set(optional)
    assert {line.split(">")[0] for line in PROJECT["dependencies"]} == {"keras", "numpy"}
    everything = set(optional) - {"all", "cpu", "gpu", "tpu", "dev", "docs"}
    assert optional["all"] == [
        f"neural-alignment[{','.join(o for o in optional if o in everything)}]"
    ]


def test_the_message_of_a_missing_back_end_says_what_else_there_is(monkeypatch):
    monkeypatch.setattr(extras, "_is_installed", lambda name: name == "jax")
    text = extras.back_end_message("tensorflow")
    assert text.endswith("Or run on what is installed: set KERAS_BACKEND=jax.")
    monkeypatch.setattr(extras, "_is_installed", lambda name: False)
    assert "Or run" not in extras.back_end_message("tensorflow")


@pytest.mark.parametrize("name", ["rich.nothing", "nothing"])
def test_a_broken_package_is_not_a_missing_one(name):
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        extras.load(name)
