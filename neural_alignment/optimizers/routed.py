"""One Keras optimizer that hands each variable to one of two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras

# The variables that a learning rule makes: backward_kernel, backward_kernel_r, ...
ALIGNMENT_PATTERNS = (r"(^|/)backward_[^/]*$",)


@keras.saving.register_keras_serializable("neural_alignment")
class RoutedOptimizer(keras.optimizers.Optimizer):
    """Routes the alignment variables to one optimizer and all others to another.

    For `compile` and `fit`, where one gradient of J + R is taken: R's gradient, which reaches the
    backward kernels only, is left to an optimizer of its own, as in [K] section 3. (With a rule
    that ties the gradients, J's part for the backward kernel goes there too.)

        model.compile(RoutedOptimizer(get("momentum", learning_rate=0.1), get("adam")), loss)

    Args:
        optimizer: for every variable that no pattern matches; its learning rate is this one's.
        alignment_optimizer: for those that one matches.
        patterns: regular expressions, searched for in a variable's path.
        name: of the optimizer.

    Raises:
        ValueError: not two different optimizers, an optimizer with a `loss_scale_factor` (it would
            scale one of the losses only), or a pattern that is not a regular expression.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        alignment_optimizer: keras.optimizers.Optimizer,
        *,
        patterns: Sequence[str] = ALIGNMENT_PATTERNS,
        name: str = "routed",
    ) -> None:
        nested = (optimizer, alignment_optimizer)
        if optimizer is alignment_optimizer or not all(
            isinstance(one, keras.optimizers.Optimizer) for one in nested
        ):
            raise ValueError(
                "Expected two different keras.optimizers.Optimizer objects. "
                f"Received: optimizer={optimizer!r}, alignment_optimizer={alignment_optimizer!r}"
            )
        if any(one.loss_scale_factor is not None for one in nested):
            raise ValueError(
                "Expected nested optimizers without loss_scale_factor. Received: "
                f"{[one.loss_scale_factor for one in nested]}. Wrap this optimizer in "
                "keras.optimizers.LossScaleOptimizer instead."
            )
        if isinstance(patterns, str):
            raise ValueError(f"Expected a sequence of patterns. Received: patterns={patterns!r}")
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"Expected regular expressions as patterns. Received: {pattern!r} ({error})"
                ) from error
        super().__init__(learning_rate=lambda: optimizer.learning_rate, name=name)
        self.optimizer = optimizer
        self.alignment_optimizer = alignment_optimizer
        self.patterns = tuple(patterns)

    @property
    def learning_rate(self) -> Any:
        """The learning rate of `optimizer`, so that Keras's callbacks find one."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.optimizer.learning_rate = value

    @property
    def variables(self) -> list[Any]:
        """Own variables and those of both nested optimizers."""
        return self._variables + self.optimizer.variables + self.alignment_optimizer.variables

    def is_alignment(self, variable: Any) -> bool:
        """Whether a variable goes to the alignment optimizer.

        Args:
            variable: a `keras.Variable`.

        Returns:
            Whether a pattern is in its path.
        """
        return any(re.search(pattern, variable.path) for pattern in self.patterns)

    def build(self, variables: list[Any]) -> None:
        """Builds each nested optimizer on its variables."""
        if self.built:
            return
        super().build(variables)
        for optimizer, chosen in self._split(variables, variables):
            optimizer.build([variable for _, variable in chosen])

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Applies each nested optimizer to its variables; those without a gradient stay."""
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        variables = list(trainable_variables)
        if not self.built:
            self.build(variables)
        if all(gradient is None for gradient in grads):
            raise ValueError(
                "Expected a gradient for at least one variable. Received: none, for "
                f"{[variable.path for variable in variables]}"
            )
        for optimizer, chosen in self._split(grads, variables):
            reached = [pair for pair in chosen if pair[0] is not None]
            if reached:
                optimizer.apply(*zip(*reached, strict=True))
        self._iterations.assign_add(1)

    def _split(self, items: Any, variables: Any) -> list[tuple[Any, list[tuple[Any, Any]]]]:
        pairs = list(zip(items, variables, strict=True))
        return [
            (optimizer, [pair for pair in pairs if self.is_alignment(pair[1]) == is_alignment])
            for optimizer, is_alignment in (
                (self.optimizer, False),
                (self.alignment_optimizer, True),
            )
        ]

    def finalize_variable_values(self, var_list: Any) -> None:
        """Lets each nested optimizer finish its variables, with moving averages for instance."""
        for optimizer, chosen in self._split(var_list, var_list):
            optimizer.finalize_variable_values([variable for _, variable in chosen])

    def save_own_variables(self, store: Any) -> None:
        """Saves the step count; Keras saves the nested optimizers beside it."""
        store["0"] = self._iterations.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved."""
        self._iterations.assign(store["0"])

    def get_config(self) -> dict[str, Any]:
        """Every constructor argument."""
        return {
            "name": self.name,
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "alignment_optimizer": keras.saving.serialize_keras_object(self.alignment_optimizer),
            "patterns": list(self.patterns),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> RoutedOptimizer:
        """The optimizer that `get_config` described."""
        nested = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects)
            for key in ("optimizer", "alignment_optimizer")
        }
        return cls(**(config | nested))
