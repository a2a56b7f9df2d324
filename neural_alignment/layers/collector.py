"""What a step collects from the layers called in it: alignment losses, and calls to measure."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from neural_alignment.layers.site import Site

Tensor = Any


@dataclasses.dataclass
class SiteLoss:
    """R of a site in one step: that of its calls, or their mean.

    Args:
        path: of the site.
        value: R so far.
        calls: how many calls are in it.
    """

    path: str
    value: Tensor
    calls: int = 1

    def add(self, value: Tensor) -> None:
        """Takes in one more call's R."""
        self.calls += 1
        self.value = self.value + (value - self.value) / self.calls


@dataclasses.dataclass
class TrainingStep:
    """One training step as the layers see it.

    Args:
        global_step: int scalar tensor, for schedules and noise.
        seed: of the run.
        draw: number of the micro-batch in the step, so that each draws noise of its own.
        draws: how many micro-batches the step has.
    """

    global_step: Tensor
    seed: int
    draw: Tensor | int = 0
    draws: int = 1
    _by_site: dict[Any, SiteLoss] = dataclasses.field(default_factory=dict)
    # Of sites that move their variables in this step: what they were before.
    kept: dict[Any, dict[str, Tensor]] = dataclasses.field(default_factory=dict)

    @property
    def losses(self) -> list[tuple[str, Tensor]]:
        """(path, R) of every site called so far in this step; a site called again counts once."""
        return [(loss.path, loss.value) for loss in self._by_site.values()]

    def at_last(self, new: Tensor, old: Tensor) -> Tensor:
        """A value that is to change with the step's last micro-batch, and not before.

        Args:
            new: from then on.
            old: until then.
        """
        if self.draws == 1:
            return new
        return keras.ops.where(keras.ops.equal(self.draw, self.draws - 1), new, old)

    def add(self, site: Site, loss: Callable[[], Tensor]) -> None:
        """Takes in the R of one call.

        R is a layer's, not a call's: of several calls the mean counts, and one that looks at the
        kernels alone is not made again.

        Args:
            site: that was called.
            loss: makes R.
        """
        held = self._by_site.get(site.key)
        if held is None:
            self._by_site[site.key] = SiteLoss(site.path, loss())
        elif site.alignment.compares_projections:
            held.add(loss())


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a site, for measurements.

    Args:
        site: that was called.
        inputs: x.
        projection: `x W`, before bias and activation.
    """

    site: Site
    inputs: Tensor
    projection: Tensor

    @property
    def layer(self) -> Any:
        """The layer that the site is of."""
        return self.site.layer


# Thread-local: MirroredStrategy runs each replica's step in a thread of its own.
_active = threading.local()


def active_step() -> TrainingStep | None:
    """The training step that layers are called in, if there is one."""
    return getattr(_active, "step", None)


@contextlib.contextmanager
def training_step(
    global_step: Tensor | int, seed: int = 0, draw: Tensor | int = 0, draws: int = 1
) -> Iterator[TrainingStep]:
    """Collects the alignment losses of the layers called inside, apart from `model.losses`.

    Inside it coefficients see `global_step`, and noise depends on seed, layer, replica, step and
    draw alone, so that a resumed run repeats it.

    Args:
        global_step: number of the step, from 0.
        seed: of the run.
        draw: number of the micro-batch in the step.
        draws: how many the step has; a rule that moves its variables itself does so in the last.

    Yields:
        A `TrainingStep` whose `losses` fills as layers are called with `training=True`.
    """
    previous = active_step()
    _active.step = TrainingStep(keras.ops.convert_to_tensor(global_step), seed, draw, draws)
    try:
        yield _active.step
    finally:
        _active.step = previous


@contextlib.contextmanager
def probe(added: Sequence[Tensor] | None = None) -> Iterator[list[Call]]:
    """Records the calls of layers with an alignment, to measure what flows through them.

    Args:
        added: to the projection of each call, in order: zeros, whose gradients are the errors that
            arrive there.

    Yields:
        A list of `Call` that fills as layers are called.
    """
    previous = getattr(_active, "probe", None)
    calls: list[Call] = []
    _active.probe = calls, added
    try:
        yield calls
    finally:
        _active.probe = previous


@dataclasses.dataclass
class Taps:
    """Where errors go straight to a point of a model, to measure what arrives there.

    Args:
        at_stops: added to what each `StopError` lets through, in the order of calls: zeros, whose
            gradients are the errors of the layers behind. None adds nothing.
        at_points: added to each point of `DirectFeedback`, the same.
    """

    at_stops: Sequence[Tensor] | None = None
    at_points: Sequence[Tensor] | None = None
    # What came by: the input of every stop; the name and tensor of every point, and whose it is.
    stops: list[Tensor] = dataclasses.field(default_factory=list)
    points: list[tuple[str, Tensor, Any]] = dataclasses.field(default_factory=list)

    def stop(self, tensor: Tensor) -> Tensor:
        """A stop's input, with what is added to it."""
        self.stops.append(tensor)
        return tensor if self.at_stops is None else tensor + self.at_stops[len(self.stops) - 1]

    def point(self, name: str, tensor: Tensor, owner: Any) -> Tensor:
        """A point of a `DirectFeedback`, with what is added to it."""
        self.points.append((name, tensor, owner))
        return tensor if self.at_points is None else tensor + self.at_points[len(self.points) - 1]


@contextlib.contextmanager
def tapped(taps: Taps) -> Iterator[Taps]:
    """Lets the stops and points of models called inside meet taps."""
    previous = active_taps()
    _active.taps = taps
    try:
        yield taps
    finally:
        _active.taps = previous


def active_taps() -> Taps | None:
    """The taps that stops and points are called with, if any."""
    return getattr(_active, "taps", None)


@contextlib.contextmanager
def masks(by_layer: dict[int, Tensor | None]) -> Iterator[None]:
    """Masks for layers whose inputs have lost theirs on the way.

    Args:
        by_layer: the mask of a layer's inputs, or None, by the layer's `id`.
    """
    previous = getattr(_active, "masks", {})
    _active.masks = previous | by_layer
    try:
        yield
    finally:
        _active.masks = previous


def given_mask(layer: Any) -> Tensor | None:
    """The mask that `masks` has for a layer's inputs, if any."""
    return getattr(_active, "masks", {}).get(id(layer))


@contextlib.contextmanager
def backpropagation() -> Iterator[None]:
    """Sends errors as backpropagation does, whatever the rules, for layers called inside."""
    previous = is_backpropagation()
    _active.backpropagation = True
    try:
        yield
    finally:
        _active.backpropagation = previous


def is_backpropagation() -> bool:
    """Whether errors go back as in backpropagation here, whatever the rules."""
    return getattr(_active, "backpropagation", False)


def record(site: Site, inputs: Tensor, projection: Tensor) -> Tensor:
    """Hands a call to the probe, if there is one.

    Args:
        site: that is called.
        inputs: x.
        projection: `x W`.

    Returns:
        The projection, with what the probe adds.
    """
    if getattr(_active, "probe", None) is None:
        return projection
    calls, added = _active.probe
    if added is not None:
        projection = projection + added[len(calls)]
    calls.append(Call(site, inputs, projection))
    return projection
