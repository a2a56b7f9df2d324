"""Sweeps of noise, sparsity and networks: what a point stands for, and what it is a mean over."""

import pytest

from neural_alignment.figures.material import Material
from neural_alignment.figures.reader import read
from neural_alignment.figures.sweeps import (
    draw_architectures,
    draw_noise,
    draw_sparsity,
    network,
    noise_variance,
    sparsity,
)
from tests.figures.made_runs import make_run


@pytest.mark.parametrize(
    ("flags", "variance"),
    [
        ({}, 0.0),
        ({"noisy_opt_variance": "0.5"}, 0.0),
        ({"use_noisy_alignment_opt": "true"}, 1.0),
        ({"use_noisy_alignment_opt": "true", "noisy_opt_variance": "0.5"}, 0.5),
        ({"use_noisy_global_opt": "true", "noisy_global_opt_variance": "0.1",
          "noisy_opt_variance": "0.5"}, 0.1),
    ],
)  # fmt: skip
def test_the_variance_is_that_of_the_noisy_optimizer(tmp_path, flags, variance):
    (run,) = read([make_run(tmp_path / "a", **flags)]).runs
    assert noise_variance(run) == variance


def test_sparsity_and_network_of_a_run(tmp_path):
    (run,) = read([make_run(tmp_path / "a", density=0.05, layers_list="64,64")]).runs
    assert sparsity(run) == pytest.approx(95.0) and network(run) == "fc 64,64"


def test_networks_stand_by_depth(tmp_path):
    names = ("resnet101", "resnet18_v2", "resnet50", "resnet18")
    runs = [make_run(tmp_path / name, model=name) for name in names]
    drawn = draw_architectures(Material(read(runs).runs))
    (panel,) = drawn.figure.axes
    shown = [label.get_text() for label in panel.get_xticklabels()]
    assert shown == ["resnet18", "resnet18_v2", "resnet50", "resnet101"]


J, R = "use_noisy_global_opt", "use_noisy_alignment_opt"
# Runs that differ, and the top-1 of each line's points: what is no seed of the other is apart.
SWEPT = {
    "noise on J's updates and on R's": (
        draw_noise, "variance",
        [({J: "true", "noisy_opt_variance": 0.1}, 0.8), ({R: "true", "noisy_opt_variance": 0.1},
          0.6), ({}, 0.9)],
        {("symmetric, noise on J's updates", 0.1): 80.0, ("symmetric, noise on J's updates", 0.0):
         90.0, ("symmetric, noise on R's updates", 0.1): 60.0,
         ("symmetric, noise on R's updates", 0.0): 90.0},
    ),
    "both, of two variances": (
        draw_noise, "variance",
        [({J: "true", R: "true", "noisy_alignment_opt_variance": v}, v) for v in (0.1, 0.2)]
        + [({}, 0.9)],
        {(f"symmetric, noise on J's and R's updates, of variance {v:g} on R's", x): 100 * y
         for v in (0.1, 0.2) for x, y in ((1.0, v), (0.0, 0.9))},
    ),
    "one place": (
        draw_noise, "variance", [({R: "true"}, 0.6), ({}, 0.9)],
        {("symmetric", 1.0): 60.0, ("symmetric", 0.0): 90.0},
    ),
    "networks of other activations": (
        draw_architectures, "network",
        [({"activation": "tanh"}, 0.7), ({}, 0.8), ({"model": "conv"}, 0.9)],
        {("symmetric", "fc, activation=tanh"): 70.0, ("symmetric", "fc"): 80.0,
         ("symmetric", "conv"): 90.0},
    ),
    "networks with the same options": (
        draw_architectures, "network",
        [({"l2": 0.1}, 0.7), ({"l2": 0.1, "model": "conv"}, 0.9)],
        {("symmetric", "fc"): 70.0, ("symmetric", "conv"): 90.0},
    ),
    "a density that the flags do not say": (
        draw_sparsity, "sparsity",
        [({"rule": "backprop"}, 0.9), ({"density": "0.5"}, 0.5), ({"density": None}, 0.8)],
        {("symmetric", 0.0): 80.0, ("symmetric", 50.0): 50.0, ("backprop", ""): 90.0},
    ),
    "a product path that is kept as R Q where it is dense": (
        draw_sparsity, "sparsity",
        [({"rule": "product", "density": 1.0, "factored": "false"}, 0.8),
         ({"rule": "product", "density": 0.5, "factored": "true"}, 0.5),
         ({"rule": "backprop"}, 0.9)],
        {("product", 0.0): 80.0, ("product", 50.0): 50.0, ("backprop", ""): 90.0},
    ),
    "a product path that is kept both ways": (
        draw_sparsity, "sparsity",
        [({"rule": "product", "density": 1.0, "factored": text}, 0.8) for text in ("false", "true")]
        + [({"rule": "product", "density": 0.5, "factored": "true"}, 0.5)],
        {("product", 0.0): 80.0, ("product", 50.0): 50.0},
    ),
    "two data sets": (
        draw_sparsity, "sparsity",
        [({"rule": "backprop", "dataset": "mnist"}, 0.9), ({"density": "0.5"}, 0.5),
         ({"density": None}, 0.8), ({"rule": "backprop"}, 0.7)],
        {("symmetric, digits", 0.0): 80.0, ("symmetric, digits", 50.0): 50.0,
         ("backprop, mnist", ""): 90.0, ("backprop, digits", ""): 70.0},
    ),
    "a line across of another data set": (
        draw_noise, "variance",
        [({"rule": "backprop", "dataset": "mnist"}, 0.9), ({R: "true"}, 0.5), ({}, 0.8)],
        {("symmetric, digits", 1.0): 50.0, ("symmetric, digits", 0.0): 80.0,
         ("backprop, mnist", ""): 90.0},
    ),
    "one variance, spelled in two ways": (
        draw_noise, "variance",
        [({J: "true", "noisy_opt_variance": 0.1}, 0.8), ({}, 0.9),
         ({J: "true", "noisy_global_opt_variance": 0.1}, 0.8)],
        {("symmetric", 0.1): 80.0, ("symmetric", 0.0): 90.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SWEPT)
def test_a_sweep_averages_over_seeds_alone(case, tmp_path):
    sweep, column, runs, points = SWEPT[case]
    for i, (flags, top1) in enumerate(runs):
        for seed in range(2):
            make_run(tmp_path / f"{i}-{seed}", seed=seed, top1=top1, epochs=1, **flags)
    table = sweep(Material(read([tmp_path]).runs)).table
    assert {(row["group"], row[column]): row["mean"] for row in table} == pytest.approx(points)
    assert {row["runs"] for row in table} == {2} and len(table) == len(points)
