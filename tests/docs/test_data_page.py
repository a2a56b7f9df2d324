"""docs/data.md: the data set and the model that it registers are what its command trains."""

import numpy as np

from neural_alignment import alignments, data, models
from neural_alignment.data import registry as data_registry
from neural_alignment.models import registry as model_registry
from tests.docs.pages import ROOT, blocks, commands

PAGE = ROOT / "docs" / "data.md"


def test_what_it_registers_is_known_to_its_command(monkeypatch):
    for registry, name in ((data_registry, "_LOADERS"), (model_registry, "_BUILDERS")):
        monkeypatch.setattr(registry, name, copied(getattr(registry, name)))
    (code,) = blocks(PAGE, "python")
    exec(compile(code, "mine.py", "exec"), {})
    (command,) = (c for c in commands(PAGE) if "--import=mine.py" in c.arguments)
    given = dict(argument.lstrip("-").split("=") for argument in command.arguments)
    found = data.get(given["dataset"], image_size=6)
    assert "image_size" in data.options(given["dataset"])
    rule = alignments.get(given["alignment"])
    model = models.get(
        given["model"],
        input_shape=found.image_shape,
        num_classes=found.num_classes,
        alignment=rule,
    )
    images, labels = next(iter(found.train(int(given["train_batch_size"]), epoch=0, seed=0)))
    assert images.shape == (32, 6, 6, 1) and set(labels.numpy()) == {0, 1}
    standing = np.ptp(images.numpy(), axis=1).max(axis=(1, 2)) == 0.0
    assert np.array_equal(standing, labels.numpy() == 1)
    assert model(images).shape == (32, 2)
    assert [layer.alignment for layer in model.layers[1:]] == [rule, rule]


def copied(registry):
    """A registry with the same entries, so that the page's do not stay."""
    return type(registry)(registry.kind, registry)
