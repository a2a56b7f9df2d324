"""The papers' analyses against numbers that are found in another way."""

import itertools
import math

import numpy as np
import pytest

from neural_alignment import alignments
from neural_alignment.figures import connectivity, draw, gradient_flow, random_product, two_layer
from neural_alignment.figures.gradient_flow import eigenvalues, flow_matrix
from neural_alignment.figures.registry import KINDS, NOTHING
from neural_alignment.maps import Matmul
from tests.figures.made_runs import read_table

FLOWS = [(rule, x) for rule in gradient_flow.PUBLISHED for x in (0.7, 1.0, 1.5)]


@pytest.mark.parametrize(("rule", "x"), FLOWS)
def test_eigenvalues_are_the_published_ones_and_those_of_the_matrix(rule, x):
    matrix = flow_matrix(rule, x)
    published = {
        "symmetric": (0.0, 2.0),
        "activation": (0.0, 2.0 * x * x),
        "mirror": (1.0 - x * x, 1.0 + x * x),
    }[rule]
    assert eigenvalues(matrix) == pytest.approx(published)
    assert sorted(eigenvalues(matrix)) == pytest.approx(np.linalg.eigvalsh(matrix).tolist())
    for value, direction in zip(eigenvalues(matrix), ([1, 1], [1, -1]), strict=True):
        assert matrix @ direction == pytest.approx(value * np.array(direction))


@pytest.mark.parametrize("rule", gradient_flow.PUBLISHED)
def test_the_flow_is_down_the_gradient_of_the_rule_s_own_loss(rule):
    """R is quadratic, so that a central difference is its gradient."""
    coefficients = {name: 0.7 - 0.2 * i for i, name in enumerate(gradient_flow.PUBLISHED[rule])}
    options = {"mirror": {"input_distribution": None, "center_input": False}}.get(rule, {})
    own = alignments.rule(rule)(update_forward=True, **options, **coefficients)
    x, h, at = 1.3, 0.5, np.array([0.7, -0.4])

    def loss(point):
        w, b = (np.full((1, 1), value, "float32") for value in point)
        return float(own(np.full((1, 1), x, "float32"), forward_kernel=w, backward_kernel=b,
                         linear=Matmul()))  # fmt: skip

    steps = h * np.eye(2)
    gradient = [(loss(at + step) - loss(at - step)) / (2 * h) for step in steps]
    matrix = flow_matrix(rule, x, **coefficients)
    assert gradient_flow.field(at, matrix) == pytest.approx([-g for g in gradient], abs=1e-5)


@pytest.mark.parametrize(("rule", "x"), FLOWS)
def test_trajectories_are_those_of_the_field(rule, x):
    matrix, start = flow_matrix(rule, x), np.array([1.1, -0.3])
    path = two_layer.integrate(lambda p: gradient_flow.field(p, matrix), start, 2.0, 200)
    times = np.linspace(0.0, 2.0, 201)
    assert path == pytest.approx(gradient_flow.trajectory(start, times, matrix), abs=1e-8)


def test_a_mirror_blows_up_where_the_input_exceeds_the_decay():
    late = np.array([20.0])
    for x, decay_coef in itertools.product((0.5, 0.9, 1.1, 2.0), (0.2, 0.5, 1.0)):
        matrix = flow_matrix("mirror", x, decay_coef=decay_coef)
        assert gradient_flow.blows_up(matrix) == (x * x > 2.0 * decay_coef)
        (end,) = gradient_flow.trajectory(np.array([1.0, 0.5]), late, matrix)
        assert (np.linalg.norm(end) > 1.2) == gradient_flow.blows_up(matrix)
    assert not any(gradient_flow.blows_up(flow_matrix(r, 3.0)) for r in ("symmetric", "activation"))


