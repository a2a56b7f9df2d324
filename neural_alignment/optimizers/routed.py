"""One Keras optimizer that hands each variable to one of two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from neural_alignment import backend, keras_private, ties
from neural_alignment.optimizers import linear, validation
from neural_alignment.optimizers.clock import common_accumulation
from neural_alignment.optimizers.rate_scheduler import Schedule

# The variables that a learning rule makes: backward_kernel, backward_kernel_r, ...
ALIGNMENT_PATTERNS = (r"(^|/)backward_[^/]*$",)


@keras.saving.register_keras_serializable("neural_alignment")
class RoutedOptimizer(keras.optimizers.Optimizer):
    """Routes the alignment variables to one optimizer and all others to another.

    For `compile` and `fit`, where one gradient of J + R is taken: J's gradient reaches all but the
    backward kernels, R's the backward kernels only, so that each loss has an optimizer of its own,
    as in [K] section 3:

        optimizer            minimises  loss_rate(t) * J
        alignment_optimizer  minimises  alignment_rate(t) * R

    t is the number of updates made. With a rule that ties the gradients (`kolen_pollack`,
    `product`) J's gradient reaches the backward kernel, too, and W and B meet only if both take
    the same steps: such a backward kernel goes where its forward kernel goes.

        model.compile(RoutedOptimizer(get("momentum", learning_rate=0.1), get("adam")), loss)

    Weight decay, clipping, moving averages and gradient accumulation are the nested optimizers',
    each over its own variables; both accumulate as many batches, or none.

    Args:
        optimizer: for every variable that no pattern matches; its learning rate is this one's.
        alignment_optimizer: for those that one matches.
        patterns: regular expressions, searched for in a variable's path. Other patterns than these
            take a tied rule's two kernels together or not at all.
        loss_rate: factor of what reaches `optimizer`: a number >= 0 or a schedule, such as
            `rate_scheduler.LossRate`.
        alignment_rate: factor of what reaches `alignment_optimizer`, such as
            `rate_scheduler.AlignmentRate`.
        name: of the optimizer.

    Raises:
        ValueError: not two different optimizers; one that scales the loss, that wraps several, or
            that accumulates another number of batches; a pattern that is no regular expression; a
            rate that is negative or not finite. When it is built: a pattern that matches no
            variable or parts a tied rule's kernels, or rates with a rule whose two losses reach
            one kernel.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        alignment_optimizer: keras.optimizers.Optimizer,
        *,
        patterns: Sequence[str] = ALIGNMENT_PATTERNS,
        loss_rate: float | Schedule = 1.0,
        alignment_rate: float | Schedule = 1.0,
        name: str = "routed",
    ) -> None:
        _check_nested(optimizer, alignment_optimizer)
        _check_patterns(patterns)
        super().__init__(learning_rate=lambda: optimizer.learning_rate, name=name)
        self.loss_rate = _rate("loss_rate", loss_rate)
        self.alignment_rate = _rate("alignment_rate", alignment_rate)
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
    def batches_per_update(self) -> int:
        """How many batches the nested optimizers accumulate before they update."""
        return common_accumulation((self.optimizer, self.alignment_optimizer))

    @property
    def iterations(self) -> Any:
        """The number of updates made."""
        batches = self.batches_per_update
        return self._iterations if batches == 1 else ops.floor_divide(self._iterations, batches)

    @property
    def variables(self) -> list[Any]:
        """Own variables and those of both nested optimizers."""
        return self._variables + self.optimizer.variables + self.alignment_optimizer.variables

    @property
    def _model_variables_moving_average(self) -> list[Any]:
        """What `keras.callbacks.SwapEMAWeights` swaps: the nested optimizers' averages."""
        parts = self._split(self._trainable_variables, self._trainable_variables)
        without = [one.name for one, chosen in parts if chosen and not one.use_ema]
        if len(without) == len([one for one, chosen in parts if chosen]):
            raise AttributeError("no nested optimizer has use_ema=True")
        if without:
            raise ValueError(
                "Expected use_ema=True in both nested optimizers, to swap all weights for their "
                f"averages. Received: use_ema=False in {', '.join(without)}"
            )
        average = {
            id(variable): keras_private.average_of(one, variable)
            for one, chosen in parts
            for variable, _ in chosen
        }
        return [average[id(variable)] for variable in self._trainable_variables]

    def is_alignment(self, variable: Any) -> bool:
        """Whether a variable goes to the alignment optimizer.

        Args:
            variable: a `keras.Variable`.

        Returns:
            Whether a pattern is in its path; in its forward kernel's, where the rule ties them.
        """
        forward = ties.forward_kernel(variable)
        return self._matches(variable if forward is None else forward)

    def _matches(self, variable: Any) -> bool:
        return any(re.search(pattern, variable.path) for pattern in self.patterns)

    def build(self, variables: list[Any]) -> None:
        """Builds each nested optimizer on its variables."""
        if self.built:
            return
        self._check_variables(variables)
        super().build(variables)
        for optimizer, chosen in self._split(variables, variables):
            optimizer.build([variable for _, variable in chosen])

    def _check_variables(self, variables: Sequence[Any]) -> None:
        for pattern in self.patterns:
            if not any(re.search(pattern, variable.path) for variable in variables):
                raise ValueError(
                    "Expected every pattern to match the path of a variable that is trained. "
                    f"Received: {pattern!r}, which matches none of "
                    f"{[variable.path for variable in variables]}. A model whose rules have "
                    "nothing of their own to train is compiled with the first optimizer alone."
                )
        tied = [
            (variable, forward)
            for variable in variables
            if (forward := ties.forward_kernel(variable)) is not None
        ]
        parted = [
            variable.path
            for variable, forward in tied
            if self._matches(variable) != self._matches(forward)
            and self.patterns != ALIGNMENT_PATTERNS
        ]
        if parted:
            raise ValueError(
                "Expected patterns that take both kernels of a rule that ties their gradients, or "
                f"neither: W and B meet only if both take the same steps. Received: {parted} apart "
                f"from the forward kernel, by patterns={self.patterns}. Match the forward kernel, "
                "too, or leave the patterns at their default."
            )
        self._check_linear(variables)
        shared = [variable.path for variable in variables if ties.is_shared(variable)]
        if shared and not self.loss_rate == self.alignment_rate == 1.0:
            raise ValueError(
                "Expected a loss_rate and an alignment_rate with rules whose two losses reach "
                "different kernels, since `fit` takes one gradient of both. "
                f"Received: {shared}, reached by both (the rule ties the gradients, or has "
                "update_forward). Leave both rates at 1, or train with "
                "`neural_alignment.training.Step`."
            )

    def _check_linear(self, variables: Sequence[Any]) -> None:
        for optimizer, chosen in self._split(variables, variables):
            linear.check(optimizer, [variable for variable, _ in chosen])

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
        rates = (self._rate_now(self.loss_rate), self._rate_now(self.alignment_rate))
        for rate, (optimizer, chosen) in zip(rates, self._split(grads, variables), strict=True):
            reached = [
                (_rated(gradient, rate), variable)
                for gradient, variable in chosen
                if gradient is not None
            ]
            if reached:
                optimizer.apply(*zip(*reached, strict=True))
        self._iterations.assign_add(1)

    def _rate_now(self, rate: float | Schedule) -> Any:
        return rate(self.iterations) if callable(rate) else rate

    def _split(self, items: Any, variables: Any) -> list[tuple[Any, list[tuple[Any, Any]]]]:
        pairs = list(zip(items, variables, strict=True))
        return [
            (optimizer, [pair for pair in pairs if self.is_alignment(pair[1]) == is_alignment])
            for optimizer, is_alignment in (
                (self.optimizer, False),
                (self.alignment_optimizer, True),
            )
        ]

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Excludes variables from both nested optimizers' weight decay, as Keras's method does."""
        for optimizer in (self.optimizer, self.alignment_optimizer):
            optimizer.exclude_from_weight_decay(var_list, var_names)

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
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "optimizer": serialize(self.optimizer),
            "alignment_optimizer": serialize(self.alignment_optimizer),
            "patterns": list(self.patterns),
            "loss_rate": serialize(self.loss_rate),
            "alignment_rate": serialize(self.alignment_rate),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> RoutedOptimizer:
        """The optimizer that `get_config` described."""
        nested = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects)
            for key in ("optimizer", "alignment_optimizer", "loss_rate", "alignment_rate")
            if key in config
        }
        return cls(**(config | nested))


def _check_nested(optimizer: Any, alignment_optimizer: Any) -> None:
    nested = (optimizer, alignment_optimizer)
    if optimizer is alignment_optimizer or not all(
        isinstance(one, keras.optimizers.Optimizer) for one in nested
    ):
        raise ValueError(
            "Expected two different keras.optimizers.Optimizer objects. "
            f"Received: optimizer={optimizer!r}, alignment_optimizer={alignment_optimizer!r}"
        )
    if any(
        one.loss_scale_factor is not None or isinstance(one, keras.optimizers.LossScaleOptimizer)
        for one in nested
    ):
        raise ValueError(
            "Expected nested optimizers without loss_scale_factor and LossScaleOptimizer, since "
            f"one gradient of both losses is taken. Received: {[one.name for one in nested]} with "
            f"loss_scale_factor={[one.loss_scale_factor for one in nested]}. Wrap this optimizer "
            "in keras.optimizers.LossScaleOptimizer instead."
        )
    wrappers = [
        one.name
        for one in nested
        if type(one).update_step is keras.optimizers.Optimizer.update_step
        and not isinstance(one, RoutedOptimizer)
    ]
    if wrappers:
        raise ValueError(
            "Expected nested optimizers with an update rule of their own. "
            f"Received: {', '.join(wrappers)}, which pass on to others."
        )
    common_accumulation(nested)


def _check_patterns(patterns: Any) -> None:
    if isinstance(patterns, str) or not patterns:
        raise ValueError(f"Expected a sequence of patterns. Received: patterns={patterns!r}")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"Expected regular expressions as patterns. Received: {pattern!r} ({error})"
            ) from error


def _rate(name: str, value: Any) -> Any:
    return value if callable(value) else validation.number(name, value, at_least=0.0)


def _rated(gradient: Any, rate: Any) -> Any:
    if isinstance(rate, float) and rate == 1.0:
        return gradient
    gradient = backend.read(gradient)
    return gradient * ops.cast(rate, gradient.dtype)
