"""The loop: rows, checkpoints, what stops it."""

import csv
import math
import signal

import keras
import numpy as np
import pytest
import rich.console
import tensorflow as tf

from neural_alignment import layers, optimizers
from neural_alignment.data.arrays import ArrayDataset
from neural_alignment.runs.checkpoints import CheckpointError
from neural_alignment.runs.table import PATH_METRICS
from neural_alignment.training.console import final_table
from neural_alignment.training.loop import DivergenceError, Evaluator, Plan, Trainer
from neural_alignment.training.step import Step


def dataset() -> ArrayDataset:
    """70 training and 13 validation images of 4x4, 3 classes."""
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (83, 4, 4, 1)).astype("uint8")
    labels = draw.integers(0, 3, 83)
    return ArrayDataset.from_arrays(
        "noise", (images[:70], labels[:70]), (images[70:], labels[70:]), num_classes=3
    )


def network(rule="symmetric", batch_norm=False) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(x)
    if batch_norm:
        x = keras.layers.BatchNormalization()(x)
    return keras.Model(inputs, layers.Dense(3, alignment=rule, name="output")(x))


def one(step):
    return tf.ones(())


def trainer(workdir=None, loss_rate=one, callbacks=(), model=None, noisy=False, **plan) -> Trainer:
    model = model or network()
    optimizer = optimizers.get("momentum", learning_rate=0.1)
    if noisy:
        optimizer = optimizers.Noisy(optimizer, variance=1e-3)
    step = Step(model, optimizer, None, loss_rate, one)
    settings = {"train_batch_size": 10, "train_epochs": 2, "eval_batch_size": 5} | plan
    made = Trainer(
        model, step, dataset(), Plan(**settings), tf.distribute.get_strategy(), callbacks
    )
    if workdir is not None:
        made.keep_in(workdir)
    return made


def nan_at(bad: int):
    return lambda step: tf.where(tf.cast(step, "int32") == bad, math.nan, 1.0)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_an_epoch(tmp_path):
    made = trainer(tmp_path)
    last = made.fit()
    table = rows(tmp_path / "metrics.csv")
    assert [(row["epoch"], row["global_step"]) for row in table] == [("1", "7"), ("2", "14")]
    for name in ("loss", "alignment_loss", "val_loss", "val_top1", "val_top5"):
        assert float(table[-1][name]) == last[name]
    assert [row["layer"] for row in rows(tmp_path / "layers.csv")] == ["output"] * 2
    assert made.checkpoints.steps() == [7, 14]
    assert made.evaluate() == {name: last[name] for name in ("val_loss", "val_top1", "val_top5")}


@pytest.mark.parametrize("rule", ["feedback", "mirror"])
def test_paths_are_measured_on_request_and_change_no_bit(tmp_path, rule):
    for on in (False, True):
        (tmp_path / str(on)).mkdir()
    plain, measured = (
        trainer(tmp_path / str(on), model=network(rule), path_metrics=on) for on in (False, True)
    )
    for made in (plain, measured):
        made.fit()
    for ours, theirs in zip(measured.model.weights, plain.model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert rows(tmp_path / "True" / "metrics.csv") == rows(tmp_path / "False" / "metrics.csv")
    without, table = (rows(tmp_path / str(on) / "layers.csv") for on in (False, True))
    assert set(table[0]) == set(without[0]) | set(PATH_METRICS)
    last = {name: float(table[-1][name]) for name in PATH_METRICS}
    assert 0.0 < last["error_angle"] < 180.0
    assert last["error_angle"] == pytest.approx(last["local_gradient_angle"], abs=1e-3)
    assert last["backprop_norm"] > 0.0
    assert last["both_ways"] == 1.0
    console = rich.console.Console(width=200, record=True, quiet=False)
    with console.capture() as shown:
        console.print(
            final_table({"val_top1": 0, "val_top5": 0, "val_loss": 0}, measured.layer_metrics())
        )
    assert f"{last['error_angle']:.1f}" in shown.get()


def test_points_of_direct_feedback_have_rows(tmp_path):
    x = inputs = keras.Input((4, 4, 1))
    x = keras.layers.Dense(5, "tanh", name="hidden")(keras.layers.Flatten()(x))
    model = layers.align(keras.Model(inputs, keras.layers.Dense(3, name="output")(x)), "direct")
    made = trainer(tmp_path, model=model, path_metrics=True, train_epochs=1)
    made.fit()
    table = rows(tmp_path / "layers.csv")
    assert [row["layer"] for row in table] == ["hidden", "output"]
    for row in table:
        assert 0.0 < float(row["error_angle"]) < 180.0 and float(row["backprop_norm"]) > 0.0
        assert math.isnan(float(row["weight_angle"])) and math.isnan(float(row["one_way"]))
    console = rich.console.Console(width=200)
    with console.capture() as shown:
        values = {"val_top1": 0, "val_top5": 0, "val_loss": 0}
        console.print(final_table(values, made.layer_metrics(), "direct"))
    (line,) = (line for line in shown.get().splitlines() if "output" in line)
    assert f"{float(table[-1]['error_angle']):.1f}" in line and " - " in line and "nan" not in line


def test_the_mean_loss_is_over_the_epochs_steps():
    losses = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"])

    made = trainer(callbacks=[Record()], train_epochs=1, iterations_per_loop=1)
    step = made.step
    single, wanted = network(), []
    again = Step(single, optimizers.get("momentum", learning_rate=0.1), None, one, one)
    for i, (images, labels) in enumerate(dataset().train(10, 0, 0)):
        wanted.append(again(images, labels, tf.constant(i))[0].numpy())
    row = made.fit()
    assert step.measured[0] == "loss"
    np.testing.assert_allclose(losses, np.cumsum(wanted) / np.arange(1, 8), rtol=1e-6)
    np.testing.assert_allclose(row["loss"], np.mean(wanted), rtol=1e-6)


def test_validation_counts_every_example_once_whatever_the_batch():
    model = network()
    measured = [Evaluator(model, dataset(), size, tf.distribute.get_strategy())()
                for size in (1, 5, 13, 64)]  # fmt: skip
    for other in measured[1:]:
        assert other["val_top1"] == measured[0]["val_top1"]
        np.testing.assert_allclose(other["val_loss"], measured[0]["val_loss"], rtol=1e-6)
    assert (measured[0]["val_top1"] * 13) % 1 == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("bad", [3, 6, 9])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, bad):
    made = trainer(tmp_path, nan_at(bad), iterations_per_loop=2, epochs_per_checkpoint=0.01)
    with pytest.raises(DivergenceError, match="NaN or infinite") as raised:
        made.fit()
    assert made.global_step <= bad + 3  # the step after it sees the weights; a chunk is two steps
    assert "output" in str(raised.value)
    assert made.checkpoints.newest_whole() == bad
    assert f"last finite checkpoint is of step {bad}" in str(raised.value)
    reader = tf.train.load_checkpoint(made.checkpoints.prefix(bad))
    assert np.isfinite(reader.get_tensor("model/output/kernel")).all()


