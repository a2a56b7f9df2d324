"""What layers with a rule share: their sites, the argument `alignment=`, saving."""

from __future__ import annotations

import abc
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import keras

from neural_alignment import alignments, backend, keras_private
from neural_alignment.alignments.initializers import FixedFraction, Masked
from neural_alignment.layers import subclasses
from neural_alignment.layers.collector import Call, TrainingStep, given_mask, probe, training_step
from neural_alignment.layers.site import Place, Site
from neural_alignment.maps import Linear

__all__ = ["Aligned", "Call", "TrainingStep", "aligned_layers", "probe", "sites", "training_step"]

Tensor = Any


def rule_of_layer(alignment: Any) -> alignments.Alignment | None:
    """The rule that a layer gets as `alignment=`.

    Args:
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.

    Returns:
        The rule.

    Raises:
        ValueError: an unknown rule, or one of a whole model.
        TypeError: an unknown option of a rule.
    """
    rule = alignments.get(alignment)
    if rule is not None and rule.of_model:
        raise ValueError(
            f"Expected a rule of single layers. Received: {rule.name!r}, a rule of a whole model. "
            f"Make the model without a rule and call align(model, {rule.name!r}), or "
            f"models.get(..., alignment={rule.name!r})."
        )
    return rule


def rule_of_built_layer(layer: Any, alignment: Any, before: Any) -> alignments.Alignment | None:
    """The rule that a layer gets later, as `layer.alignment = ...`.

    Args:
        layer: that has weights for `before`, where it is built.
        alignment: as of `rule_of_layer`.
        before: the rule that its weights were made for, or None.

    Returns:
        The rule.

    Raises:
        ValueError: see `rule_of_layer`; a rule for which the layer was not built.
        TypeError: see `rule_of_layer`.
    """
    rule = rule_of_layer(alignment)
    if layer.built and _without_coefficients(rule) != _without_coefficients(before):
        raise ValueError(
            "Expected for a layer that is built its own rule with other coefficients, since its "
            f"weights were made for it. Received: {rule!r} for layer {layer.name!r}, built with "
            f"{before!r}. Give a model's layers another rule with align(model, rule)."
        )
    return rule


def _without_coefficients(rule: alignments.Alignment | None) -> Any:
    if rule is None:
        return None
    names = (field.name for field in dataclasses.fields(rule))
    return type(rule), {name: getattr(rule, name) for name in names if not name.endswith("_coef")}


