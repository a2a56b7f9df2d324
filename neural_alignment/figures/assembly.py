"""Recordings of neurons: images × repeats × bins × sites, from HDF5 or netCDF-4 ([K] appendix B.5).

    responses   [image, repeat, bin, site], spikes or rates; NaN: a trial that is missing
    bin_start   [bin], ms after the image's onset (or time_bin_start)
    category    [image], numbers or texts
    blank       [repeat, bin, site], responses to a blank image, optional
    site        [site], names, optional

The dimensions of `responses` may come in any order where they have names, as in netCDF; without
names they come in this order.
"""

from __future__ import annotations

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WINDOW = (70.0, 170.0)
_AXES = {
    "image": ("image", "images", "stimulus", "presentation"),
    "repeat": ("repeat", "repeats", "repetition", "trial"),
    "bin": ("bin", "bins", "time_bin", "time"),
    "site": ("site", "sites", "neuroid", "unit"),
}
_SHAPES = "responses [image, repeat, bin, site], bin_start [bin], category [image]"


class AssemblyError(ValueError):
    """A file that is no assembly, or lacks a part of one."""


@dataclasses.dataclass(frozen=True)
class Assembly:
    """The responses of sites to images, averaged over a window of time.

    Args:
        responses: `[images, repeats, sites]`, less the response to the blank; NaN where a trial is
            missing.
        categories: of the images, `[images]`.
        sites: names.
        notes: what the file lacks.
    """

    responses: np.ndarray
    categories: np.ndarray
    sites: Sequence[str]
    notes: Sequence[str] = ()


def read_assembly(path: str | pathlib.Path, window: tuple[float, float] = WINDOW) -> Assembly:
    """Reads an assembly: mean over the bins within a window, less the mean blank response.

    Args:
        path: of an HDF5 or netCDF-4 file.
        window: first and last moment, ms after the image's onset.

    Returns:
        The assembly; a trial with a missing bin in the window is missing.

    Raises:
        AssemblyError: the file is neither, lacks a part, or its bins do not cover the window.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            return _read(file, str(path), window)
    except OSError as error:
        raise AssemblyError(
            f"Expected an HDF5 or a netCDF-4 file. Received: {path}, {error}. A classic netCDF "
            "file becomes one by: nccopy -k nc4 OLD NEW"
        ) from error


def _read(file: Mapping[str, Any], path: str, window: tuple[float, float]) -> Assembly:
    if "responses" not in file:
        raise AssemblyError(
            f"Expected {_SHAPES} in {path}. Received: {', '.join(file) or 'nothing'}"
        )
    responses = _ordered(file["responses"], tuple(_AXES), path)
    images, _, bins, sites = responses.shape
    within = _within(_column(file, ("bin_start", "time_bin_start"), bins, path), window, path)
    notes = []
    averaged = responses[:, :, within].mean(axis=2)  # NaN if any bin is
    if "blank" in file:
        blank = _ordered(file["blank"], ("repeat", "bin", "site"), path)
        if blank.shape[1:] != (bins, sites):
            raise AssemblyError(
                f"Expected blank [repeat, {bins} bins, {sites} sites] in {path}. "
                f"Received: shape {blank.shape}"
            )
        averaged = averaged - mean_of_known(blank[:, within].mean(axis=1), axis=0)
    else:
        notes.append(f"{path} has no blank: responses are as they are (which no score depends on)")
    if "category" in file:
        categories = _column(file, ("category",), images, path)
    else:
        categories = np.zeros(images, int)
        notes.append(f"{path} has no category: images are divided as one")
    names = [str(i) for i in range(sites)]
    if "site" in file and file["site"].shape == (sites,) and file["site"].dtype.kind in "OSU":
        names = [_text(name) for name in file["site"][:]]
    return Assembly(averaged, categories, names, notes)


def _ordered(dataset: Any, axes: Sequence[str], path: str) -> np.ndarray:
    """An array with its axes in order, by their names where they have any."""
    name = dataset.name.lstrip("/")
    if dataset.ndim != len(axes):
        raise AssemblyError(
            f"Expected {name} [{', '.join(axes)}] in {path}. Received: shape {dataset.shape}"
        )
    named = [_axis_name(dimension) for dimension in dataset.dims]
    values = np.asarray(dataset[:], float)
    if not any(named):
        return values
    places = []
    for axis in axes:
        found = [i for i, given in enumerate(named) if given in _AXES[axis]]
        if len(found) != 1:
            raise AssemblyError(
                f"Expected {name} with the dimensions {', '.join(axes)} in {path}. "
                f"Received: {', '.join(given or 'one without a name' for given in named)}"
            )
        places += found
    return values.transpose(places)


def _axis_name(dimension: Any) -> str:
    """A dimension's label, or the name of its scale, as netCDF writes it."""
    name = dimension.label or (dimension[0].name if len(dimension) else "")
    return name.rpartition("/")[2].lower()


def _column(file: Mapping[str, Any], names: Sequence[str], length: int, path: str) -> np.ndarray:
    for name in names:
        if name in file:
            if file[name].shape != (length,):
                raise AssemblyError(
                    f"Expected {name} of {length} values in {path}. "
                    f"Received: shape {file[name].shape}"
                )
            values = file[name][:]
            texts = values.dtype.kind in "OSU"
            return np.array([_text(value) for value in values]) if texts else values
    raise AssemblyError(f"Expected {_SHAPES} in {path}. Received: no {names[0]}")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _within(starts: np.ndarray, window: tuple[float, float], path: str) -> np.ndarray:
    """Which bins lie within the window; they have to cover it."""
    if len(starts) == 1:  # averaged already
        return np.ones(1, bool)
    width = float(np.median(np.diff(starts)))
    within = (starts >= window[0] - 1e-6) & (starts + width <= window[1] + 1e-6)
    covered = within.sum() * width
    if covered < window[1] - window[0] - 1e-6:
        raise AssemblyError(
            f"Expected bins that cover {window[0]:g} to {window[1]:g} ms in {path}. Received: "
            f"{len(starts)} of {width:g} ms from {starts[0]:g} to {starts[-1] + width:g} ms"
        )
    return within


def mean_of_known(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean of what is not missing.

    Args:
        values: any shape; NaN: missing.
        axis: to average over.

    Returns:
        Without that axis; NaN where all is missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of means of nothing
        return np.nanmean(values, axis=axis)


def read_features(path: str | pathlib.Path, images: int) -> dict[str, np.ndarray]:
    """A network's responses to the same images.

    Args:
        path: of a .npz or an HDF5 file with an array for each layer, `[images, ...]`.
        images: how many there are.

    Returns:
        Layer to `[images, features]`, in the file's order.

    Raises:
        AssemblyError: the file is neither, is empty, or an array is of other images.
    """
    found: dict[str, np.ndarray] = {}
    try:
        if str(path).endswith(".npz"):
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
        else:
            import h5py

            with h5py.File(path) as file:
                found = {name: file[name][:] for name in file}
    except (OSError, ValueError) as error:
        raise AssemblyError(
            f"Expected a .npz or an HDF5 file of features. Received: {path}, {error}"
        ) from error
    for layer, values in found.items():
        if values.ndim < 2 or len(values) != images or values.dtype.kind not in "fiu":
            raise AssemblyError(
                f"Expected numbers [{images} images, features] of {layer} in {path}. "
                f"Received: shape {values.shape}, {values.dtype}"
            )
    if not found:
        raise AssemblyError(f"Expected a layer's features in {path}. Received: none")
    return {layer: values.reshape(images, -1) for layer, values in found.items()}
