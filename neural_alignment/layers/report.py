"""Says, layer by layer, how the error goes back through a model."""

from __future__ import annotations

import collections
import logging
import sys

import keras

from neural_alignment import keras_private
from neural_alignment.layers import kernels, parts, table
from neural_alignment.layers.direct import DirectFeedback, StopError

_log = logging.getLogger(__name__)

_HEAD = ("layer", "class", "error goes back by")


def conversion_report(model: keras.Model) -> str:
    """How the error goes back through each layer of a model, such as `align` or `strip` return.

    A line a layer, indented inside nested models: its name, its class, and its rule, or "backprop"
    where it has a kernel and no rule, or a dash where it has no kernel. Of a layer that holds
    others and is none of Keras's models, the line says what those do. Under a rule of the whole
    model it is the rule of each layer whose error it blocks.

    Args:
        model: a built Keras model.

    Returns:
        A table, under a line of counts.
    """
    rows: list[tuple[str, ...]] = []
    counts: collections.Counter[str] = collections.Counter()
    seen: set[int] = set()
    by_model = _by_rule_of_model(model)

    def visit(layer: keras.layers.Layer, depth: int) -> None:
        opened = parts.is_graph(layer) or (parts.is_opened(layer) and id(layer) not in by_model)
        known = id(layer) in seen
        seen.add(id(layer))
        rules = [] if opened or known else _rules(layer)
        rules = [by_model.get(id(layer), rule) if rule == "backprop" else rule for rule in rules]
        counts.update(rules)
        how = ", ".join(dict.fromkeys(rules)) or ("" if opened else "-")
        rows.append(("  " * depth + layer.name, type(layer).__name__, "as above" if known else how))
        for inner in keras_private.sublayers(layer) if opened and not known else []:
            if not isinstance(inner, keras.layers.InputLayer):
                visit(inner, depth + 1)

    for layer in keras_private.sublayers(model):
        if not isinstance(layer, keras.layers.InputLayer):
            visit(layer, 0)
    told = ", ".join(f"{number} by {rule}" for rule, number in counts.items()) or "none"
    return f"Model {model.name!r}, layers with a kernel: {told}\n" + _table([_HEAD, *rows])


def show(text: str) -> None:
    """Shows a text where Keras shows its summaries: on standard output, or in the log."""
    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(text + "\n")
    else:
        _log.info(text)


def _rules(layer: keras.layers.Layer) -> list[str]:
    """The rule of a layer's kernel, or of each layer with one inside it."""
    rules = [table.rule_of(part) for part in kernels.kernels_in(layer, lambda part: False)]
    return ["backprop" if rule is None else rule.name for rule in rules]


def _by_rule_of_model(model: keras.Model) -> dict[int, str]:
    """The rule of the whole model, by the `id` of each layer that sends no error below."""
    found = {}
    for graph in [model, *keras_private.flatten_layers(model)]:
        if not parts.is_graph(graph):
            continue
        nodes = keras_private.graph_nodes(graph)
        rule = "direct" if any(isinstance(n[0], DirectFeedback) for n in nodes) else "frozen"
        for operation, inputs, _ in nodes:
            if any(isinstance(keras_private.origin(tensor), StopError) for tensor in inputs):
                found[id(operation)] = rule
    if "frozen" in found.values():
        everything = keras_private.flatten_layers(model)
        return {id(layer): "frozen" for layer in everything if not layer.trainable} | found
    return found


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(
        f"{name:<{widths[0]}}  {cls:<{widths[1]}}  {how}".rstrip() for name, cls, how in rows
    )
