"""How well a layer's features predict the responses of neurons ([K] appendix B.5).

Partial least squares from features to the mean responses of all sites, fitted to three quarters of
each category's images; a site's score is the correlation of predicted and measured responses to the
others, and a layer's the median over sites: raw, and divided by the site's reliability.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from neural_alignment.figures.assembly import Assembly, mean_of_known

# The field's habit; the appendix does not say.
COMPONENTS = 25
TRAINED_SHARE = 0.75
_LEAST_TESTED = 3
_ROUNDING = 1e-13  # of float64, in sums over many features


@dataclasses.dataclass(frozen=True)
class Predictivity:
    """A layer's scores.

    Args:
        layer: its name.
        raw: correlation of each site on held-out images; NaN where there is none.
        reliability: of each site's mean response; NaN where it cannot be known.
    """

    layer: str
    raw: np.ndarray
    reliability: np.ndarray

    @property
    def corrected(self) -> np.ndarray:
        """raw / reliability; NaN where a site's reliability is not positive."""
        known = self.reliability > 0.0
        return np.where(known, self.raw / np.where(known, self.reliability, 1.0), math.nan)

    @property
    def ceiling(self) -> np.ndarray:
        """sqrt(reliability): the raw correlation of a model of the noise-free response."""
        return np.sqrt(np.clip(self.reliability, 0.0, None))