@pytest.mark.parametrize("rule", ("symmetric", "activation"))
def test_weights_meet_at_their_mean(rule):
    (end,) = gradient_flow.trajectory(np.array([1.0, -0.4]), np.array([60.0]), flow_matrix(rule))
    assert end == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flow_matrix("feedback"), "symmetric, activation, mirror. Received: 'feedback'"),
        (lambda: flow_matrix("mirror", self_coef=1.0), "decay_coef, amp_coef. Received: 'self_c"),
        (lambda: two_layer.flow("mirror", [0, 0]), "Received: 'mirror'"),
        (lambda: two_layer.flow("feedback", [0, 0]), r"\(w1, w2, b\) of feedback. Received: 2"),
        (lambda: two_layer.jacobian("backprop", [0, 0, 0]), r"\(w1, w2\) of backprop"),
        (lambda: two_layer.eigenvalues_at_solution("feedback", 1.0), "b with feedback alone"),
        (lambda: two_layer.eigenvalues_at_solution("backprop", 1.0, b=1.0), "feedback alone"),
        (lambda: two_layer.conserved("symmetric", [0, 0, 0]), "Received: 'symmetric'"),
        (lambda: random_product.path_angle(0.5), "expansion >= 1. Received: 0.5"),
        (lambda: random_product.path_angle(math.nan), "expansion >= 1. Received: nan"),
        (lambda: connectivity.pair_correlation(0.5, 0.4, 0.3), "one_way \\+ both_ways = 1"),
        (lambda: connectivity.pair_correlation(0.5, 0.5, 1.3), "Received: 1.3"),
        (lambda: random_product.gram(0, 2.0, None), "a unit at least.*1 by 0, 2.0"),
        (lambda: random_product.gram(4, math.inf, None), "finite expansion.*Received: .*inf"),
        (lambda: random_product.measured_path_angle(0, 4, 2.0, None), "0 by 4, 2.0"),
        (lambda: connectivity.pair_angle(1.1), "correlation in .-1, 1.. Received: 1.1"),
        (lambda: connectivity.pair_angle(math.nan), "correlation in .-1, 1.. Received: nan"),
        (lambda: two_layer.eigenvalues_at_solution("backprop", 0.0), "w1 and beta other than 0"),
        (lambda: two_layer.eigenvalues_at_solution("backprop", 1.0, beta=0.0), "other than 0"),
        (lambda: two_layer.jacobian("feedback", np.zeros((2, 3))), "one state.*shape .2, 3."),
        (lambda: two_layer.flow("backprop", 1.0), "a state of several numbers. Received: 1.0"),
        (lambda: two_layer.integrate(np.negative, [1.0], 1.0, steps=0), "steps >= 1. Received: 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=f"Expected.*{message}"):
        make()


def test_lists_whole_numbers_and_small_floats_are_taken():
    matrix = flow_matrix("mirror", 2)
    for given in (matrix.tolist(), matrix.astype(np.float16), matrix.astype(int)):
        assert eigenvalues(given) == eigenvalues(matrix)
        np.testing.assert_array_equal(
            gradient_flow.field([[1, 2]], given),
            gradient_flow.field(np.array([[1.0, 2.0]]), matrix),
        )
        np.testing.assert_array_equal(
            gradient_flow.trajectory([1, 2], [0, 1], given),
            gradient_flow.trajectory(np.array([1.0, 2.0]), np.arange(2.0), matrix),
        )
    assert two_layer.is_sink([1, 1], [1, -3], [1, 1]).tolist() == [True, False]


@pytest.mark.parametrize("expansion", [1.0, 1.5, 10.0])
def test_the_density_has_the_spectrum_s_mass_and_mean(expansion):
    lower, upper = random_product.marchenko_pastur_edges(expansion)
    angle = (np.arange(20000) + 0.5) * np.pi / 20000  # dense at both edges
    e = lower + (upper - lower) * (1.0 - np.cos(angle)) / 2.0
    width = (upper - lower) * np.sin(angle) / 2.0 * np.pi / 20000
    mass = random_product.marchenko_pastur_density(e, expansion) * width
    assert mass.sum() == pytest.approx(1.0, abs=1e-6)
    assert (mass * e).sum() == pytest.approx(1.0, abs=1e-6)  # tr G / N
    assert (mass * e * e).sum() == pytest.approx(1.0 + 1.0 / expansion, abs=1e-6)
    outside = random_product.marchenko_pastur_density([-1.0, 0.0, 9.0], expansion)
    assert outside.tolist() == [0.0, math.inf if expansion == 1.0 else 0.0, 0.0]


def test_angles_of_rounded_correlations():
    assert connectivity.pair_angle(1.0 + 1e-12) == 0.0
    assert connectivity.pair_angle(-1.0 - 1e-12) == 180.0


def states(rule, w1, w2, b=0.8):
    return np.array([w1, w2] if rule == "backprop" else [w1, w2, b])


@pytest.mark.parametrize("rule", two_layer.RULES)
def test_the_jacobian_is_the_derivative_of_the_flow(rule):
    at, h = states(rule, 0.6, -1.1), 1e-5
    columns = [
        (two_layer.flow(rule, at + step, 1.4, 0.7) - two_layer.flow(rule, at - step, 1.4, 0.7))
        / (2 * h)
        for step in h * np.eye(len(at))
    ]
    numeric = np.stack(columns, axis=1)
    assert two_layer.jacobian(rule, at, 1.4, 0.7) == pytest.approx(numeric, abs=1e-8)


@pytest.mark.parametrize("rule", two_layer.RULES)
@pytest.mark.parametrize("w1", [-1.7, -0.4, 0.3, 2.0])
def test_eigenvalues_at_the_solutions(rule, w1):
    alpha, beta = 1.4, 0.7
    w2 = alpha / (beta * w1)
    b = {"feedback": 0.8}.get(rule)
    at = states(rule, w1, w2, w2 if b is None else b)
    assert two_layer.flow(rule, at, alpha, beta) == pytest.approx(np.zeros(len(at)))
    found = np.linalg.eigvals(two_layer.jacobian(rule, at, alpha, beta))
    given = two_layer.eigenvalues_at_solution(rule, w1, alpha, beta, b)
    assert sorted(found.real) == pytest.approx(sorted(given), abs=1e-9)
    assert found.imag == pytest.approx(np.zeros(len(at)), abs=1e-9)
    assert (given[0] < 0.0) == two_layer.is_sink(w1, w2, w2 if b is None else b)


def test_the_origin_is_a_saddle_of_backprop():
    found = np.linalg.eigvalsh(two_layer.jacobian("backprop", [0.0, 0.0], 1.4, 0.7))
    assert found == pytest.approx([-1.4, 1.4])


@pytest.mark.parametrize("rule", ["backprop", "feedback"])
def test_what_the_flow_conserves(rule):
    starts = np.array([states(rule, w1, w2) for w1, w2 in ((1.5, 0.2), (-0.7, 1.0), (0.1, -2.0))])
    path = two_layer.integrate(lambda s: two_layer.flow(rule, s), starts, 10.0, 2000)
    assert two_layer.conserved(rule, path[-1]) == pytest.approx(two_layer.conserved(rule, starts))
    assert np.abs(path[-1] - starts).max() > 0.5
    assert path[-1, :, 0] * path[-1, :, 1] == pytest.approx(np.ones(3), abs=1e-3)


def test_feedback_leaves_solutions_that_are_no_sinks_and_symmetric_aligns():
    b, w1 = 2.0, -0.5  # w1^2 + b / w1 < 0
    near = states("feedback", w1 + 1e-4, 1.0 / w1, b)
    left = two_layer.integrate(lambda s: two_layer.flow("feedback", s), near, 30.0, 6000)[-1]
    assert np.linalg.norm(left - near) > 0.5 and left[0] ** 2 + left[2] * left[1] > 0.0
    start = states("symmetric", -0.5, -1.0, 1.5)
    end = two_layer.integrate(lambda s: two_layer.flow("symmetric", s), start, 60.0, 6000)[-1]
    assert end[1] == pytest.approx(end[2], abs=1e-6) and end[0] * end[1] == pytest.approx(1.0)


@pytest.mark.parametrize("expansion", [1.0, 2.0, 10.0])
def test_the_spectrum_of_a_random_gram_matrix(expansion):
    units = 200
    found = np.linalg.eigvalsh(random_product.gram(units, expansion, np.random.default_rng(1)))
    lower, upper = random_product.marchenko_pastur_edges(expansion)
    assert found.min() >= lower - 0.05 and found.max() <= upper + 0.15
    assert found.max() > upper - 0.25 * (upper - lower)
    line = np.linspace(lower, upper, 200_001)[1:-1]
    density = random_product.marchenko_pastur_density(line, expansion)
    step = line[1] - line[0]
    assert density.sum() * step == pytest.approx(1.0, abs=0.01)
    for power, moment in ((1, 1.0), (2, 1.0 + 1.0 / expansion)):
        assert (line**power * density).sum() * step == pytest.approx(moment, abs=0.01)
        assert (found**power).mean() == pytest.approx(moment, rel=0.03)
    assert random_product.marchenko_pastur_density([lower / 2 + 1e-9, upper + 1], expansion)[1] == 0


def test_the_angle_of_a_random_path():
    assert random_product.path_angle(10.0) == pytest.approx(17.55, abs=0.005)
    assert random_product.path_angle(1.0) == pytest.approx(45.0)
    for expansion in (1.0, 4.0, 10.0):
        found = random_product.measured_path_angle(150, 200, expansion, np.random.default_rng(0))
        assert found == pytest.approx(random_product.path_angle(expansion), abs=0.6)


def test_pairs_of_cortex_correlate_by_a_fifth():
    r = connectivity.pair_correlation(
        connectivity.ONE_WAY, connectivity.BOTH_WAYS, connectivity.CORRELATION
    )
    # 0.17 and 80 degrees; [P] has "about 0.2", of which the angle is 78.
    assert round(r, 1) == 0.2 and connectivity.pair_angle(r) == pytest.approx(80.2, abs=0.05)
    assert connectivity.pair_angle(0.2) == pytest.approx(78.5, abs=0.05)
    assert connectivity.pair_correlation(0.0, 1.0, 0.36) == pytest.approx(0.36)


def test_sampled_pairs_have_the_correlation():
    w, b = connectivity.sample_pairs(0.69, 0.31, 0.36, 400_000, np.random.default_rng(0))
    both, one = (w != 0) & (b != 0), (w != 0) ^ (b != 0)
    assert both.mean() == pytest.approx(0.31, abs=0.005) and (both | one).all()
    assert ((w == 0).mean(), (b == 0).mean()) == pytest.approx((0.345, 0.345), abs=0.005)
    assert np.corrcoef(w[both], b[both])[0, 1] == pytest.approx(0.36, abs=0.01)
    expected = connectivity.pair_correlation(0.69, 0.31, 0.36)
    assert np.corrcoef(w, b)[0, 1] == pytest.approx(expected, abs=0.01)


def test_figures_that_need_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr("neural_alignment.figures.random_paths._UNITS", 24)
    names = [name for name, kind in KINDS.items() if kind.of == NOTHING]
    written = draw((), tmp_path, names, ["png"])
    assert {path.name for path in written.files} == {
        f"{name}.{ending}" for name in names for ending in ("png", "csv")
    }
    ends = read_table(tmp_path / "two_layer.csv")
    kept = [float(r["w1"]) * float(r["w2"]) for r in ends if r["time"] == "20.0"]
    assert kept == pytest.approx(np.ones(len(kept)), abs=1e-2) and len(kept) == 36
    rows = read_table(tmp_path / "gradient_flow.csv")
    assert {(r["rule"], r["x"]) for r in rows} >= {("mirror", "0.7"), ("mirror", "1.2")}
