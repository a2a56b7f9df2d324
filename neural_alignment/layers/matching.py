"""Finds the partner of every weight of a model in its copy, and copies its value."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterable
from typing import Any

import keras
import numpy as np

from neural_alignment import keras_private
from neural_alignment.layers import parts, table
from neural_alignment.layers.aligned import Aligned


class Weights:
    """Which weight of a copy belongs to which weight of the model.

    Layers are matched to layers, and their own weights in order, with names, shapes and types
    checked. Paths are not looked at: they differ after a load, and may be the same in two towers.

    Args:
        copied: (layer, its copy) of the layers that were copied one by one; what else a layer
            holds is matched in order.
    """

    def __init__(
        self, copied: Iterable[tuple[keras.layers.Layer, keras.layers.Layer]] = ()
    ) -> None:
        self._copied = {id(layer): copy for layer, copy in copied}
        self._matched: dict[int, tuple[keras.layers.Layer, keras.layers.Layer]] = {}
        self._partners: dict[int, tuple[keras.Variable, keras.Variable]] = {}
        self._of_rules: set[int] = set()
        self._converted: set[int] = set()

    @property
    def layers(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        """(layer, its copy) of every layer that was matched, at all depths."""
        return list(self._matched.values())

    def partner(self, variable: keras.Variable) -> keras.Variable:
        """The copy's weight for one of the model's."""
        return self._partners[id(variable)][1]

    def match(self, layer: keras.layers.Layer, copy: keras.layers.Layer, converted: bool) -> None:
        """Matches the weights of a layer and of what it holds.

        Args:
            layer: of the model.
            copy: what took its place.
            converted: whether it has another rule now, and new weights for it.

        Raises:
            ValueError: a layer or a weight has no partner.
        """
        same = type(copy) is type(layer)
        if not same and not (converted and table.are_versions(type(layer), type(copy))):
            raise ValueError(
                f"Expected a {type(layer).__name__} for layer {layer.name!r}. "
                f"Received: a {type(copy).__name__} from its config"
            )
        parts.build_like(layer, copy)
        self._matched[id(layer)] = layer, copy
        self._match_own(layer, copy, converted)
        inner, copies = self._held(layer, copy)
        if len(inner) != len(copies):
            raise ValueError(
                f"Expected in the copy of layer {parts.described(layer)}, the layers "
                f"{[part.name for part in inner]}. Received: {[part.name for part in copies]}"
            )
        for part, part_copy in zip(inner, copies, strict=True):
            self.match(part, part_copy, converted)

    def _held(
        self, layer: keras.layers.Layer, copy: keras.layers.Layer
    ) -> tuple[list[keras.layers.Layer], list[keras.layers.Layer]]:
        """What two layers hold, without the layers that were copied one by one."""
        inner, copies = keras_private.sublayers(layer), keras_private.sublayers(copy)
        ids = {id(part) for part in copies}
        apart = {id(part): id(self._copied[id(part)]) for part in inner if id(part) in self._copied}
        apart = {part: part_copy for part, part_copy in apart.items() if part_copy in ids}
        return (
            [part for part in inner if id(part) not in apart],
            [part for part in copies if id(part) not in apart.values()],
        )

    def _match_own(
        self, layer: keras.layers.Layer, copy: keras.layers.Layer, converted: bool
    ) -> None:
        if converted:
            self._of_rules |= {id(v) for side in (layer, copy) for v in _rule_weights(side)}
            self._converted.add(id(layer))
        old, new = (
            [v for v in parts.own_variables(side) if id(v) not in self._of_rules]
            for side in (layer, copy)
        )
        order = {variable.name: index for index, variable in enumerate(old)}
        if len(order) == len(old) == len(new) and order.keys() == {v.name for v in new}:
            new.sort(key=lambda variable: order[variable.name])
        if [_facts(variable) for variable in old] != [_facts(variable) for variable in new]:
            raise ValueError(
                f"Expected in the copy of layer {parts.described(layer)}, the weights "
                f"{[_told(variable) for variable in old]}. "
                f"Received: {[_told(variable) for variable in new]}"
            )
        for variable, partner in zip(old, new, strict=True):
            known = self._partners.setdefault(id(variable), (variable, partner))[1]
            if known is not partner:
                raise ValueError(
                    f"Expected every weight in one layer. Received: {variable.path!r}, which layer "
                    f"{parts.described(layer)}, shares with another layer, and whose config makes "
                    "a weight of its own. Call the layer itself in both places."
                )

    def leave_out(self, variables: Iterable[keras.Variable]) -> None:
        """Weights of a rule that have no partner."""
        self._of_rules |= {id(variable) for variable in variables}

    def check_complete(self, model: keras.Model, copy: keras.Model) -> None:
        """Sees that no weight was left out on either side.

        Args:
            model: the model.
            copy: its copy.

        Raises:
            ValueError: a weight without a partner, by its path.
        """
        partners = {id(partner) for _, partner in self._partners.values()}
        for whose, side, known in (
            ("of the model in its copy", model, self._partners.keys()),
            ("of the copy in the model", copy, partners),
        ):
            alone = [v.path for v in side.variables if id(v) not in known | self._of_rules]
            if alone:
                raise ValueError(f"Expected a partner for every weight {whose}. Received: {alone}")

    def copy_values(self) -> None:
        """Gives the copy the values of weights and seeds, and what layers keep beside them.

        Raises:
            ValueError: a weight that does not hold what it was given.
        """
        for layer, copy in self._matched.values():
            if id(layer) in self._converted:
                continue
            try:
                _copy_state(layer, copy)
            except Exception as error:
                raise ValueError(
                    "Expected layers that load what they save. Received: "
                    f"{parts.described(layer)}, where it fails: {error}"
                ) from error
        for variable, partner in self._partners.values():
            value = _array(variable)
            partner.assign(value)
            if value.tobytes() != _array(partner).tobytes():
                raise ValueError(
                    f"Expected the value of {variable.path!r} in the copy. "
                    f"Received: another one in {partner.path!r}"
                )

    def copy_trainable(self, trained: Collection[int] = ()) -> None:
        """Gives the copy's layers and weights the model's flags; a rule's follow its layer.

        Args:
            trained: the `id` of layers and weights of the model that train in the copy, whatever
                their flags are.
        """
        for layer, copy in self._matched.values():
            copy.trainable = layer.trainable or id(layer) in trained
        for variable, partner in self._partners.values():
            partner.trainable = variable.trainable or id(variable) in trained


def _rule_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    if not isinstance(layer, Aligned):
        return []
    return [getattr(layer, name) for name in layer.rule_weights]


def _facts(variable: keras.Variable) -> tuple[Any, ...]:
    # Keras numbers the weights that were given no name through the process.
    name = re.sub(r"^(variable|seed_generator_state)(_\d+)?$", r"\1", variable.name)
    return name, tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype)


def _told(variable: keras.Variable) -> str:
    return f"{variable.name} {tuple(variable.shape)} {variable.dtype}"


def _copy_state(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """What a layer has beside its weights: vocabularies, constants, states of a stateful RNN."""
    if type(layer).load_own_variables is not keras.layers.Layer.load_own_variables:
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        copy.load_own_variables({name: _array(value) for name, value in store.items()})
    if hasattr(layer, "save_assets"):  # after the weights, as when Keras loads a file
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            copy.load_assets(folder)
    keras_own, tracked = parts.bookkeeping(), {id(variable) for variable in layer.variables}
    for name, value in vars(layer).items():
        if name in keras_own or name not in vars(copy):
            continue
        if isinstance(value, np.ndarray):
            setattr(copy, name, value.copy())
        elif isinstance(value, (keras.Variable, list, tuple, dict)):
            _copy_untracked(value, vars(copy)[name], tracked)
        elif keras.ops.is_tensor(value):
            setattr(copy, name, keras.ops.convert_to_tensor(_array(value)))


def _copy_untracked(values: Any, copies: Any, tracked: set[int]) -> None:
    pairs = parts.flat(values), parts.flat(copies)
    if len(pairs[0]) == len(pairs[1]):
        for value, copy in zip(*pairs, strict=True):
            known = not isinstance(value, keras.Variable) or id(value) in tracked
            if not known and isinstance(copy, keras.Variable):
                copy.assign(_array(value))


def _array(value: Any) -> np.ndarray:
    """A copy: on JAX two variables would share one array, and a step frees it."""
    value = value.value if isinstance(value, keras.Variable) else value
    return np.array(keras.ops.convert_to_numpy(value))
