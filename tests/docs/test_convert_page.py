"""docs/convert.md: its code runs, its report is what the function gives, its claims hold."""

import contextlib
import io
import re

import keras
import numpy as np
import pytest

from neural_alignment.layers import Dense, align, aligned_layers, strip
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "convert.md"


@pytest.fixture(scope="module")
def page():
    names: dict = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for code in blocks(PAGE, "python"):
            exec(code, names)  # noqa: S102  (the page's own code)
    return names | {"printed": printed.getvalue()}


def rules(model):
    return [layer.name for layer in aligned_layers(model)]


def test_code_does_what_the_page_says(page):
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(page["stock"](x), page["network"](x))
    assert len(rules(page["aligned"])) == 53
    assert rules(page["one"]) == ["inner", "head"]
    assert rules(page["two"]) == ["inner"]
    assert rules(page["three"]) == ["inner", "head"]
    assert not rules(page["explained"])


def test_the_report_is_the_pages(page):
    shown = re.search(r"^    Model .*?(?=\n\n)", PAGE.read_text(), re.DOTALL | re.MULTILINE)[0]
    lines = [line.removeprefix("    ") for line in shown.splitlines()]
    printed = re.sub(r"'functional\w*'", "'functional'", page["printed"])
    assert printed.splitlines() == lines


def gradient(model, x):
    tf = pytest.importorskip("tensorflow")
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(model(x)[:, 0])
    return np.ravel(tape.gradient(loss, x))


def test_the_derivative_is_that_of_the_stripped_model():
    layers = [Dense(200, activation="relu", alignment="feedback") for _ in range(3)]
    model = keras.Sequential([keras.Input((200,)), *layers, Dense(10, alignment="feedback")])
    x = np.random.default_rng(0).normal(size=(4, 200)).astype("float32")
    through_b, true = gradient(model, x), gradient(strip(model), x)
    cosine = through_b @ true / np.linalg.norm(through_b) / np.linalg.norm(true)
    assert abs(cosine) < 0.15
    one = strip(align(model, "symmetric"))
    np.testing.assert_array_equal(gradient(one, x), true)