def median(values: np.ndarray) -> float:
    """The median of what is there; NaN of nothing."""
    there = values[np.isfinite(values)]
    return float(np.median(there)) if there.size else math.nan


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's correlation of columns over the rows that both have.

    Args:
        first: `[rows, columns]`; NaN: missing.
        second: the same shape.

    Returns:
        `[columns]`; NaN where a column is constant or has fewer than three rows.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    both = np.isfinite(first) & np.isfinite(second)
    count = both.sum(axis=0)
    norm = functools.partial(np.linalg.norm, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        known = [np.where(both, x, 0.0) for x in (first, second)]
        a, b = (np.where(both, x - x.sum(axis=0) / count, 0.0) for x in known)
        # What rounding leaves of a constant is none.
        flat = [norm(x) <= 1e-12 * norm(y) for x, y in zip((a, b), known, strict=True)]
        lost = flat[0] | flat[1] | (count < _LEAST_TESTED)
        return np.where(lost, math.nan, (a / norm(a) * (b / norm(b))).sum(axis=0))


def split_half_reliability(
    responses: np.ndarray, generator: np.random.Generator, splits: int = 20
) -> np.ndarray:
    """How far a site's mean response is the same in another experiment, `2 r / (1 + r)`.

    r is the correlation over images of the means over two random halves of the repeats, and
    Spearman and Brown's formula takes it from half to all of them.

    Args:
        responses: `[images, repeats, sites]`; NaN: missing.
        generator: of random numbers.
        splits: in halves, over which it is averaged, but for those that leave a half without
            responses to three images.

    Returns:
        `[sites]`; NaN with fewer than two repeats, or of a constant site.
    """
    responses = np.asarray(responses, float)
    repeats = responses.shape[1]
    if repeats < 2:
        return np.full(responses.shape[2], math.nan)
    found = []
    for _ in range(splits):
        order = generator.permutation(repeats)
        halves = (order[: repeats // 2], order[repeats // 2 :])
        r = correlation(*(mean_of_known(responses[:, half], axis=1) for half in halves))
        with np.errstate(divide="ignore"):
            found.append(2.0 * r / (1.0 + r))
    return mean_of_known(np.array(found), axis=0)


def divide(
    categories: np.ndarray, generator: np.random.Generator, share: float = TRAINED_SHARE
) -> tuple[np.ndarray, np.ndarray]:
    """Divides images for training and testing, within each category.

    Args:
        categories: of the images.
        generator: of random numbers.
        share: for training.

    Returns:
        Indices of training and of test images, ascending.

    Raises:
        ValueError: a category with fewer than two images.
    """
    trained, tested = [], []
    for category in np.unique(categories):
        members = generator.permutation(np.flatnonzero(categories == category))
        if len(members) < 2:
            raise ValueError(
                "Expected at least two images of every category, one to train on and one to test. "
                f"Received: {len(members)} of {str(category)!r}"
            )
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        trained.append(members[:count])
        tested.append(members[count:])
    return np.sort(np.concatenate(trained)), np.sort(np.concatenate(tested))


def predictivity(
    features: Mapping[str, np.ndarray],
    assembly: Assembly,
    components: int = COMPONENTS,
    splits: int = 1,
    seed: int = 0,
    progress: Callable[[str], None] = lambda layer: None,
) -> tuple[list[Predictivity], list[str]]:
    """Scores layers by how well their features predict the sites' responses.

    Sites that lack the same images are fitted together; a constant site, or one with too few
    images, has no score.

    Args:
        features: layer to `[images, features]`.
        assembly: the responses to the same images.
        components: of the partial least squares; fewer where there are fewer features or images.
        splits: divisions of the images, over which a site's correlation is averaged.
        seed: of the divisions.
        progress: called with a layer's name after each of its divisions.

    Returns:
        The layers' scores in order, and notes of sites and trials that are left out.

    Raises:
        ValueError: features of other images or that are not finite, or a category of one image.
    """
    generator = np.random.default_rng(seed)
    responses = np.asarray(assembly.responses, float)
    _check(features, len(responses), components, splits)
    measured = mean_of_known(responses, axis=1)
    usable = _usable(measured)
    reliability = split_half_reliability(responses, generator)
    divisions = [divide(assembly.categories, generator) for _ in range(splits)]
    scores = []
    for layer, values in features.items():
        found = []
        for division in divisions:
            found.append(_held_out(values, measured, usable, division, components))
            progress(layer)
        scores.append(Predictivity(layer, mean_of_known(np.array(found), axis=0), reliability))
    notes = [*assembly.notes, *_notes(assembly, measured, usable, scores)]
    images = len(divisions[0][0])
    if images <= min(components, max(values.shape[1] for values in features.values())):
        notes.append(f"{images - 1} components, not {components}, are fitted to {images} images")
    for layer, values in features.items():
        asked = min(components, values.shape[1])
        there = _directions(_of_order_one(values), components)
        if 0 < there < min(asked, len(values) - 1):
            notes.append(f"{layer}: {there} components, not {asked}, as its features have no more")
    return scores, notes


def _check(features: Mapping[str, np.ndarray], images: int, components: int, splits: int) -> None:
    if components < 1 or splits < 1:
        raise ValueError(
            f"Expected components >= 1 and splits >= 1. Received: {components}, {splits}"
        )
    for layer, values in features.items():
        if values.ndim != 2 or len(values) != images or not np.isfinite(values).all():
            raise ValueError(
                f"Expected finite features [{images} images, features] of {layer!r}. "
                f"Received: shape {values.shape}"
                f"{'' if np.isfinite(values).all() else ', with NaN or infinite numbers'}"
            )


def _usable(measured: np.ndarray) -> np.ndarray:
    """Which sites vary over the images that they have responses to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return (np.isfinite(measured).sum(axis=0) >= 2 * _LEAST_TESTED) & (
            np.nanmax(measured, axis=0) > np.nanmin(measured, axis=0)
        )


def _alike(measured: np.ndarray, usable: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The usable sites that have the same images: (which images, which sites)."""
    found: dict[bytes, list[int]] = {}
    there = np.isfinite(measured)
    for site in np.flatnonzero(usable).tolist():
        found.setdefault(there[:, site].tobytes(), []).append(site)
    for sites in found.values():
        yield there[:, sites[0]], np.array(sites)


def _held_out(
    features: np.ndarray,
    measured: np.ndarray,
    usable: np.ndarray,
    division: tuple[np.ndarray, np.ndarray],
    components: int,
) -> np.ndarray:
    """Each site's correlation of predicted and measured responses to the test images."""
    from sklearn.cross_decomposition import PLSRegression

    scores = np.full(measured.shape[1], math.nan)
    for images, sites in _alike(measured, usable):
        trained, tested = (part[images[part]] for part in division)
        x, y = _of_order_one(features[trained]), _of_order_one(measured[np.ix_(trained, sites)])
        varies = y.max(axis=0) > y.min(axis=0) if len(y) else np.zeros(len(sites), bool)
        count = _directions(x, components) if varies.any() else 0
        if len(tested) < _LEAST_TESTED or not count:
            continue
        with warnings.catch_warnings():
            # Fewer components than asked for explain all there is.
            warnings.filterwarnings("ignore", "Y residual is constant|y residual is constant")
            fitted = PLSRegression(count, scale=False).fit(x, y[:, varies])
        new = features[tested].astype(float) / _greatest(features[trained])
        predicted = fitted.predict(new).reshape(len(tested), -1)
        kept = sites[varies]
        scores[kept] = correlation(predicted, measured[np.ix_(tested, kept)])
    return scores


def _greatest(values: np.ndarray) -> float:
    ends = (float(values.min()), float(values.max())) if values.size else (0.0,)
    return max(map(abs, ends)) or 1.0


def _of_order_one(values: np.ndarray) -> np.ndarray:
    """Numbers over their greatest: scikit-learn takes very small ones for 0."""
    return values.astype(float) / _greatest(values)


def _directions(features: np.ndarray, most: int) -> int:
    """How many components features have, `most` of them at most: the rank about their mean.

    Beyond it the partial least squares are of rounding errors alone, divided by themselves.
    """
    if not features.size:
        return 0
    centred = features - features.mean(axis=0)
    # A random projection to so many columns has the rank, as far as it goes, at little cost.
    columns = np.random.default_rng(0).standard_normal((features.shape[1], most))
    found = np.linalg.svd(centred @ columns, compute_uv=False)
    least = _ROUNDING * max(found[0], np.abs(features).max())
    return min(int((found > least).sum()), len(features) - 1)


def _notes(
    assembly: Assembly,
    measured: np.ndarray,
    usable: np.ndarray,
    scores: Sequence[Predictivity],
) -> Iterator[str]:
    missing = int(np.isnan(assembly.responses).sum())
    if missing:
        share = 100.0 * missing / assembly.responses.size
        bare = int(np.isnan(measured).any(axis=0).sum())
        yield (
            f"{missing} trials ({share:.3g} %) are missing; {bare} sites lack images altogether "
            "and are fitted without them"
        )
    if not usable.all():
        names = [assembly.sites[i] for i in np.flatnonzero(~usable).tolist()]
        yield f"{_named(names)}: constant, or too few images; no score"
    lost = [
        assembly.sites[i]
        for i in np.flatnonzero(usable).tolist()
        if not any(np.isfinite(score.raw[i]) for score in scores)
    ]
    if lost:
        yield f"{_named(lost)}: no correlation on the test images; no score"
    bare = [one.layer for one in scores if not np.isfinite(one.raw).any()]
    if bare and len(bare) < len(scores):
        yield f"no score of {', '.join(bare)}: the features do not vary over the images"
    reliability = scores[0].reliability if scores else np.array([])
    if assembly.responses.shape[1] < 2:
        yield "one repeat: no site's reliability is known, and no score can be corrected by it"
    elif unreliable := int((usable & ~(reliability > 0.0)).sum()):
        yield f"{unreliable} sites have no positive reliability; their raw scores alone count"


def _named(sites: Sequence[str]) -> str:
    shown = ", ".join(sites[:5]) + (f" and {len(sites) - 5} more" if len(sites) > 5 else "")
    return f"site {shown}" if len(sites) == 1 else f"sites {shown}"


def best(scores: Sequence[Predictivity]) -> Predictivity:
    """The layer of the highest median raw correlation.

    Args:
        scores: of layers.

    Returns:
        Its score.

    Raises:
        ValueError: no layer has a score.
    """
    known: list[tuple[float, Any]] = [(median(one.raw), one) for one in scores]
    known = [pair for pair in known if math.isfinite(pair[0])]
    if not known:
        raise ValueError("Expected a layer with a score. Received: none")
    return max(known, key=lambda pair: pair[0])[1]
