"""Noise added to the variables after any optimizer's update."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import keras
from keras import ops

from neural_alignment import keras_private, noise
from neural_alignment.optimizers import validation
from neural_alignment.optimizers.base import UpdateRule

Tensor = Any

DISTRIBUTIONS = ("normal", "uniform")

# What every Keras optimizer has besides its update rule; the wrapper does it for the one inside.
_COMMON = (
    "weight_decay",
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)


@keras.saving.register_keras_serializable("neural_alignment")
class Noisy(UpdateRule, keras.optimizers.Optimizer):
    """An optimizer whose updates are noisy ([K] figures 5 and S1).

        w <- w - update + lr * noise,    noise ~ N(0, variance) or U(-a, a), a = sqrt(3 variance)

    lr is the scheduled learning rate. A variable without a gradient gets no noise, one with a zero
    gradient does. The noise is a function of the seed, the variable's place among those the
    optimizer was built with, and the number of updates made: every replica adds the same, and a
    resumed run what the uninterrupted one would have. (Not of the variable's path, which Keras
    changes when it loads a model.) Two noisy optimizers of one model need different seeds.

    Args:
        optimizer: the optimizer inside, with a learning rate and options of its own.
        variance: of the noise, in units of the weights per learning rate, squared.
        distribution: "normal" or "uniform".
        apply_filter: noise goes to variables whose path contains it; "" is all.
        seed: of the noise.
        name: of the optimizer.

    Raises:
        ValueError: an option out of range, or an optimizer that only passes on to others.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        *,
        variance: float = 1.0,
        distribution: str = "normal",
        apply_filter: str = "",
        seed: int = 0,
        name: str = "noisy",
    ) -> None:
        has_rule = (
            isinstance(optimizer, keras.optimizers.Optimizer)
            and type(optimizer).update_step is not keras.optimizers.Optimizer.update_step
        )
        if not has_rule:
            raise ValueError(
                "Expected an optimizer with an update rule of its own. A wrapper of several takes "
                f"noisy optimizers inside instead. Received: optimizer={optimizer!r}"
            )
        common = {option: getattr(optimizer, option) for option in _COMMON}
        super().__init__(learning_rate=lambda: optimizer.learning_rate, name=name, **common)
        self.optimizer = optimizer
        self.variance = validation.number("variance", variance, at_least=0.0)
        self.distribution = validation.choice("distribution", distribution, DISTRIBUTIONS)
        self.apply_filter = apply_filter
        self.seed = validation.integer("seed", seed, at_least=0)

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.optimizer.learning_rate = value

    @property
    def variables(self) -> list[Any]:
        """Own variables and the inner optimizer's."""
        return self._variables + self.optimizer.variables

    def build(self, variables: list[Any]) -> None:
        """Makes the variables of both."""
        if self.built:
            return
        self.optimizer.build(variables)
        super().build(variables)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Updates all variables and counts the step in both optimizers."""
        super().apply(grads, trainable_variables)
        if len(grads):
            keras_private.count_update(self.optimizer)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and adds its noise."""
        self.optimizer.update_step(gradient, variable, learning_rate)
        index = self._get_variable_index(variable)
        path = self._trainable_variables[index].path
        if self.variance == 0.0 or self.apply_filter not in path:
            return
        drawn = self._noise(f"{self.seed}/{index}", variable.shape)
        change = ops.cast(learning_rate, "float32") * drawn
        self.assign_add(variable, ops.cast(change, variable.dtype))

    def _noise(self, key: str, shape: Any) -> Tensor:
        digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
        key = ops.convert_to_tensor(int.from_bytes(digest, "big", signed=True), "int32")
        seed = ops.stack([key, ops.cast(self.iterations, "int32")])
        size = (math.prod(shape),)
        if self.distribution == "normal":
            drawn = noise.normal(size, seed)
        else:
            drawn = math.sqrt(3.0) * (2.0 * noise.uniform(size, seed) - 1.0)
        return ops.reshape(math.sqrt(self.variance) * drawn, shape)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Excludes variables from the inner optimizer's weight decay, as Keras's method does."""
        self.optimizer.exclude_from_weight_decay(var_list, var_names)

    def _use_weight_decay(self, variable: Any) -> bool:
        return keras_private.decays(self.optimizer, variable)

    def save_own_variables(self, store: Any) -> None:
        """Saves what is not the inner optimizer's, which Keras saves beside it."""
        for index, variable in enumerate(self._variables):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` saved."""
        for index, variable in enumerate(self._variables):
            variable.assign(store[str(index)])

    def get_config(self) -> dict[str, Any]:
        """Every constructor argument."""
        return {
            "name": self.name,
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "variance": self.variance,
            "distribution": self.distribution,
            "apply_filter": self.apply_filter,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Noisy:
        """The optimizer that `get_config` described."""
        inner = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects)
        return cls(**(config | {"optimizer": inner}))