@pytest.mark.parametrize("bad", [6, 13])
def test_an_epoch_whose_last_step_breaks_the_weights_has_no_row(tmp_path, bad):
    """A table with the last epoch's row says that the run was done."""
    made = trainer(tmp_path, nan_at(bad))  # the rate; the loss of that step is finite
    with pytest.raises(DivergenceError, match=f"NaN or infinite after step {bad + 1}: model/"):
        made.fit()
    kept = [str(step) for step in (7, 14) if step <= bad]
    table = tmp_path / "metrics.csv"
    assert [row["global_step"] for row in (rows(table) if table.exists() else [])] == kept
    assert [str(step) for step in made.checkpoints.steps()] == kept


def test_a_loss_is_named_with_the_weights_that_are_not_finite(tmp_path):
    model = network(None)
    model.get_layer("output").kernel.assign(np.full((16, 3), np.inf))
    with pytest.raises(DivergenceError, match="loss.*weights not finite: .*model/output/kernel"):
        trainer(tmp_path, model=model).fit()


def test_stop_training_and_callbacks():
    seen = []

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(f"begin {epoch}")

        def on_epoch_end(self, epoch, logs=None):
            seen.append(f"end {epoch}")
            assert {"loss", "val_top1", "weight_angle/output"} <= set(logs)
            self.model.stop_training = True

        def on_train_end(self, logs=None):
            seen.append("done")

    trainer(callbacks=[Stop()]).fit()
    assert seen == ["begin 0", "end 0", "done"]


def test_max_epochs_leave_the_rest():
    made = trainer(train_epochs=3, max_epochs=1.5)
    assert made.total_steps == 10
    made.fit()
    assert made.global_step == 10


def test_every_variable_is_in_the_checkpoint(tmp_path):
    made = trainer(tmp_path, model=network(batch_norm=True), noisy=True, train_epochs=1)
    made.fit()
    reader = tf.train.load_checkpoint(made.checkpoints.prefix(7))
    saved = set(reader.get_variable_to_shape_map())
    held = [*made.model.variables, *made.step.optimizers[0].variables]
    assert len(saved) == len(held) + 2  # the global step, and the sums of the losses
    assert {"global_step", "model/output/backward_kernel"} <= saved
    # The noise counts steps of its own, besides those of the optimizer inside.
    assert {"optimizer_0/iteration", "optimizer_0/inner/iteration"} <= saved


def test_another_model_in_the_run_directory_fails_by_name(tmp_path):
    trainer(tmp_path, train_epochs=1).fit()
    with pytest.raises(CheckpointError, match="lacks model/batch_normalization"):
        trainer(tmp_path, model=network(batch_norm=True)).restore()
    with pytest.raises(CheckpointError, match="has model/output/backward_kernel too many"):
        trainer(tmp_path, model=network(None)).restore()


def test_signal_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    trainer(train_epochs=1).fit()
    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
