"""Components of the partial least squares: as many as features have directions."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from neural_alignment.figures.assembly import Assembly  # noqa: E402
from neural_alignment.figures.predictivity import predictivity  # noqa: E402


@pytest.mark.parametrize("size", [1.0, 1e-9, 1e-17, 1e9])
@pytest.mark.parametrize(
    "made_of",
    [
        lambda base, draw: base @ draw.standard_normal((5, 60)),
        lambda base, draw: np.repeat(base, 6, axis=1),
        lambda base, draw: np.hstack([base, np.zeros((len(base), 30))]),  # units that are dead
        lambda base, draw: np.hstack([base, np.ones((len(base), 30))]),
        lambda base, draw: np.hstack([base, base.sum(axis=1, keepdims=True), base]),
    ],
)
def test_features_of_few_directions_score_as_those_alone(made_of, size):
    draw = np.random.default_rng(0)
    base = draw.standard_normal((120, 5))
    responses = base @ draw.standard_normal((5, 6)) + 0.1 * draw.standard_normal((120, 6))
    assembly = Assembly(responses[:, None] * size, np.zeros(120), list("abcdef"))
    alone, more = (
        predictivity({"layer": features}, assembly)
        for features in (base, size * made_of(base, np.random.default_rng(1)))
    )
    np.testing.assert_allclose(more[0][0].raw, alone[0][0].raw, atol=1e-3)
    assert min(alone[0][0].raw) > 0.9
    asked = min(25, made_of(base, np.random.default_rng(1)).shape[1])
    assert f"layer: 5 components, not {asked}, as its features have no more" in more[1]


def test_features_of_a_few_values_have_a_score():
    draw = np.random.default_rng(0)
    features = np.zeros((120, 40))
    features[:, :3] = draw.integers(0, 2, (120, 3))
    responses = features @ draw.standard_normal((40, 6)) + 0.01 * draw.standard_normal((120, 6))
    scores, _ = predictivity(
        {"layer": features}, Assembly(responses[:, None], np.zeros(120), list("abcdef"))
    )
    assert min(scores[0].raw) > 0.99
