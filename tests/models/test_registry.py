import subprocess
import sys

import pytest

from neural_alignment import models
from neural_alignment.models import registry
from neural_alignment.registry import Registry


def test_names_are_there_without_tensorflow():
    code = (
        "import sys; from neural_alignment import models; print(' '.join(models.names()));"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {
        "fc", "conv", "lenet5",
        *(f"resnet{depth}{v}" for depth in (18, 34, 50, 101, 152, 200) for v in ("", "_v2")),
        *(f"resnet{depth}" for depth in (20, 32, 44, 56)),
    }  # fmt: skip


def test_unknown_name_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"Expected a model's name: fc, conv.*resnet81.*did you"):
        models.get("resnet81", input_shape=(32, 32, 3))


def test_unknown_option_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"options of the model 'fc'.*layers_list.*depth"):
        models.get("fc", input_shape=(8, 8, 1), depth=3)


def test_the_depth_belongs_to_the_name():
    assert "depth" not in models.options("resnet18")
    with pytest.raises(ValueError, match="depth"):
        models.get("resnet18", input_shape=(32, 32, 3), depth=34)


def test_a_model_needs_an_input_shape():
    with pytest.raises(ValueError, match="input_shape"):
        models.get("fc")


@pytest.mark.parametrize("name", ["fc", "resnet18", "resnet18_v2", "resnet20"])
def test_options_share_names(name):
    assert {"input_shape", "num_classes", "alignment", "l2"} <= set(models.options(name))


def test_a_model_is_registered_once(monkeypatch):
    monkeypatch.setattr(registry, "_BUILDERS", Registry("a model", registry._BUILDERS))

    @models.register("mine")
    def build(input_shape, alignment=None):
        return input_shape, alignment

    assert models.get("mine", input_shape=(3,), alignment="symmetric") == ((3,), "symmetric")
    assert "mine" in models.names()
    with pytest.raises(ValueError, match="taken"):
        models.register("fc")
