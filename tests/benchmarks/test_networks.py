import keras
import pytest

from benchmarks import networks
from neural_alignment.layers import Aligned


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_the_twin_is_stock_and_of_equal_size(name):
    model = networks.NETWORKS[name].build(None)
    twin = networks.stock_twin(model)
    assert twin.count_params() == model.count_params()
    assert [v.shape for v in twin.trainable_variables] == [
        v.shape for v in model.trainable_variables
    ]
    assert not any(isinstance(layer, Aligned) for layer in twin.layers)
    stock = {keras.layers.Dense, keras.layers.Conv2D, keras.layers.BatchNormalization}
    kinds = {type(layer) for layer in twin.layers if layer.weights}
    assert kinds <= stock


def test_a_model_with_a_rule_has_no_twin():
    model = networks.NETWORKS["mlp"].build("feedback")
    with pytest.raises(ValueError, match="alignment=None"):
        networks.stock_twin(model)


def test_floors_of_products():
    # 2 products of [in, 10 out] by [10 out, out] for each kernel, whatever the batch, where it is
    # large; where it is small the error goes through one factor and then the other.
    model = networks.NETWORKS["mlp"].build("product")
    one, many = networks.floor(model, 640), networks.floor(model, 6400)
    assert one - 1.0 == pytest.approx(10 * (many - 1.0))
    assert networks.floor(model, 64) == pytest.approx(
        1.0
        + (
            64 * (5120 * (512 + 2 * 784) - 784 * 512 + 5120 * (512 + 2 * 512) - 512**2)
            + 2 * 512 * 100 * 10
        )
        / networks.backpropagation(model, 64)
    )
    assert networks.floor(networks.NETWORKS["mlp"].build("feedback"), 64) == 1.0


@pytest.mark.parametrize(
    ("network", "batch", "rule", "expected"),
    [
        ("mlp", 64, {"name": "product", "factored": False}, 1.74),
        ("resnet20", 64, {"name": "product", "factored": False}, 1.001),
        # R Q and dR of 307 and 307 of 512 units, ten times expanded, and of 6 of 10.
        ("mlp", 64, "mixed", 1.0 + 2 * (784 * 307**2 + 512 * 307**2 + 512 * 6**2) * 10 / 102.8e6),
        ("mlp", 64, "direct", 0.83),
        ("resnet20", 64, "direct", 0.67),
        ("resnet18", 16, "direct", 0.68),
    ],
)
def test_floors_of_what_is_cheaper(network, batch, rule, expected):
    model = networks.NETWORKS[network].build(rule)
    assert networks.floor(model, batch) == pytest.approx(expected, rel=0.005)
