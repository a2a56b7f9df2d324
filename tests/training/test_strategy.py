"""Which strategy a job gets, and one clear error where its devices are not there."""

from __future__ import annotations

import importlib.util
import json
import socket
import time

import pytest
import tensorflow as tf

from neural_alignment import config as job_config
from neural_alignment.training import job, strategy, workers
from tests.training import children


def config(**task) -> str:
    addresses = ["127.0.0.1:1", "127.0.0.1:2"]
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", **task}})


def test_auto_is_one_device_without_accelerators(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    made = strategy.make_strategy("auto")
    assert isinstance(made, tf.distribute.OneDeviceStrategy)
    assert strategy.is_chief(made) and not strategy.has_workers(made)
    assert strategy.mean_over_workers(made, [2.0, True]) == (2.0, 1.0)


def test_mirrored_takes_every_device():
    made = strategy.make_strategy("mirrored")
    assert isinstance(made, tf.distribute.MirroredStrategy)
    assert made.num_replicas_in_sync == len(tf.config.list_logical_devices("CPU"))


@pytest.mark.parametrize(("parts", "expected"), [(1, ["GPU:0"]), (2, ["CPU:0", "CPU:1"])])
def test_mirrored_takes_the_parts_of_a_split_cpu_before_gpus(monkeypatch, parts, expected):
    def devices(kind):
        names = [f"{kind}:{i}" for i in range({"CPU": parts, "GPU": 1}[kind])]
        return [tf.config.LogicalDevice(name, kind) for name in names]

    monkeypatch.setattr(tf.config, "list_logical_devices", devices)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda names: names)
    assert strategy.make_strategy("mirrored") == expected


@pytest.mark.parametrize(
    ("tpu_name", "tf_config", "expected"),
    [
        ("nope", None, "tpu"),
        (None, config(index=0), "multi_worker"),
        (None, None, "one_device"),
        (None, "", "one_device"),
        (None, "{}", "one_device"),
        (None, "null", "one_device"),
        (None, '{"task": {"type": "worker", "index": 0}}', "one_device"),
        (None, '{"cluster": {}, "task": {}}', "one_device"),
        (None, '{"cluster": {"worker": []}, "task": {}}', "one_device"),
        (None, '{"environment": "cloud"}', "one_device"),
        (None, "{", "multi_worker"),
        (None, "[]", "multi_worker"),
    ],
)
def test_auto_goes_by_what_is_given(monkeypatch, tpu_name, tf_config, expected):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if tf_config is not None:
        monkeypatch.setenv("TF_CONFIG", tf_config)
    assert strategy._automatic(tpu_name) == expected


@pytest.mark.parametrize(
    "value",
    [None, "{", "[]", "{}", '{"cluster": {}}', config(index=2), config(index="x"),
     config(type="ps", index=0),
     json.dumps({"cluster": {"worker": ["a:1"], "ps": ["b:1"]},
                 "task": {"type": "worker", "index": 0}})],
)  # fmt: skip
def test_a_wrong_cluster_is_shown(monkeypatch, value):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(strategy.DeviceError, match="Expected the environment variable TF_CONFIG"):
        strategy.make_strategy("multi_worker")


def test_a_chief_comes_before_the_workers(monkeypatch):
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    task = {"type": "worker", "index": 1}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    assert workers.cluster() == (["a:1", "b:1", "c:1"], 2)


@pytest.mark.parametrize("value", ["0", "x", ""])
def test_gpus_that_are_not_there(value):
    with pytest.raises(strategy.DeviceError, match="--gpu to be indices of the 0 GPUs"):
        strategy.make_strategy("one_device", gpu=value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1,0", ["b", "a"]), ("-1", None), ("2", None), ("0,0", None), ("1,", None)],
)
def test_gpus_are_chosen_by_index(monkeypatch, value, expected):
    chosen = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda gpus, kind: chosen.extend(gpus))
    if expected:
        strategy._choose_gpus(value)
        assert chosen == expected
    else:
        with pytest.raises(strategy.DeviceError, match="--gpu to be indices of the 2 GPUs"):
            strategy._choose_gpus(value)


@pytest.mark.parametrize(("value", "is_chosen"), [("1", True), ("0", False), ("0,1", False)])
def test_gpus_chosen_earlier_in_the_process(monkeypatch, value, is_chosen):
    def too_late(gpus, kind):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"])
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["b"])
    monkeypatch.setattr(tf.config, "set_visible_devices", too_late)
    if is_chosen:
        strategy._choose_gpus(value)
    else:
        with pytest.raises(strategy.DeviceError, match=f"Received: '{value}'. Start a new process"):
            strategy._choose_gpus(value)


def test_both_builds_of_tensorflow(monkeypatch):
    monkeypatch.setattr(strategy, "_installed", lambda package: True)
    with pytest.raises(strategy.DeviceError, match="pip uninstall tensorflow.*tensorflow-tpu"):
        strategy.make_strategy("tpu", tpu_name="some")


@pytest.mark.parametrize("name", [None, "local"])
def test_an_attached_tpu_needs_its_build(monkeypatch, name):
    monkeypatch.setattr(strategy, "_installed", lambda package: package != "tensorflow-tpu")
    with pytest.raises(strategy.DeviceError, match=r'pip install -e "\.\[tpu\]"'):
        strategy.make_strategy("tpu", tpu_name=name)


