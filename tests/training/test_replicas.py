"""One device = many: the same global batch on 1, 2 and 8 devices and on 2 worker processes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from neural_alignment import alignments
from tests.training import children, replica_run, test_multi_worker

TOLERANCE = 1e-6
# Largest absolute and relative difference allowed of what passed through float32 sums.
CLOSE = {"rtol": TOLERANCE, "atol": TOLERANCE}


def _processes(folder, convolutions, *kinds, tasks=("",)):
    folder.mkdir(exist_ok=True)
    started = [
        children._context.Process(target=replica_run.main, args=(folder, kinds, convolutions, task))
        for task in tasks
    ]
    for process in started:
        process.start()
    return started


def _results(folder, started):
    for process in started:
        process.join(3 * children.TIMEOUT)
        said = "".join(path.read_text() for path in folder.glob("*.txt"))
        assert process.exitcode == 0, said[-4000:]
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


def _tasks():
    workers = [f"127.0.0.1:{port}" for port in test_multi_worker.free_ports()]
    return tuple(
        json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})
        for index in range(2)
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """With convolutions, on one device and on two."""
    folder = tmp_path_factory.mktemp("two")
    return _results(folder, _processes(folder, True, "one_device", "mirrored_2"))


@pytest.fixture(scope="module", params=[2, pytest.param(8, marks=pytest.mark.slow)])
def many(request, tmp_path_factory):
    """Without convolutions, on one device, on two or eight and on two workers."""
    folder = tmp_path_factory.mktemp("many")
    mirrored = f"mirrored_{request.param}"
    started = _processes(folder, False, "one_device", mirrored)
    results = _results(folder, started + _processes(folder, False, "multi_worker", tasks=_tasks()))
    results["mirrored"] = results.pop(mirrored)
    return results


@pytest.fixture(scope="module")
def all_with_convolutions(tmp_path_factory):
    """With convolutions, on one device, on eight and on two workers."""
    folder = tmp_path_factory.mktemp("all")
    started = _processes(folder, True, "one_device", "mirrored_8")
    return _results(folder, started + _processes(folder, True, "multi_worker", tasks=_tasks()))


@pytest.fixture(scope="module", params=[False, True])
def compiled(request, tmp_path_factory):
    """With XLA, on one device and on two; without convolutions, and with."""
    folder = tmp_path_factory.mktemp("compiled")
    kinds = ("one_device", "one_device_compiled", "mirrored_2_compiled")
    return _results(folder, _processes(folder, request.param, *kinds))


def _compare(one, other):
    names = [name for name in one if not name.startswith(("noise", "bn/"))]
    assert {f"logs/{name}" for name in ("loss", "alignment_loss", "val_loss")} <= set(names)
    assert any(name.startswith("optimizer_1/") for name in names)
    for name in names:
        np.testing.assert_allclose(one[name], other[name], **CLOSE, err_msg=name)
    for name in ("logs/val_top1", "logs/val_top5"):
        assert one[name] == other[name], name


def test_every_rule_is_there_and_moves(many):
    one = many["one_device"]
    names = {n for n in alignments.layer_names() if not alignments.rule(n).disturbs_input}
    assert {rule.name for rule in replica_run.rules()} == names
    for start in (name for name in one if name.startswith("start/") and "/kernel" in name):
        trained = one[f"model/{start.removeprefix('start/')}"]
        assert np.abs(trained - one[start]).max() > 100 * TOLERANCE, start


@pytest.mark.slow
def test_two_devices(two):
    _compare(two["one_device"], two["mirrored_2"])


@pytest.mark.slow
def test_rules_of_whole_models_are_there(two):
    for name in set(alignments.names()) - set(alignments.layer_names()):
        assert [key for key in two["one_device"] if key.startswith(f"{name}/") and "kernel" in key]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one_device_compiled", "mirrored_2_compiled"])
def test_two_devices_that_compile(compiled, kind):
    _compare(compiled["one_device"], compiled[kind])
    copies = compiled[kind]["bn/moving_variance"]
    np.testing.assert_array_equal(copies, np.broadcast_to(copies[:1], copies.shape))


@pytest.mark.parametrize("kind", ["mirrored", "multi_worker", "multi_worker_other"])
def test_devices_and_two_workers(many, kind):
    _compare(many["one_device"], many[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mirrored_8", "multi_worker", "multi_worker_other"])
def test_eight_devices_and_two_workers_with_convolutions(all_with_convolutions, kind):
    _compare(all_with_convolutions["one_device"], all_with_convolutions[kind])


def test_moving_statistics_are_the_mean_over_replicas(many):
    for kind in ("mirrored", "multi_worker", "multi_worker_other"):
        for name in ("bn/moving_mean", "bn/moving_variance"):
            copies = many[kind][name]
            np.testing.assert_array_equal(copies, np.broadcast_to(copies[:1], copies.shape))
        # The mean of the parts' means is the mean of the whole; variances are the parts' own.
        expected = many["one_device"]["bn/moving_mean"][0]
        np.testing.assert_allclose(many[kind]["bn/moving_mean"][0], expected, **CLOSE)
    first, other = many["multi_worker"], many["multi_worker_other"]
    np.testing.assert_array_equal(first["bn/moving_variance"], other["bn/moving_variance"])


def test_noise_differs_between_replicas_and_is_the_same_on_every_run(many):
    one, replicas = many["one_device"], many["mirrored"]
    for step in ("noise_0", "noise_1"):
        assert len(replicas[step]) > 1
        for losses in replicas[step].T:  # of one layer
            assert len(np.unique(losses)) == len(losses)
        # Replicas 0 and 1 are the same wherever they run, in another process too.
        np.testing.assert_array_equal(one[step], replicas[step][:1])
        np.testing.assert_array_equal(many["multi_worker"][step], replicas[step][:1])
        np.testing.assert_array_equal(many["multi_worker_other"][step], replicas[step][1:2])
    assert not np.isin(replicas["noise_0"], replicas["noise_1"]).any()
