"""The authors' code for MNIST: its updates against their definition, and runs that go on."""

import numpy as np
import pytest

from neural_alignment.reproduce import akrout

SIZES = (6, 5, 4)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def batch(size=8):
    draw = np.random.default_rng(0)
    return draw.random((size, 6), np.float32), np.eye(4, dtype=np.float32)[
        draw.integers(0, 4, size)
    ]


@pytest.mark.parametrize("rule", ["backprop", "feedback", "kolen_pollack"])
def test_an_update_is_what_the_definition_says(rule):
    network = akrout.Network(rule, seed=3, sizes=SIZES)
    before = {name: np.float64(value) for name, value in network.state().items() if name != "draw"}
    x, t = batch()
    rate = akrout.RATES[rule]
    network.train(x, t)
    h = sigmoid(x @ before["w1"])
    p = sigmoid(h @ before["w2"])
    e = (p - t) / 8
    backward = before["w2"] if rule == "backprop" else before["b"]
    inner = e @ backward.T * h * (1 - h)
    np.testing.assert_allclose(network.w2, before["w2"] - rate * h.T @ e, atol=1e-6)
    np.testing.assert_allclose(network.w1, before["w1"] - rate * x.T @ inner, atol=1e-6)
    np.testing.assert_allclose(network.bias2, -rate / 8 * e.sum(0), atol=1e-7)
    moved = before["b"] - (rate * h.T @ e if rule == "kolen_pollack" else 0.0)
    np.testing.assert_allclose(network.b, moved, atol=1e-6)


def test_the_gradient_of_backprop_is_that_of_the_loss():
    network = akrout.Network("backprop", seed=3, sizes=SIZES)
    x, t = batch()
    w2 = np.float64(network.w2)

    def loss(w1):
        h = sigmoid(x @ w1)
        p = sigmoid(h @ w2)
        return -np.mean(np.sum(t * np.log(p) + (1 - t) * np.log(1 - p), 1))

    start, step = np.float64(network.w1), 1e-5
    network.train(x, t)
    taken = (start - network.w1) / akrout.RATES["backprop"]
    for at in ((0, 0), (2, 3), (5, 4)):
        change = np.zeros_like(start)
        change[at] = step
        slope = (loss(start + change) - loss(start - change)) / (2 * step)
        assert taken[at] == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_mirroring_turns_b_towards_w():
    network = akrout.Network("mirror", seed=0, sizes=(6, 40, 4))
    first = network.measures()[0]
    for _ in range(20_000):
        network.mirror()
    assert first > 60.0 and network.measures()[0] < 30.0


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A set of 300 and 40 images in the place of MNIST, of the same shapes."""
    from neural_alignment.data.arrays import ArrayDataset

    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (340, 28, 28, 1)).astype("uint8")
    labels = draw.integers(0, 10, 340)
    made = ArrayDataset.from_arrays(
        "mnist", (images[:300], labels[:300]), (images[300:], labels[300:]), 10
    )
    monkeypatch.setattr(akrout.data, "get", lambda name, data_dir: made)
    monkeypatch.setattr(akrout, "MIRROR_BATCHES", 2)


@pytest.mark.parametrize("rule", ["kolen_pollack", "mirror"])
def test_a_run_goes_on_to_the_same_numbers(mnist, tmp_path, rule):
    for folder, ends in (("whole", (3,)), ("parts", (1, 3))):
        for epochs in ends:
            flags = [f"--alignment={rule}", f"--train_epochs={epochs}", "--data_dir=x"]
            assert akrout.main(["akrout", *flags, f"--workdir={tmp_path / folder}"]) == 0
    for table in ("metrics.csv", "layers.csv", "flags.cfg"):
        whole = (tmp_path / "whole" / table).read_text()
        assert (tmp_path / "parts" / table).read_text() == whole
    assert [line.split(",")[1] for line in whole_rows(tmp_path)] == ["2", "4", "6"]


def whole_rows(tmp_path):
    return (tmp_path / "whole/metrics.csv").read_text().splitlines()[1:]


def test_wrong_usage(mnist, tmp_path, capfd):
    assert akrout.main(["akrout"]) == 2
    assert akrout.main(["akrout", "--alignment=symmetric"]) == 2
    run = ["akrout", "--train_epochs=1", "--data_dir=x", f"--workdir={tmp_path / 'run'}"]
    assert akrout.main(run) == 0
    assert akrout.main([*run, "--seed=1"]) == 2
    assert "whose flags.cfg has others" in capfd.readouterr().err


# What a run directory may be: how it is laid, the exit code, and what is said.
FOLDERS = {
    "a file": (lambda d: d.write_text("x"), 2, "expected a folder"),
    "of something else": (lambda d: (d.mkdir(), (d / "thesis.tex").write_text("x")), 2, "thesis"),
    "a state cut short": (lambda d: cut(d / "state.npz"), 2, "Expected the state of a run in"),
    "a table that is none": (lambda d: (d / "metrics.csv").write_text("a,b\n1,2\n"), 1, "columns"),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("case", FOLDERS)
def test_a_run_directory_that_is_none(case, mnist, tmp_path, capfd):
    lay, code, message = FOLDERS[case]
    run = ["akrout", "--data_dir=x", f"--workdir={tmp_path / 'run'}", "--train_epochs"]
    if case.endswith(("short", "none")):
        assert akrout.main([*run, "1"]) == 0
    lay(tmp_path / "run")
    assert akrout.main([*run, "2"]) == code
    said = capfd.readouterr().err
    assert said.startswith("error: ") and message in said and "Traceback" not in said


def test_ctrl_c_ends_it_with_a_word(mnist, tmp_path, monkeypatch, capfd):
    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(akrout, "_epoch", stop)
    assert akrout.main(["akrout", "--data_dir=x", f"--workdir={tmp_path / 'run'}"]) == 130
    assert "the same command goes on" in capfd.readouterr().err
