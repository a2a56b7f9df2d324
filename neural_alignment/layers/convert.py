"""Gives the layers of a Keras model a learning rule, and takes it off again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

import keras

from neural_alignment import alignments, keras_private
from neural_alignment.layers import checking, parts, rewiring, table
from neural_alignment.layers.copying import Copier, from_config
from neural_alignment.layers.kernels import kernels_in
from neural_alignment.layers.matching import Weights
from neural_alignment.layers.report import conversion_report, show

Skip: TypeAlias = str | type | Callable[[keras.layers.Layer], bool] | keras.layers.Layer


def align(
    model: keras.Model,
    alignment: Any,
    skip: Skip | Iterable[Skip] = (),
    rest: Literal["error", "backprop"] = "error",
    summary: bool = False,
) -> keras.Model:
    """A copy of a model whose layers with a kernel follow a learning rule.

    It computes what the model computes: every weight and seed of the model has its partner in the
    copy, matched layer by layer, and outputs are compared on a made-up batch. Backward kernels are
    new. The model stays as it is; the copy is not compiled.

    A rule of a whole model ("direct", "frozen") puts layers into the copy, whose others are Keras's
    own, of any class with a kernel; nested models are inlined, layers of equal name renamed. Such a
    model has one output, and the error is taken at its logits: before a last softmax or sigmoid.

    Args:
        model: a built Sequential or functional model. Nested ones and `TimeDistributed` are gone
            into.
        alignment: a rule's name, its config, an `Alignment`.
        skip: layers that stay as they are, with the rule that they have: names, classes, layers, a
            function from a layer with a kernel, or one that holds such, to a bool, or an iterable
            of these.
        rest: what becomes of layers with a kernel of a class that has no version here: "error", or
            "backprop", which copies them as they are.
        summary: whether to print the `conversion_report`.

    Returns:
        The new model, to be compiled.

    Raises:
        ValueError: an unknown rule; a model that is not built, or neither Sequential nor
            functional; something to skip that the model does not have; a layer with a kernel and
            no version here; a layer that cannot be copied. Layers are named.
        TypeError: an unknown option of the rule, something to skip of another type.
    """
    rule = _rule(alignment)
    if rest not in ("error", "backprop"):
        raise ValueError(f"Expected rest='error' or rest='backprop'. Received: {rest!r}")
    _check_model(model)
    skipped = _skipped(model, skip, rule)
    if rest == "error" and not (rule is not None and rule.of_model):
        _refuse_without_version(model, skipped)

    def with_rule(layer: keras.layers.Layer) -> keras.layers.Layer | None:
        cls = table.version_of(layer)
        if cls is None or skipped(layer):
            return None
        return from_config(layer, cls, alignment=alignments.serialize(rule))

    with rewiring.plain(model) as plain:
        kept = rewiring.kept_from_training(model)
        if rule is not None and rule.of_model:
            copy = _rewire(plain, rule, skipped, kept)
        else:
            copy = _copy(plain, with_rule, skipped, kept)
    if summary:
        show(conversion_report(copy))
    return copy


def _rule(alignment: Any) -> alignments.Alignment | None:
    rule = alignments.get(alignment)
    if rule is not None and rule.forward_density != 1.0:
        raise ValueError(
            "Expected forward_density=1 of a rule for a model that is there, whose weights are "
            f"kept; build the model with the rule. Received: {rule.forward_density!r}"
        )
    return rule


def strip(model: keras.Model) -> keras.Model:
    """A copy of a model with Keras's own layers, trained by backpropagation.

    It computes what the model computes, as with `align`, of which it is the reverse.

    Args:
        model: a built Sequential or functional model.

    Returns:
        The new model with the same weights but for those of rules, to be compiled.

    Raises:
        ValueError: a model that is not built, or neither Sequential nor functional; a layer that
            cannot be copied, or holds a layer with a rule that cannot be taken off.
    """
    _check_model(model)
    for layer in parts.leaves(model, _none):
        inner = keras_private.flatten_layers(layer)
        held = [part for part in inner if table.rule_of(part) or rewiring.is_part(part)]
        if held and table.class_with_rule(type(layer)) is None:
            rule = table.rule_of(held[0])
            told = "" if rule is None else f" with the rule {rule.name!r}"
            raise ValueError(
                "Expected rules in layers that can be replaced. Received: "
                f"{parts.described(layer)}, which holds {parts.described(held[0])}{told}. Make it "
                "a functional model, or strip it first."
            )

    with rewiring.plain(model) as plain:
        return _copy(plain, _without_rule, _none, rewiring.kept_from_training(model))


def _without_rule(layer: keras.layers.Layer) -> keras.layers.Layer | None:
    if type(layer) in table.STOCK:
        return from_config(layer, table.STOCK[type(layer)], alignment=...)
    ours = table.class_with_rule(type(layer)) is type(layer)  # a subclass of one of ours
    return from_config(layer, alignment=None) if ours else None


def _none(layer: keras.layers.Layer) -> bool:
    del layer
    return False


def _check_model(model: keras.Model) -> None:
    if not isinstance(model, keras.Model) or not parts.is_graph(model):
        raise ValueError(
            "Expected a Sequential or functional model, of Keras's class or one whose constructor "
            f"takes Keras's arguments alone. Received: {getattr(model, 'name', model)!r}, a "
            f"{type(model).__name__}. Of a functional one, give keras.Model(model.inputs, "
            "model.outputs)."
        )
    if not model.built:
        raise ValueError(
            "Expected a built model: one that begins with keras.Input, or has been called on data. "
            f"Received: {parts.described(model)}"
        )


def _copy(
    model: keras.Model,
    version: Callable[[keras.layers.Layer], keras.layers.Layer | None],
    stays_whole: Callable[[keras.layers.Layer], bool],
    kept: set[int],
) -> keras.Model:
    checking.check_held(model)
    copier = Copier(model, version, stays_whole)
    copy = copier.copy(model)
    weights = Weights(copier.pairs)
    # Models come after their layers there; here before them, as a model's flags are its layers'.
    for layer, layer_copy in reversed(copier.pairs):
        weights.match(layer, layer_copy, id(layer) in copier.converted)
    weights.check_complete(model, copy)
    for layer, layer_copy in weights.layers:
        checking.check_arguments(layer, layer_copy)
    weights.copy_values()
    weights.copy_trainable(kept)
    checking.check_function(model, copy)
    return copy


def _rewire(
    model: keras.Model,
    rule: alignments.Alignment,
    skipped: Callable[[keras.layers.Layer], bool],
    kept: set[int],
) -> keras.Model:
    """A copy without rules of single layers, under a rule of the whole model."""
    checking.check_held(model)
    rewirer = rewiring.Rewirer(model, rule, _without_rule, skipped)
    copy = rewirer.copy(model)
    weights = Weights(rewirer.copies)
    for layer, layer_copy in reversed(rewirer.copies):
        converted = id(layer) in rewirer.converted and not rewirer.keeps_rule(layer)
        weights.match(layer, layer_copy, converted)
        checking.check_arguments(layer, layer_copy)
    weights.leave_out([] if rewirer.feedback is None else rewirer.feedback.variables)
    weights.check_complete(model, copy)
    checking.check_arguments(model, copy)
    weights.copy_values()
    weights.copy_trainable(kept)
    checking.check_function(model, copy)
    rewirer.freeze(copy)
    return copy


def _refuse_without_version(
    model: keras.Model, skipped: Callable[[keras.layers.Layer], bool]
) -> None:
    told = []
    for layer in parts.leaves(model, skipped):
        found = [] if table.version_of(layer) is not None else kernels_in(layer, skipped)
        if found:
            inner = "" if found[0] is layer else f" that holds {parts.described(found[0])}"
            told.append(parts.described(layer) + inner)
    if told:
        shown = "; ".join(told[:6]) + (f"; and {len(told) - 6} more" if len(told) > 6 else "")
        raise ValueError(
            f"Expected layers with a kernel to be of {table.names()}, which can follow a rule. "
            f"Received: {shown}. Name them in `skip`, or give rest='backprop', to leave them to "
            "backpropagation."
        )


def _skipped(
    model: keras.Model, skip: Skip | Iterable[Skip], rule: alignments.Alignment | None
) -> Callable[[keras.layers.Layer], bool]:
    """The layers of a model to skip, as a function from a layer."""
    if isinstance(skip, (str, type)) or callable(skip):
        wanted: list[Skip] = [skip]
    else:
        wanted = list(skip)
    if wanted and isinstance(rule, alignments.Frozen):
        raise ValueError(
            "Expected no `skip` with the rule 'frozen', under which the output layer alone trains "
            f"and no error goes below it. Received: skip={skip!r}"
        )
    layers = [part for part in keras_private.flatten_layers(model) if not parts.is_graph(part)]
    for item in wanted:
        _check_skip(item, layers)
    return lambda layer: any(_is(layer, item) for item in wanted)


def _check_skip(item: Skip, layers: list[keras.layers.Layer]) -> None:
    """Refuses what can skip nothing."""
    if not isinstance(item, str) and not callable(item):
        raise TypeError(
            "Expected names, classes, layers or functions from a layer to a bool in `skip`. "
            f"Received: {item!r}"
        )
    if isinstance(item, type) and not issubclass(item, keras.layers.Layer):
        raise TypeError(f"Expected classes of layers in `skip`. Received: {item.__name__}")
    # A class that a model has none of says no wrong; names have misprints, models are gone into.
    exact = isinstance(item, (str, keras.layers.Layer))
    if not exact and not (isinstance(item, type) and issubclass(item, keras.Model)):
        return
    if not any(_is(layer, item) for layer in layers):
        known = ", ".join(dict.fromkeys(layer.name for layer in layers))
        received = parts.described(item) if isinstance(item, keras.layers.Layer) else repr(item)
        raise ValueError(
            f"Expected names of layers to skip: {known}. Received: {received}. Of a nested model, "
            "give its `layers`."
        )


def _is(layer: keras.layers.Layer, item: Skip) -> bool:
    if isinstance(item, str):
        return layer.name == item
    if isinstance(item, type):
        return isinstance(layer, item)
    if isinstance(item, keras.layers.Layer):
        return layer is item
    return bool(item(layer))
