"""What a script needs of its process, and what a run sets itself: Keras's file, devices."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from neural_alignment.cli import environment

ROOT = pathlib.Path(__file__).parents[2]
SHORT = ["--layers_list=4", "--train_epochs=1", "--alignment=symmetric"]
COMMANDS = {
    "train.py": [*SHORT, "--workdir=run"],
    "evaluate.py": ["--load_checkpoint=nowhere"],
    "search.py": ["--space=wm_digits", "--searchdir=search", "--trials=1", "--max_epochs=1"],
    "search.py nopreload": [
        "--space=wm_digits", "--searchdir=search", "--trials=1", "--max_epochs=1", "--nopreload"
    ],
    "prepare_imagenet.py": ["--train=a", "--validation=b", "--output_dir=out"],
}  # fmt: skip


def call(cwd, script, *arguments, **environment_):
    environment_ = {k: str(v) for k, v in environment_.items()}
    keep = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "TF_CONFIG")}
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script.split()[0]), *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=300,
        env=keep | {"PYTHONPATH": str(ROOT)} | environment_,
    )  # fmt: skip


def assert_one_message(ended, *words):
    assert ended.returncode == 1, ended
    assert "Traceback" not in ended.stderr and "Broken pipe" not in ended.stderr
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1 and len(lines[0]) < 800, ended.stderr
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("script", COMMANDS)
@pytest.mark.parametrize("backend", ["jax", "torch", "numpy", "nonsense"])
def test_another_back_end_is_one_line(script, backend, tmp_path):
    ended = call(tmp_path, script, *COMMANDS[script], KERAS_BACKEND=backend)
    assert_one_message(ended, f"KERAS_BACKEND={backend}", "set KERAS_BACKEND=tensorflow")
    assert not list(tmp_path.iterdir())


MISSING = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tensorflow" else find(name, *rest)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("script", COMMANDS)
def test_a_missing_tensorflow_is_one_line(script, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", MISSING, str(ROOT / "scripts" / script.split()[0]),
         *COMMANDS[script]],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert_one_message(ended, "Expected TensorFlow", "pip install")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", COMMANDS)
@pytest.mark.parametrize(
    "fault",
    [
        "raise ImportError('libcudart.so.12: cannot open shared object file')",
        "raise AttributeError('_ARRAY_API not found')",
        "import no_such_module_of_tensorflow",
    ],
)
def test_a_broken_tensorflow_is_one_line(script, fault, tmp_path):
    broken = tmp_path / "site" / "tensorflow"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(f"{fault}\n")
    ended = call(tmp_path, script, *COMMANDS[script], PYTHONPATH=f"{broken.parent}:{ROOT}")
    cause = fault.split("'")[1] if "'" in fault else "no_such_module_of_tensorflow"
    assert_one_message(ended, "tensorflow", cause, "pip install")


def keras_file(folder, **values):
    """A home folder of Keras with a configuration file."""
    folder.mkdir()
    before = {
        "floatx": "float32",
        "epsilon": 1e-7,
        "backend": "tensorflow",
        "image_data_format": "channels_last",
    }
    (folder / "keras.json").write_text(json.dumps(before | values))
    return folder


# A network with convolutions, BatchNorm and its epsilon, and a noise input of its own.
NETWORK = [
    "--model=resnet20", "--image_size=8", "--alignment=mirror", "--input_distribution=normal",
    "--max_epochs=0.1", "--train_epochs=1", "--train_batch_size=128",
]  # fmt: skip


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """The tables of a run without a configuration file."""
    folder = tmp_path_factory.mktemp("usual")
    home = folder / "none"
    home.mkdir()
    ended = call(folder, "train.py", *NETWORK, "--workdir=run", KERAS_HOME=home)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.parametrize(
    "values",
    [
        {"image_data_format": "channels_first"},
        {"floatx": "float16"},
        {"floatx": "bfloat16"},
        {"floatx": "float64"},
        {"epsilon": 1e-2},
        {"backend": "jax"},
        {"backend": "torch", "image_data_format": "channels_first", "floatx": "float16"},
    ],
    ids=lambda values: " ".join(values),
)
def test_keras_s_file_changes_nothing(usual, values, tmp_path):
    home = keras_file(tmp_path / "keras", **values)
    ended = call(tmp_path, "train.py", *NETWORK, "--workdir=run", KERAS_HOME=home)
    assert ended.returncode == 0, ended.stderr
    for table in ("metrics.csv", "layers.csv"):
        assert (tmp_path / "run" / table).read_text() == (usual / "run" / table).read_text()
    told = call(tmp_path, "evaluate.py", f"--load_checkpoint={usual / 'run'}", KERAS_HOME=home)
    assert told.returncode == 0, told.stderr
    top1 = float((usual / "run/metrics.csv").read_text().splitlines()[-1].split(",")[5])
    assert f"top-1 {top1:.2%}" in told.stdout


def test_keras_s_file_changes_no_trial(tmp_path):
    home = keras_file(tmp_path / "keras", backend="jax", floatx="float16", epsilon=0.1)
    scores = []
    for name, more in (("a", {}), ("b", {"KERAS_HOME": home})):
        flags = ["--space=wm_digits", f"--searchdir={name}", "--trials=1", "--max_epochs=1"]
        ended = call(tmp_path, "search.py", *flags, **more)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        scores.append((tmp_path / name / "trials/0000/metrics.csv").read_text())
    assert scores[0] == scores[1]


@pytest.mark.parametrize("level", [None, "2", "3"])
def test_nothing_is_said_at_the_start(tmp_path, level):
    more = {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
    ended = call(tmp_path, "train.py", *SHORT, "--workdir=run", **more)
    assert ended.returncode == 0 and ended.stderr == ""
    ended = call(tmp_path, "evaluate.py", "--load_checkpoint=run", **more)
    assert ended.returncode == 0 and ended.stderr == ""


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_nothing_but_the_error_is_said_of_a_data_set_that_is_not_there(tmp_path, dataset):
    ended = call(tmp_path, "train.py", f"--dataset={dataset}", f"--data_dir={tmp_path}/none")
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr


@pytest.mark.parametrize(
    "value", ["{}", "", "null", '{"task": {"type": "worker", "index": 0}}', '{"cluster": {}}']
)
def test_a_tf_config_without_a_cluster_is_one_device(tmp_path, value):
    ended = call(tmp_path, "train.py", *SHORT, "--workdir=run", TF_CONFIG=value)
    assert ended.returncode == 0, ended.stderr
    assert "on 1 device(s)" in ended.stdout


def test_settings_of_keras_are_as_before_after_a_job(tmp_path):
    import keras

    from neural_alignment.cli import train

    keras.config.set_epsilon(1e-3)
    keras.config.set_image_data_format("channels_first")
    policy = keras.config.dtype_policy()
    try:
        assert train.main(["train.py", *SHORT, f"--workdir={tmp_path / 'run'}"]) == 0
        assert keras.config.epsilon() == 1e-3
        assert keras.config.image_data_format() == "channels_first"
        assert keras.config.dtype_policy() == policy
    finally:
        keras.config.set_epsilon(1e-7)
        keras.config.set_image_data_format("channels_last")


def test_notes_are_left_out_and_the_rest_is_not(capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    notes = [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1795683320.716847   12547 port.cc:153] oneDNN custom operations are on.",
        "2026-11-26 09:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] x",
    ]
    with environment.without_notes():
        os.write(2, "".join(f"{line}\n" for line in [*notes, "a word of mine"]).encode())
    assert capfd.readouterr().err == "a word of mine\n"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with environment.without_notes():
        os.write(2, f"{notes[0]}\n".encode())
    assert notes[0] in capfd.readouterr().err
