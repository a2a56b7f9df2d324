"""The figure of a `fit` run."""

import keras
import pytest

from neural_alignment.figures import plot_history

HISTORY = {
    "loss": [1.0, 0.5],
    "weight_angle/first": [80.0, 40.0],
    "weight_angle/inner/last": [70.0, 30.0],
    "norm_ratio/first": [1.0, 1.1],
    "norm_ratio/inner/last": [1.2, 1.3],
}


def lines(panel):
    return {line.get_label(): list(line.get_ydata()) for line in panel.get_lines()}


def test_a_panel_a_measure_and_a_line_a_layer(tmp_path):
    figure = plot_history(HISTORY, tmp_path / "angles.png")
    assert (tmp_path / "angles.png").stat().st_size > 1000
    angles, ratios = figure.axes
    assert lines(angles) == {"first": [80.0, 40.0], "inner/last": [70.0, 30.0]}
    assert lines(ratios) == {"first": [1.0, 1.1], "inner/last": [1.2, 1.3]}
    assert angles.get_ylabel() == "angle of W and B (°)"
    assert len({line.get_color() for line in angles.get_lines()}) == 2
    assert [text.get_text() for text in ratios.get_legend().get_texts()] == ["first", "inner/last"]


def test_the_measures_asked_for_in_their_order():
    figure = plot_history(HISTORY, measures=["norm_ratio"])
    assert [panel.get_ylabel() for panel in figure.axes] == ["|B| / |W|"]
    assert len(plot_history(HISTORY, measures=["norm_ratio", "weight_angle"]).axes) == 2


def test_the_epochs_are_those_of_the_training():
    history = keras.callbacks.History()
    history.history, history.epoch = {"weight_angle/a": [3.0, 2.0]}, [5, 6]
    (panel,) = plot_history(history).axes
    assert list(panel.get_lines()[0].get_xdata()) == [6, 7]


def test_one_epoch_of_many_layers_is_seen():
    history = {f"weight_angle/layer{i}": [float(i)] for i in range(20)}
    (panel,) = plot_history(history).axes
    assert {line.get_marker() for line in panel.get_lines()} == {"."}


@pytest.mark.parametrize("logs", [{}, {"loss": [1.0]}])
def test_nothing_to_draw(logs):
    with pytest.raises(ValueError, match="Expected a history with measures of layers"):
        plot_history(logs)


def test_an_unknown_measure():
    with pytest.raises(ValueError, match="weight_angle, norm_ratio. Received: 'angle'"):
        plot_history(HISTORY, measures=["angle"])


def test_a_layer_that_one_measure_alone_has_is_in_the_key():
    logs = {"weight_angle/_a": [80.0, 70.0], "weight_angle/b$": [60.0, 50.0], "error_norm/c": [1.0]}
    figure = plot_history(logs)
    (legend,) = (panel.get_legend() for panel in figure.axes if panel.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == ["_a", r"b\$", "c"]
    colours = {line.get_color() for panel in figure.axes for line in panel.get_lines()}
    assert len(colours) == 3
