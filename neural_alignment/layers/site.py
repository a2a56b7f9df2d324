"""A site: one kernel at work in a layer, and what a rule makes for it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import keras
from keras import ops

from neural_alignment import backend, keras_private, ties
from neural_alignment.alignments import Alignment
from neural_alignment.backend.contract import Tie
from neural_alignment.layers import draws
from neural_alignment.layers.collector import SiteLoss, active_step, is_backpropagation, record
from neural_alignment.maps import Factored, Linear, Matmul, Narrow, two_kernels

if TYPE_CHECKING:
    from neural_alignment.layers.aligned import Aligned

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a layer class has a kernel.

    Args:
        kernel: the attribute and the weight's name.
        name: of the site, "" where the layer has one only.
        ends: whether the layer's bias and activation follow it.
    """

    kernel: str = "kernel"
    name: str = ""
    ends: bool = True


class Site:
    """One kernel of a layer: map, kernel, bias, activation, and the rule's variables for it.

    Rules, measures, conversion and saving see sites; a layer has one (Dense) or two (separable).

    Args:
        layer: it is of.
        place: where the kernel is.
    """

    def __init__(self, layer: Aligned, place: Place) -> None:
        self.layer = layer
        self.place = place
        self._attributes: dict[str, str] = {}
        self._losses: dict[Any, SiteLoss] = {}
        self._kept: dict[Any, tuple[Tensor, dict[str, Tensor]]] = {}
        # Whether a training call has made R, or moved the rule's variables.
        self.has_learnt = False

    @property
    def key(self) -> tuple[int, str]:
        """What tells the sites of a model apart, where paths may not."""
        return id(self.layer), self.place.name

    @property
    def path(self) -> str:
        """The layer's path, with the site's name where the layer has several."""
        return "/".join(part for part in (self.layer.path, self.place.name) if part)

    @property
    def alignment(self) -> Alignment:
        """The layer's rule."""
        return cast(Alignment, self.layer.alignment)  # asked of layers with a rule alone

    @property
    def linear(self) -> Linear:
        """The map."""
        return self.layer.map_of(self.place.name)

    @property
    def kernel(self) -> Any:
        """W: a variable, or a tensor where LoRA adds to one."""
        return getattr(self.layer, self.place.kernel)

    @property
    def bias(self) -> Tensor | None:
        """The bias, broadcastable to the output, where the layer ends here."""
        return self.layer.bias_for_outputs() if self.place.ends else None

    @property
    def activation(self) -> Callable[[Tensor], Tensor] | None:
        """The layer's activation, where the layer ends here."""
        return self.layer.activation if self.place.ends else None

    @property
    def variables(self) -> dict[str, Any]:
        """The rule's variables by the rule's own names for them."""
        return {name: getattr(self.layer, name_) for name, name_ in self._attributes.items()}

    @property
    def variable_names(self) -> tuple[str, ...]:
        """The rule's variables and the noise state by their names in the layer."""
        noise = (self._named("noise_state"),) if self.alignment.is_random else ()
        mask = (self.mask_name,) if self.mask_name else ()
        return (*self._attributes.values(), *noise, *mask)

    @property
    def mask_name(self) -> str:
        """The layer's weight with ones where W is not fixed at 0; "" where it nowhere is."""
        return self._named("forward_mask") if self.alignment.forward_density != 1.0 else ""

    @property
    def forward_kernel(self) -> Tensor:
        """W as the layer applies it."""
        kernel, name = backend.read(self.kernel), self.mask_name
        return kernel * ops.cast(getattr(self.layer, name), kernel.dtype) if name else kernel

    @property
    def noise_state(self) -> Any:
        """A random number of the site's own and a count of its training calls, int32 `[2]`."""
        return getattr(self.layer, self._named("noise_state"))

    def _named(self, name: str) -> str:
        """A rule's name for a variable, as the layer has it: `backward_depthwise_kernel`."""
        if not self.place.name:
            return name
        head, mark, tail = name.partition("backward_")
        return f"{head}{mark}{self.place.name}_{tail}" if mark else f"{self.place.name}_{name}"

    def add_variables(
        self, kernel_shape: tuple[int, ...], initializer: Any, add_weight: Callable[..., Any]
    ) -> None:
        """Makes what the rule needs, as weights of the layer.

        Args:
            kernel_shape: W's.
            initializer: W's.
            add_weight: Keras's.
        """
        rule = self.alignment
        made = rule.variables(
            kernel_shape, lambda salt: draws.independent(initializer, salt), linear=self.linear
        )
        for name, variable in made.items():
            attribute, of = self._named(name), rule.rule_of(name)
            weight = add_weight(
                name=attribute,
                shape=variable.shape,
                initializer=variable.initializer,
                # On JAX what nothing reaches gets a gradient of zeros, and decay would change it.
                trainable=variable.trainable and (of.tie_grad or of.has_loss),
                autocast=False,
            )
            setattr(self.layer, attribute, weight)
            self._attributes[name] = attribute
        if rule.is_random:
            state = add_weight(
                name=self._named("noise_state"),
                shape=(2,),
                initializer=draws.noise_state,
                dtype="int32",
                trainable=False,
                autocast=False,
                aggregation="only_first_replica",
            )
            setattr(self.layer, self._named("noise_state"), state)

    def tell_optimizers(self, kernel: Any) -> None:
        """Says which kernels have to take the same steps, and which ones both losses reach.

        Args:
            kernel: W, the variable.
        """
        rule = self.alignment
        for name, variable in self.variables.items():
            of = rule.rule_of(name)
            if variable.trainable and of.needs_linear_updates:
                ties.require_linear(variable)
            if variable.trainable and of.tie_grad:
                ties.tie(variable, kernel)
                if of.has_loss:
                    ties.share(variable)
        if rule.update_forward and rule.has_loss:
            ties.share(kernel)

    @property
    def alignment_loss(self) -> Tensor | None:
        """R as it is among the layer's losses after a training call in plain `fit`."""
        held = self._losses.get(self.layer.replica_number())
        return None if held is None else held.value

    def __call__(self, inputs: Tensor, training: bool | None, mask: Tensor | None = None) -> Tensor:
        """The projection `x W`, whose error goes back through B; adds R in training.

        Args:
            inputs: x.
            training: whether R counts.
            mask: bool, x's leading axes, or None.

        Returns:
            A tensor before bias and activation.
        """
        seed, variables = self.noise_seed(training), self._read()
        moves = training and self.layer.trainable and self.alignment.updates_itself
        if moves:  # On PyTorch a variable changes in place, also where the backward pass needs it.
            variables = {name: keras.ops.copy(value) for name, value in variables.items()}
        kept = self._kept_of_step() if moves else variables
        is_first, variables = kept is None, variables if kept is None else kept
        dtype = self.layer.compute_dtype
        forward_kernel = self.forward_kernel
        make = functools.partial(
            self.alignment.backward_kernel, forward_kernel, variables, seed, linear=self.linear
        )
        if active_step() is None:
            inputs = backend.after(inputs, list(variables.values()))
        counts = training and self.layer.trainable and self.alignment.has_loss
        disturbed = inputs
        if counts and self.alignment.disturbs_input:
            disturbed = inputs + self.alignment.input_noise(inputs, seed)
        factors, backward_kernel = None, forward_kernel
        if not is_backpropagation():
            factors = self.alignment.factors(variables, linear=self.linear)
            backward_kernel = make if factors is not None else make()  # made where R asks for it
        if factors is None:
            projection = two_kernels(
                self.linear,
                disturbed,
                keras.ops.cast(forward_kernel, dtype),
                keras.ops.cast(backward_kernel, dtype),
                self._tie(variables),
            )
        else:
            projection = self._through_factors(
                disturbed, keras.ops.cast(forward_kernel, dtype), *factors
            )
        projection = record(self, inputs, projection)
        if is_first:
            self._update(forward_kernel, variables)
        if counts:
            kernels = {"forward_kernel": forward_kernel, "backward_kernel": backward_kernel}
            self._add_loss(
                lambda step: self._loss(inputs, projection, kernels, variables, seed, mask, step)
            )
        return projection

    def _through_factors(
        self, inputs: Tensor, forward_kernel: Tensor, left: Tensor, right: Tensor
    ) -> Tensor:
        """The projection, whose error goes back through one factor of B and then the other."""
        linear = Factored(cast(Matmul, self.linear), keras.ops.stop_gradient(right))
        return backend.two_kernels(linear, inputs, forward_kernel, left, linear.factor_gradient)

    def _tie(self, variables: dict[str, Tensor]) -> Tie:
        if not self.alignment.tie_grad or is_backpropagation():
            return False
        # A custom gradient on JAX must not close over what is differentiated.
        fixed = {name: keras.ops.stop_gradient(value) for name, value in variables.items()}
        return functools.partial(self.alignment.tied_gradient, variables=fixed, linear=self.linear)

    def backward_kernel_value(self) -> Tensor:
        """The kernel that the error goes back through, in float32.

        A rule that draws it at every step gives a draw of its own here.

        Returns:
            A tensor of the kernel's shape.
        """
        kernel, seed = self.forward_kernel, self.noise_seed(training=False)
        made = self.alignment.backward_kernel(kernel, self._read(), seed, linear=self.linear)
        return keras.ops.cast(made, "float32")

    def _read(self) -> dict[str, Tensor]:
        return {name: backend.read(variable) for name, variable in self.variables.items()}

    def noise_seed(self, training: bool | None) -> Tensor | None:
        """The seed of this call's draws.

        Args:
            training: whether the call counts among those of the noise state.

        Returns:
            int32 `[2]`; None where the rule draws nothing.
        """
        if not self.alignment.is_random:
            return None
        active = active_step()
        if active is not None:
            return draws.seed_of_step(active, self.path)
        state = backend.read(self.noise_state)
        seed = ops.stack([draws.of_replica(state[0]), state[1]])
        if training:
            self.noise_state.assign(state + ops.convert_to_tensor([0, 1], "int32"))
        return seed

    def _loss(
        self,
        inputs: Tensor,
        projection: Tensor,
        kernels: dict[str, Tensor],
        variables: dict[str, Tensor],
        seed: Tensor | None,
        mask: Tensor | None,
        step: Any,
    ) -> Tensor:
        # In float32 whatever the layer computes in, or in float64 where it computes in that; but
        # what is multiplied is rounded to bfloat16 where the layer's own operands are. Sums of R
        # pass float16's largest number, and its gradients fall below its smallest.
        computed = self.layer.compute_dtype
        dtype = "float64" if computed == "float64" else "float32"
        linear = Narrow(self.linear, computed) if computed == "bfloat16" else self.linear

        def as_float(x: Any) -> Any:
            return (lambda: as_float(x())) if callable(x) else keras.ops.cast(x, dtype)

        bias = self.bias
        loss = self.alignment(
            as_float(inputs),
            **{name: as_float(kernel) for name, kernel in kernels.items()},
            linear=linear,
            variables={
                name: as_float(value)
                if keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype))
                else value
                for name, value in variables.items()
            },
            bias=None if bias is None else as_float(bias),
            activation=self.activation,
            # The same product of the same operands, but in float16.
            forward_projection=None if computed == "float16" else as_float(projection),
            step=step,
            seed=seed,
            mask=mask,
        )
        return keras.ops.cast(loss, "float32")

    def _update(self, forward_kernel: Tensor, variables: dict[str, Tensor]) -> None:
        """Moves the variables of a rule that does so itself, at the first call in a step."""
        self.has_learnt, active = True, active_step()
        if active is not None:
            active.kept[self.key] = variables
        else:
            self._refuse_where_nothing_is_recorded()
            # Keras clears the losses when a step begins: a loss of zero is the mark of this one.
            mark = keras.ops.zeros((), "float32")
            self.layer.add_loss(mark)
            self._kept[self.layer.replica_number()] = mark, variables
        step = self.layer.global_step() if active is None else active.global_step
        updated = self.alignment.update(forward_kernel, variables, step, linear=self.linear)
        for name, value in updated.items():
            variable, old = self.variables[name], variables[name]
            new = keras.ops.stop_gradient(keras.ops.cast(value, variable.dtype))
            variable.assign(new if active is None else active.at_last(new, old))

    def _kept_of_step(self) -> dict[str, Tensor] | None:
        """The rule's variables as the first training call in this step read them, if it was."""
        active = active_step()
        if active is not None:
            return active.kept.get(self.key)
        mark, variables = self._kept.get(self.layer.replica_number(), (None, None))
        is_same = mark is not None and keras_private.holds_loss(self.layer, mark)
        return variables if is_same else None

    def _add_loss(self, loss: Callable[[Any], Tensor]) -> None:
        self.has_learnt, active = True, active_step()
        if active is not None:
            active.add(self, lambda: loss(active.global_step))
            return
        self._refuse_where_nothing_is_recorded()
        replica = self.layer.replica_number()
        held = self._losses.get(replica)
        if held is None or not keras_private.holds_loss(self.layer, held.value):
            self._losses[replica] = SiteLoss(self.path, loss(self.layer.global_step()))
            self.layer.add_loss(self._losses[replica].value)
        elif self.alignment.compares_projections:
            before = held.value
            held.add(loss(self.layer.global_step()))
            keras_private.add_or_replace_loss(self.layer, held.value, before)

    def _refuse_where_nothing_is_recorded(self) -> None:
        if not backend.records_gradients():
            raise ValueError(
                "Expected a layer whose rule has a loss or updates of its own to be called where "
                f"gradients are recorded. Received: layer {self.path!r} (rule "
                f"{self.alignment.name!r}) in tf.recompute_grad, keras.remat or a custom gradient, "
                "which lets neither out. Call the layer outside of it, or give it a rule without "
                "either."
            )
