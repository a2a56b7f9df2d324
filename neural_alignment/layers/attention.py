"""Attention whose projections have backward kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from neural_alignment import alignments, keras_private
from neural_alignment.layers.aligned import rule_of_layer
from neural_alignment.layers.collector import masks
from neural_alignment.layers.einsum_dense import EinsumDense

if TYPE_CHECKING:  # a mixin: what it uses is the layer's
    from keras.layers import Layer as Base
else:
    Base = object

Tensor = Any


class AlignedAttention(Base):
    """Mixin over a Keras layer whose kernels are those of EinsumDense layers inside it.

    The layer has no kernel of its own: its projections follow the rule, each a layer with a site.
    """

    def __init__(self, *args: Any, alignment: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rule = rule_of_layer(alignment)

    @property
    def alignment(self) -> alignments.Alignment | None:
        """The layer's rule, which its projections get when it is built."""
        return self._rule

    @alignment.setter
    def alignment(self, alignment: Any) -> None:
        rule = rule_of_layer(alignment)
        if self.built and rule != self._rule:
            raise ValueError(
                "Expected a layer that is not built, whose projections get the rule. Received: "
                f"{rule!r} for layer {self.name!r}, built with {self._rule!r}. Set `alignment` of "
                "its projections, or give a model's layers another rule with align(model, rule)."
            )
        self._rule = rule

    def build(self, query_shape: Any, value_shape: Any, key_shape: Any = None) -> None:
        super().build(query_shape, value_shape, key_shape)
        if self.alignment is not None:
            keras_private.replace_layers(self, keras.layers.EinsumDense, self._with_rule)

    def _with_rule(self, stock: keras.layers.EinsumDense) -> EinsumDense:
        made = EinsumDense.from_config(
            stock.get_config()
            | {"alignment": alignments.serialize(self.alignment), "trainable": self.trainable}
        )
        made.build_from_config(stock.get_build_config())
        return made

    def call(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> Any:
        # Keras takes the masks off before it projects; padding would count in R.
        by_name = {"value": value_mask, "key": value_mask if key is None else key_mask}
        projections = [layer for layer in keras_private.flatten_layers(self) if layer.weights]
        with masks({id(layer): by_name.get(layer.name, query_mask) for layer in projections}):
            return super().call(
                query,
                value,
                key=key,
                query_mask=query_mask,
                value_mask=value_mask,
                key_mask=key_mask,
                attention_mask=attention_mask,
                return_attention_scores=return_attention_scores,
                training=training,
                use_causal_mask=use_causal_mask,
            )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alignment": alignments.serialize(self.alignment)}


@keras.saving.register_keras_serializable(package="neural_alignment")
class MultiHeadAttention(AlignedAttention, keras.layers.MultiHeadAttention):
    """Keras's MultiHeadAttention whose projections follow a learning rule.

    Queries, keys, values and the output are projected by `EinsumDense` layers with the rule; the
    error goes through the attention itself as in backpropagation.

    Args:
        *args: as of `keras.layers.MultiHeadAttention`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.MultiHeadAttention`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """


@keras.saving.register_keras_serializable(package="neural_alignment")
class GroupQueryAttention(AlignedAttention, keras.layers.GroupQueryAttention):
    """Keras's GroupQueryAttention whose projections follow a learning rule.

    Args:
        *args: as of `keras.layers.GroupQueryAttention`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.GroupQueryAttention`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """
