"""The published sets themselves, where `--data-dir` has them: checksums, and that they train."""

import keras
import pytest

from neural_alignment import data
from neural_alignment.data import local, published

TRAINED = {"mnist": 0.93, "fashion_mnist": 0.8}  # top-1 of an MLP after one epoch


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(published.SETS))
def test_the_published_files(name, request):
    folder = request.config.getoption("--data-dir")
    if folder is None:
        pytest.skip("no --data-dir")
    if local.find(name, folder) is None:
        pytest.skip(f"no {name} in {folder}")
    dataset = data.get(name, data_dir=folder)
    known = published.SETS[name]
    assert dataset.source.endswith("as published")
    assert dataset.image_shape == known.image_shape
    assert dataset.num_train == (60_000 if known.image_shape[2] == 1 else 50_000)
    assert dataset.num_validation == 10_000
    if name in TRAINED:
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input(dataset.image_shape),
                keras.layers.Flatten(),
                keras.layers.Dense(128, "relu"),
                keras.layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        model.fit(dataset.train(64, 0, 0), shuffle=False, verbose=0)
        _, accuracy = model.evaluate(dataset.validation(1000), verbose=0)
        assert accuracy > TRAINED[name]
