"""The presets of Akrout et al.'s MNIST code: a run against its definition in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import config
from neural_alignment.layers import training_step
from neural_alignment.layers.aligned import aligned_layers
from neural_alignment.training import build
from tests.alignments import reference

HIDDEN, BATCH = 6, 128
# Rate of W; and of B, where it has W's gradient.
RATES = {"bp": 0.2, "fa": 0.2, "kp": 0.3, "wm": 0.05}


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


class Network:
    """Two layers of sigmoids `p = s(s(x W1 + b1) W2 + b2)`, sigmoid cross-entropy, in float64.

    The code divides the gradient of a bias by the batch twice, and mirrors in every layer.
    """

    def __init__(self, rule, weights):
        self.rule, self.rate = rule, RATES[rule]
        self.w = {name: np.float64(value) for name, value in weights.items()}

    def activities(self, x):
        h = sigmoid(x @ self.w["dense0/kernel"] + self.w["dense0/bias"])
        return h, sigmoid(h @ self.w["dense_output/kernel"] + self.w["dense_output/bias"])

    def train(self, x, t):
        w, size = self.w, len(x)
        h, p = self.activities(x)
        e2 = (p - t) / size
        back = "kernel" if self.rule == "bp" else "backward_kernel"
        e1 = (e2 @ w[f"dense_output/{back}"].T) * h * (1.0 - h)
        for layer, below, error in (("dense0", x, e1), ("dense_output", h, e2)):
            gradient = below.T @ error
            w[f"{layer}/kernel"] -= self.rate * gradient
            w[f"{layer}/bias"] -= self.rate / size * error.sum(0)
            if self.rule == "kp":
                w[f"{layer}/backward_kernel"] -= self.rate * gradient

    def mirrored(self, noise):
        """Each layer's B after `B += 0.01 x^T s(x W + b)`, summed over the batch of noise."""
        moved = {}
        for layer, x in noise.items():
            y = sigmoid(x @ self.w[f"{layer}/kernel"] + self.w[f"{layer}/bias"])
            name = f"{layer}/backward_kernel"
            moved[name] = self.w[name] + 0.01 * x.T @ y
        return moved


def noise(model, step):
    """The trainer's noise of a step, at each layer."""
    drawn = {}
    for layer in aligned_layers(model):
        with training_step(step, 0):
            seed = layer.sites[0].noise_seed(training=False)
        shape = (BATCH, layer.kernel.shape[0])
        bits = tf.random.stateless_uniform(
            shape, seed, minval=None, maxval=None, dtype="uint32", alg="philox"
        )
        drawn[layer.name] = reference.noise(layer.alignment, shape, bits.numpy())
        # 0.1 (U[0, 1) - 0.5)
        assert 0.049 < np.abs(drawn[layer.name]).max() <= 0.05
    return drawn


def weights(model):
    return {variable.path: variable.numpy() for variable in model.weights}


@pytest.mark.parametrize("rule", RATES)
def test_a_run_is_the_authors_code(rule):
    """On the digits, an epoch of mirroring alone and one of training, in the order of the data."""
    delay = 1 if rule == "wm" else 0
    line = [f"--preset=makrout_{rule}", "--dataset=digits", f"--layers_list={HIDDEN}"]
    line += [f"--train_epochs={delay + 1}"]
    settings = config.validate(config.parsed(config.expand(["train", *line])))
    dataset = build.load_dataset(settings)
    trainer = build.make_trainer(settings, dataset, tf.distribute.OneDeviceStrategy("CPU:0"))
    network = Network(rule, weights(trainer.model))
    kernels = [layer.kernel.numpy() for layer in aligned_layers(trainer.model)]
    if rule == "bp":
        kernels = [value for name, value in weights(trainer.model).items() if "kernel" in name]
    deviations = [kernel.std() * np.sqrt(sum(kernel.shape)) for kernel in kernels]
    np.testing.assert_allclose(deviations, 1.0, atol=0.15)  # Var = 1 / (in + out)
    row = trainer.fit()
    steps = dataset.steps_per_epoch(BATCH)
    x = dataset.train_images.reshape(dataset.num_train, -1) / 16.0
    t = np.eye(10)[dataset.train_labels]
    for step in range(steps * (delay + 1)):
        # Both losses at the same weights.
        moved = network.mirrored(noise(trainer.model, step)) if rule == "wm" else {}
        if step >= steps * delay:
            at = step % steps * BATCH
            network.train(x[at : at + BATCH], t[at : at + BATCH])
        network.w |= moved
    for path, value in weights(trainer.model).items():
        np.testing.assert_allclose(value, network.w[path], rtol=2e-4, atol=2e-6, err_msg=path)
    held_out = dataset.validation_images.reshape(dataset.num_validation, -1) / 16.0
    _, p = network.activities(held_out)
    t = np.eye(10)[dataset.validation_labels]
    wanted = -np.mean(np.sum(t * np.log(p) + (1.0 - t) * np.log(1.0 - p), axis=1))
    assert row["val_loss"] == pytest.approx(wanted, rel=1e-5)
