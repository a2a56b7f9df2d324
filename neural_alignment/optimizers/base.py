"""What every optimizer of this package has besides its update rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:  # a mixin: what it uses is the optimizer's
    from keras.optimizers import Optimizer as Base
else:
    Base = object


class UpdateRule(Base):
    """Mixin over a Keras optimizer.

    A learning-rate schedule sees the updates of the weights; Keras gives it the number of batches.
    The two differ with `gradient_accumulation_steps` alone: k batches make one update there, and a
    schedule that alternates or drops by steps would be asked at every k-th step only.
    """

    def _get_current_learning_rate(self) -> Any:
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        # On PyTorch Keras fails where every variable is excluded.
        if self.weight_decay is not None and any(map(self._use_weight_decay, variables)):
            super()._apply_weight_decay(variables)
