"""What a script needs of its process, and what a run sets itself: Keras's file, devices."""

import dataclasses
import importlib
import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf

from neural_alignment.cli import command, environment
from tests.training import children

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


# Each starts a process, and all take the same way: one is quick, all are slow.
ALL_COMMANDS = ["train.py", *(pytest.param(c, marks=pytest.mark.slow) for c in [*COMMANDS][1:])]


@pytest.mark.parametrize("script", ALL_COMMANDS)
@pytest.mark.parametrize("backend", ["jax", "nonsense"])
def test_another_back_end_is_one_line(script, backend, tmp_path):
    ended = call(tmp_path, script, *COMMANDS[script], KERAS_BACKEND=backend)
    assert_one_message(ended, f"KERAS_BACKEND={backend}", "set KERAS_BACKEND=tensorflow")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("folder", "more", "reason"),
    [
        ("{}/cache", "", None),
        ("{}/new/deep", "--tf_xla_auto_jit=2", None),
        ("gs://bucket/cache", "", None),
        ("{}/file", "", "File exists"),
        ("{}/file/cache", "", "Not a directory"),
        ("/proc/cache", "", "No such file or directory"),
        ("/proc", "", "No such file or directory"),
        ("/proc", "--tf_xla_persistent_cache_read_only=true", None),
        ("/proc", "--tf_xla_persistent_cache_read_only=false", "No such file or directory"),
    ],
)
def test_xla_s_cache_is_looked_at_before_the_run(folder, more, reason, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    folder = folder.format(tmp_path)
    flags = f"{more} --tf_xla_persistent_cache_directory={folder}"
    monkeypatch.setenv("TF_XLA_FLAGS", flags)
    environment.prepare("leaderboard")  # which compiles nothing
    if reason is None:
        environment.prepare("train")
        return
    with pytest.raises(environment.UnusableError) as told:
        environment.prepare("train")
    assert "TF_XLA_FLAGS: Expected a folder" in str(told.value)
    assert f"Received: {folder} ({reason}). Name another" in str(told.value)


@pytest.mark.parametrize("of_cache", [True, False])
@pytest.mark.parametrize("name", ["OutOfRangeError", "DataLossError"])
def test_a_damaged_file_of_xla_s_cache_is_thought_of(name, of_cache, monkeypatch, capfd):
    flags = "--tf_xla_persistent_cache_directory=/there" if of_cache else ""
    monkeypatch.setenv("TF_XLA_FLAGS", flags)
    error = getattr(tf.errors, name)(None, None, "Read less bytes than requested")
    assert command._failed(error) == 1
    assert (
        "requested. If a file of XLA's cache is damaged, empty /there." in capfd.readouterr().err
    ) == of_cache


MISSING = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "tensorflow" else find(name, *rest)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("script", ALL_COMMANDS)
def test_a_missing_tensorflow_is_one_line(script, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", MISSING, str(ROOT / "scripts" / script.split()[0]),
         *COMMANDS[script]],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert_one_message(ended, "Expected TensorFlow", "pip install")
    assert not list(tmp_path.iterdir())


FAULTS = (
    "raise ImportError('libcudart.so.12: cannot open shared object file')",
    "raise AttributeError('_ARRAY_API not found')",
    "import no_such_module_of_tensorflow",
)


@pytest.mark.parametrize(
    ("script", "fault"),
    [("train.py", FAULTS[0])]
    + [pytest.param(s, FAULTS[0], marks=pytest.mark.slow) for s in [*COMMANDS][1:]]
    + [pytest.param("train.py", fault, marks=pytest.mark.slow) for fault in FAULTS[1:]],
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


# A network with convolutions, of a rule with noise.
NETWORK = [
    "--model=conv", "--filters_list=4,4", "--kernels_list=3,3", "--alignment=mirror",
    "--input_distribution=normal", "--alignment_optimizer=adam", "--train_epochs=1",
]  # fmt: skip
# Keras cannot even be imported with bfloat16 there.
WORST = {
    "floatx": "bfloat16",
    "epsilon": 1e-2,
    "backend": "jax",
    "image_data_format": "channels_first",
}


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """A run without a configuration file."""
    folder = tmp_path_factory.mktemp("usual")
    ended = children.run(folder, "train.py", [*NETWORK, f"--workdir={folder / 'run'}"])
    assert ended.code == 0, ended.errors
    return folder / "run"


def assert_same(run, usual):
    for table in ("metrics.csv", "layers.csv"):
        assert (run / table).read_text() == (usual / table).read_text()


@pytest.mark.parametrize(
    "script",
    ["train.py", *(pytest.param(s, marks=pytest.mark.slow) for s in ("evaluate.py", "search.py"))],
)
def test_keras_s_file_changes_nothing(usual, script, tmp_path):
    home = keras_file(tmp_path / "keras", **WORST)
    flags = {
        "train.py": [*NETWORK, "--workdir=run"],
        "evaluate.py": [f"--load_checkpoint={usual}"],
        "search.py": ["--space=wm_digits", "--searchdir=s", "--trials=1", "--max_epochs=1"],
    }[script]
    ended = call(tmp_path, script, *flags, KERAS_HOME=home)
    assert ended.returncode == 0 and ended.stderr == "", ended.stderr
    if script == "train.py":
        assert_same(tmp_path / "run", usual)
    elif script == "evaluate.py":
        top1 = float((usual / "metrics.csv").read_text().splitlines()[-1].split(",")[5])
        assert f"top-1 {top1:.2%}" in ended.stdout
    else:
        flagged = (tmp_path / "s" / "trials" / "0000" / "flags.cfg").read_text().splitlines()
        again = children.run(tmp_path / "o", "train.py", [*flagged, f"--workdir={tmp_path}/again"])
        assert again.code == 0, again.errors
        assert_same(tmp_path / "s" / "trials" / "0000", tmp_path / "again")


@dataclasses.dataclass(frozen=True)
class Keras:
    """What the process has told Keras before the job."""

    settings: tuple[tuple[str, object], ...]

    def set(self) -> None:
        import keras

        for name, value in self.settings:
            getattr(keras.config, f"set_{name}")(value)


@pytest.mark.parametrize(
    "settings",
    [
        {"image_data_format": "channels_first"},
        *(
            pytest.param(told, marks=pytest.mark.slow)
            for told in (
                {"floatx": "float16"},
                {"floatx": "float64"},
                {"epsilon": 1e-2},
                {"dtype_policy": "mixed_float16"},
            )
        ),
    ],
    ids=lambda settings: " ".join(settings),
)
def test_what_the_process_told_keras_changes_nothing(usual, settings, tmp_path):
    before = Keras(tuple(settings.items())).set
    workdir = tmp_path / "run"
    ended = children.run(tmp_path, "train.py", [*NETWORK, f"--workdir={workdir}"], before)
    assert ended.code == 0, ended.errors
    assert_same(workdir, usual)
    told = children.run(tmp_path, "evaluate.py", [f"--load_checkpoint={usual}"], before)
    top1 = float((usual / "metrics.csv").read_text().splitlines()[-1].split(",")[5])
    assert told.code == 0 and f"top-1 {top1:.2%}" in told.output


@pytest.mark.parametrize("level", [None, pytest.param("3", marks=pytest.mark.slow)])
def test_nothing_is_said_at_the_start(tmp_path, level):
    more = {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
    ended = call(tmp_path, "train.py", *SHORT, "--workdir=run", **more)
    assert ended.returncode == 0 and ended.stderr == ""


@pytest.mark.parametrize("dataset", ["mnist", pytest.param("cifar10", marks=pytest.mark.slow)])
def test_nothing_but_the_error_is_said_of_a_data_set_that_is_not_there(tmp_path, dataset):
    ended = call(tmp_path, "train.py", f"--dataset={dataset}", f"--data_dir={tmp_path}/none")
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr


@dataclasses.dataclass(frozen=True)
class Variable:
    """An environment variable of the process."""

    name: str
    value: str

    def set(self) -> None:
        os.environ[self.name] = self.value


@pytest.mark.parametrize(
    "value", ["{}", "", "null", '{"task": {"type": "worker", "index": 0}}', '{"cluster": {}}']
)
def test_a_tf_config_without_a_cluster_is_one_device(tmp_path, value):
    """What a managed platform sets on a single machine."""
    flags = [*SHORT, f"--workdir={tmp_path / 'run'}"]
    ended = children.run(tmp_path, "train.py", flags, Variable("TF_CONFIG", value).set)
    assert ended.code == 0, ended.errors
    assert "on 1 device(s)" in ended.output


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


def test_what_no_job_needs_is_not_imported_meanwhile():
    """JAX and Matplotlib, which TensorFlow and Keras import where they find them."""
    name = "this"  # of the standard library, and prints
    sys.modules.pop(name, None)
    with environment.left_out(name, "os"):
        with pytest.raises(ImportError):
            importlib.import_module(name)
        assert importlib.import_module("os") is os
    assert importlib.import_module(name).__name__ == name


@pytest.mark.slow
def test_a_job_starts_without_jax_and_matplotlib():
    code = (
        "import sys; from neural_alignment.cli import environment; environment.prepare('train'); "
        "environment.import_tensorflow(); assert not {'jax', 'matplotlib'} & set(sys.modules); "
        "import matplotlib.pyplot; import keras; keras.layers.Dense(1)(keras.ops.ones((1, 1)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