class _L2(keras.regularizers.L2):
    """Keras's L2, to which it is equal, in half the passes over the weights."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.l2 * backend.sum_of_squares(backend.read(x))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, keras.regularizers.L2) and other.l2 == self.l2

    def __hash__(self) -> int:
        return hash(self.l2)


class Aligned(backend.LayerLosses):
    """Mixin over a Keras layer with a kernel: the argument `alignment=` and what it means.

    The layer owns what the rule needs (backward kernel, factors, masks, a noise state), as
    weights made right after each kernel.

    Args:
        *args: of Keras's layer.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: of Keras's layer.

    Raises:
        ValueError: an unknown rule, or one of a whole model.
        TypeError: an unknown option of a rule.
    """

    places: ClassVar[tuple[Place, ...]] = (Place(),)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "call" in vars(cls):
            # mypy takes a class's own method for fixed.
            cls.call = subclasses.checked(cls.call)  # type: ignore[method-assign]

    def __init__(self, *args: Any, alignment: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rule = self._made_for = rule_of_layer(alignment)
        self._sites = tuple(Site(self, place) for place in self.places)
        self._step_source: Callable[[], Any] | None = None

    @property
    def alignment(self) -> alignments.Alignment | None:
        """The layer's rule. Of a built layer its coefficients may be changed; None turns it off."""
        return self._rule

    @alignment.setter
    def alignment(self, alignment: Any) -> None:
        if alignment is not None:
            alignment = rule_of_built_layer(self, alignment, self._made_for)
            self._made_for = alignment
        elif not self.built:
            self._made_for = None
        self._rule = alignment

    @property
    def sites(self) -> tuple[Site, ...]:
        """The layer's kernels at work, where it has a rule."""
        return () if self.alignment is None else self._sites

    def set_step_source(self, source: Callable[[], Any] | None) -> None:
        """Says where the global step comes from outside a `training_step`.

        Args:
            source: gives the step; None: nobody says it.
        """
        self._step_source = source

    def global_step(self) -> Any:
        """The step outside a `training_step`; None where nobody says."""
        return None if self._step_source is None else self._step_source()

    def replica_number(self) -> Any:
        """This replica's number, for what is kept apart; 0 where all are traced at once."""
        return backend.replica_number()

    @abc.abstractmethod
    def map_of(self, site: str) -> Linear:
        """The map of a site.

        Args:
            site: its name, "" where the layer has one only.

        Returns:
            The map.
        """

    def linear(self) -> Linear:
        """The map of the layer's first site."""
        return self.map_of(self.places[0].name)

    def bias_for_outputs(self) -> Tensor | None:
        """The bias, broadcastable to the layer's output."""
        if self.bias is None:
            return None
        bias = backend.read(self.bias)
        if getattr(self, "data_format", "channels_last") == "channels_last":
            return bias
        return keras.ops.reshape(bias, (1, -1) + (1,) * self.rank)

    def add_weight(self, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        site = next((site for site in self.sites if site.place.kernel == name), None)
        if site is None:
            return super().add_weight(*args, name=name, **kwargs)
        if self.quantization_mode is not None:  # Keras then leaves out `call`, and the rule with it
            raise ValueError(
                "Expected a floating dtype policy with an alignment, such as 'mixed_bfloat16'. "
                f"Received: the quantization {self.quantization_mode!r} in layer {self.path!r}"
            )
        given = kwargs.get("initializer")
        # Made where it is wanted alone: an initializer without a seed draws one.
        mask = FixedFraction(site.alignment.forward_density) if site.mask_name else None
        if mask is not None:
            kwargs["initializer"] = Masked(given, mask)
        regularizer: Any = kwargs.get("regularizer")
        if type(regularizer) is keras.regularizers.L2:  # the layer and its config keep Keras's
            kwargs["regularizer"] = _L2(regularizer.l2)
        # R is computed in float32 whatever the layer computes in: the kernel must not autocast.
        kernel = super().add_weight(*args, name=name, autocast=False, **kwargs)
        shape, fixed = tuple(kernel.shape), {"trainable": False, "autocast": False}
        site.add_variables(shape, given, super().add_weight)
        if mask is not None:
            made = super().add_weight(shape, mask, name=site.mask_name, **fixed)
            setattr(self, site.mask_name, made)
        site.tell_optimizers(kernel)
        return kernel

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        if self.alignment is None:
            return super().call(inputs)
        subclasses.note(self, training)
        # Keras hands the mask over where a wrapper calls each step apart (TimeDistributed), too.
        mask = keras_private.mask_of(inputs) if mask is None else mask
        inputs = self._as_floats(inputs)
        mask = given_mask(self) if mask is None else mask
        for site in self._sites:
            inputs = site(inputs, training, mask)
            mask = site.linear.mask_of_outputs(mask)
        bias = self.bias_for_outputs()
        outputs = inputs if bias is None else keras.ops.add(inputs, bias)
        return outputs if self.activation is None else self.activation(outputs)

    def _as_floats(self, inputs: Tensor) -> Tensor:
        """Dense numbers of the layer's compute type, as Keras's operations make of integers."""
        mask = keras_private.mask_of(inputs)
        if keras_private.is_sparse(inputs):
            inputs = keras.ops.convert_to_tensor(inputs, sparse=False)
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        if not keras.backend.is_float_dtype(dtype):
            inputs = keras.ops.cast(inputs, self.compute_dtype)
        return keras_private.with_mask(inputs, mask)

    def backward_kernel_value(self) -> Tensor:
        """The kernel that the error goes back through, in float32; W itself for backprop.

        A rule that draws it at every step gives a draw of its own here.

        Returns:
            A tensor of the kernel's shape; of the first site's, where there are two.
        """
        if self.alignment is not None:
            return self._sites[0].backward_kernel_value()
        return keras.ops.cast(backend.read(self._sites[0].kernel), "float32")

    @property
    def rule_weights(self) -> list[str]:
        """The names of the weights that the rule made."""
        return [name for site in self.sites for name in site.variable_names]

    def save_own_variables(self, store: Any) -> None:
        """The layer's own weights as Keras numbers them without a rule, the rule's by name."""
        saved: dict[str, Any] = {}
        super().save_own_variables(saved)
        rules = {name: getattr(self, name) for name in self.rule_weights} if saved else {}
        own = [w for w in saved.values() if not any(w is one for one in rules.values())]
        for name, weight in ({str(i): w for i, w in enumerate(own)} | rules).items():
            store[name] = weight

    def load_own_variables(self, store: Any) -> None:
        known = store.keys()  # Keras 3.8's store has no `in`
        for name in self.rule_weights:
            if name not in known:
                rule = None if self.alignment is None else self.alignment.name
                raise ValueError(
                    f"Expected the weight {name!r} of layer {self.path!r} "
                    f"(rule {rule!r}) in the file. Received: {sorted(known)}. Weights of a model "
                    "without the rule load into one without it, which `align` then copies."
                )
        # Some of Keras's layers number every weight, others a list of theirs.
        places: dict[str, Any] = {}
        super().save_own_variables(places)
        names = {id(getattr(self, name)): name for name in self.rule_weights}
        count = itertools.count()
        at = {key: names.pop(id(w), "") or str(next(count)) for key, w in places.items()}
        at |= {name: name for name in names.values()}
        self._refuse_what_would_be_lost([name for name in known if name not in at.values()])
        super().load_own_variables({key: store[name] for key, name in at.items() if name in known})
        for name in names.values():
            getattr(self, name).assign(store[name])

    def _refuse_what_would_be_lost(self, others: list[str]) -> None:
        """Refuses a file with weights that the layer has not, such as a sparse rule's mask."""
        lost = [name for name in others if not name.endswith("noise_state")]  # says nothing of B
        if lost:
            rule = None if self.alignment is None else self.alignment.name
            raise ValueError(
                f"Expected the weights of layer {self.path!r} (rule {rule!r}) alone in the file. "
                f"Received: {', '.join(lost)} beside them, which would be lost. Load them into a "
                "model with the rule and the options that they were saved with; `strip` and "
                "`align` copy it to others."
            )

    def quantize(self, mode: str | None = None, *args: Any, **kwargs: Any) -> None:
        if self.alignment is not None:
            # Keras makes a warning of it for a whole model.
            raise NotImplementedError(
                "Expected a layer without a rule to quantize, since Keras then computes past it. "
                f"Received: layer {self.path!r} (rule {self.alignment.name!r}), which stays as it "
                "is. Quantize strip(model)."
            )
        super().quantize(mode, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alignment": alignments.serialize(self.alignment)}


def aligned_layers(model: keras.Model) -> list[Aligned]:
    """Every layer of a model, nested ones too, that has an alignment.

    Args:
        model: a built Keras model.

    Returns:
        The layers in the order of the model.
    """
    return [
        layer
        for layer in keras_private.flatten_layers(model)
        if isinstance(layer, Aligned) and layer.alignment is not None
    ]


def sites(model: keras.Model) -> list[Site]:
    """Every kernel of a model, in nested layers too, that works under a rule.

    Args:
        model: a built Keras model.

    Returns:
        The sites in the order of the model.
    """
    return [site for layer in aligned_layers(model) for site in layer.sites]