class OfTheClient(Exception):
    """An error of its own, without a message."""


@pytest.mark.parametrize("fault", [None, ValueError("no such node\nand more"), OfTheClient()])
def test_a_tpu_that_cannot_be_reached(monkeypatch, fault):
    def resolver(**arguments):
        if fault is None:
            time.sleep(30.0)
        raise fault

    monkeypatch.setattr(strategy, "_installed", lambda package: False)
    monkeypatch.setattr(strategy, "_has_tpu_client", lambda: True)
    monkeypatch.setattr(strategy, "_FIND_SECONDS", 0.2)
    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    began = time.monotonic()
    with pytest.raises(strategy.DeviceError, match="could not reach the TPU 'nope'") as raised:
        strategy.make_strategy("tpu", tpu_name="nope", tpu_zone="z", gcp_project="p")
    assert time.monotonic() - began < 10.0
    cause = {
        type(None): "no answer within",
        ValueError: "no such node.",
        OfTheClient: "OfTheClient.",
    }
    assert cause[type(fault)] in str(raised.value) and "\n" not in str(raised.value)
    assert "--tpu_zone" in str(raised.value) and "gcloud auth" in str(raised.value)


@pytest.mark.parametrize("missing", ["googleapiclient", "oauth2client"])
def test_a_tpu_by_its_name_needs_the_client_of_google_cloud(monkeypatch, missing):
    there = importlib.util.find_spec("json")
    found = lambda name, package=None: None if name == missing else there  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", found)
    monkeypatch.setattr(strategy, "_installed", lambda package: False)
    with pytest.raises(strategy.DeviceError, match=r"to look up the TPU 'n'.*\.\[tpu\]"):
        strategy.make_strategy("tpu", tpu_name="n")


def test_a_tpu_by_its_address_needs_no_client(monkeypatch):
    def resolver(tpu, **arguments):
        raise ValueError(f"asked for {tpu}")

    monkeypatch.setattr(strategy, "_installed", lambda package: False)
    monkeypatch.setattr(strategy, "_has_tpu_client", lambda: False)
    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    with pytest.raises(strategy.DeviceError, match="asked for grpc://10.0.0.2:8470"):
        strategy.make_strategy("tpu", tpu_name="grpc://10.0.0.2:8470")


def without_client():
    strategy._has_tpu_client = lambda: False


def unreachable():
    strategy._has_tpu_client = lambda: True
    strategy._FIND_SECONDS = 0.2
    tf.distribute.cluster_resolver.TPUClusterResolver = lambda **arguments: time.sleep(600.0)


@pytest.mark.parametrize(
    ("prepare", "cause"),
    [(without_client, "to look up the TPU 'nope'"), (unreachable, "no answer within 0 seconds")],
)
def test_the_script_says_so_in_one_line(tmp_path, prepare, cause):
    flag_list = ["--strategy=tpu", "--tpu_name=nope", f"--workdir={tmp_path / 'run'}"]
    began = time.monotonic()
    ended = children.run(tmp_path, "train.py", flag_list, prepare)
    assert time.monotonic() - began < 100.0  # and not the 600 of a lookup that is left to itself
    assert ended.code == 1
    (line,) = [line for line in ended.errors.splitlines() if line.startswith("error: ")]
    assert cause in line and "Traceback" not in ended.errors
    assert not (tmp_path / "run").exists()


def test_errors_of_collectives_are_of_workers_only_where_there_are_some(monkeypatch):
    one = tf.distribute.OneDeviceStrategy("CPU:0")
    error = tf.errors.UnavailableError(None, None, "connection reset")
    with pytest.raises(tf.errors.UnavailableError), strategy.worker_errors(one):
        raise error
    monkeypatch.setattr(strategy, "has_workers", lambda made: True)
    with (
        pytest.raises(strategy.DeviceError, match="another worker ended.*same command"),
        strategy.worker_errors(one),
    ):
        raise error
    with pytest.raises(tf.errors.InvalidArgumentError), strategy.worker_errors(one):
        raise tf.errors.InvalidArgumentError(None, None, "this worker's own")


class Devices:
    """So many replicas of nothing."""

    def __init__(self, replicas):
        self.num_replicas_in_sync = replicas


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--train_batch_size=30"], "--train_batch_size: expected a multiple of the 8 devices"),
        (["--train_batch_size=32", "--minibatch_size=4"], "--minibatch_size: expected a multiple"),
    ],
)
def test_flags_that_do_not_go_with_so_many_devices(given, message):
    settings = job_config.read(job_config.parsed(["train", *given]))
    job._check_devices(settings, Devices(1))
    with pytest.raises(job_config.UsageError, match=message):
        job._check_devices(settings, Devices(8))


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (0, "waiting for 127.0.0.1:1, for 1 seconds at most"),
        (1, "waiting for the first worker, 127.0.0.1:{port}, for 1 seconds at most"),
    ],
)
def test_who_waits_says_for_whom(monkeypatch, caplog, index, said):
    monkeypatch.setattr(workers, "_FIRST_WORD_SECONDS", 0.1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    caplog.set_level("INFO")
    with pytest.raises(TimeoutError, match="no word from .*127.0.0.1"):
        workers.meet([f"127.0.0.1:{port}", "127.0.0.1:1"], index, 1.1)
    assert said.format(port=port) in caplog.messages
