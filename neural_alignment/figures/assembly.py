"""Recordings of neurons: images × repeats × bins × sites, from HDF5 or netCDF-4 ([K] appendix B.5).

    responses   [image, repeat, bin, site], spikes or rates; NaN: a trial that is missing
    bin_start   [bin], ms after the image's onset (or time_bin_start); s where its units say so
    category    [image], numbers or texts
    blank       [repeat, bin, site], responses to a blank image, optional
    site        [site], names, optional (or neuroid, unit: texts)

The dimensions of `responses` may come in any order where they have names, as in netCDF; without
names they come in this order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from neural_alignment.messages import one_line

WINDOW = (70.0, 170.0)
_IMAGES_AT_ONCE = 64
_GREATEST_PIXEL = 100.0  # as a network takes them: of a fraction over a deviation
_AXES = {
    "image": ("image", "images", "stimulus", "presentation"),
    "repeat": ("repeat", "repeats", "repetition", "trial"),
    "bin": ("bin", "bins", "time_bin", "time"),
    "site": ("site", "sites", "neuroid", "unit"),
}
_STARTS = ("bin_start", "time_bin_start")
_SECONDS = ("s", "sec", "secs", "second", "seconds")
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
    with _opened(path) as file:
        return _read(file, str(path), window)


@contextlib.contextmanager
def _opened(
    path: str | pathlib.Path, expected: str = "an HDF5 or a netCDF-4 file"
) -> Iterator[Any]:
    """An HDF5 file, open; what the library says of one that cannot be read, in a line."""
    import h5py

    try:
        with h5py.File(path) as file:
            yield file
    except OSError as error:
        raise AssemblyError(
            f"Expected {expected}. Received: {path}, {_what_is(path, error)}"
        ) from error


def _what_is(path: str | pathlib.Path, error: Exception) -> str:
    place = pathlib.Path(path)
    if not place.is_file():
        return "a folder" if place.is_dir() else "no such file"
    with place.open("rb") as file:
        if file.read(3) == b"CDF":
            return "a classic netCDF file. It becomes the other kind by: nccopy -k nc4 OLD NEW"
    return one_line(error)


def _read(file: Mapping[str, Any], path: str, window: tuple[float, float]) -> Assembly:
    held = _datasets(file)
    if "responses" not in held:
        raise AssemblyError(
            f"Expected {_SHAPES} in {path}. Received: {', '.join(file) or 'nothing'}"
        )
    file = held
    if file["responses"].dtype.kind not in "fiu" or not file["responses"].size:
        raise AssemblyError(
            f"Expected responses of numbers, of an image, a repeat, a bin and a site at least, in "
            f"{path}. Received: shape {file['responses'].shape}, {file['responses'].dtype}"
        )
    places = _places(file["responses"], tuple(_AXES), path)
    images, repeats, bins, sites = (file["responses"].shape[place] for place in places)
    starts = _in_ms(file, _column(file, _STARTS, bins, path))
    within = _within(starts, window, path)
    notes = []
    if bins == 1 and starts[0] != window[0]:
        notes.append(
            f"{path} has one bin, from {starts[0]:g} ms: it is taken for the window's mean"
        )
    averaged = np.empty((images, repeats, sites))
    for first in range(0, images, _IMAGES_AT_ONCE):  # all of them may not fit in memory
        part = slice(first, first + _IMAGES_AT_ONCE)
        averaged[part] = _averaged(file["responses"], places, within, part)
    if "blank" in file:
        places = _places(file["blank"], ("repeat", "bin", "site"), path)
        shape = tuple(file["blank"].shape[place] for place in places)
        if shape[1:] != (bins, sites):
            raise AssemblyError(
                f"Expected blank [repeat, {bins} bins, {sites} sites] in {path}. "
                f"Received: shape {shape}"
            )
        blank = mean_of_known(_averaged(file["blank"], places, within), axis=0)
        unknown = int(np.isnan(blank).sum())
        if unknown:
            notes.append(f"{path} has no blank of {unknown} sites: their responses are as they are")
        averaged -= np.nan_to_num(blank)
    else:
        notes.append(f"{path} has no blank: responses are as they are (which no score depends on)")
    if "category" in file:
        categories = _column(file, ("category",), images, path)
        numbered = categories.dtype.kind in "fiu"
        unknown = int(_missing(file["category"], categories).sum()) if numbered else 0
        if unknown:
            raise AssemblyError(
                f"Expected a category of every image in {path}. Received: {unknown} that are no "
                "number"
            )
    else:
        categories = np.zeros(images, int)
        notes.append(f"{path} has no category: images are divided as one")
    names, odd = _sites(file, sites, path)
    return Assembly(averaged, categories, names, [*notes, *odd])


def _sites(file: Mapping[str, Any], count: int, path: str) -> tuple[list[str], list[str]]:
    """The sites' names, as "site" or as texts under another name of that dimension, and a note."""
    numbered = [str(i) for i in range(count)]
    for name in _AXES["site"]:
        kinds = "OSUiu" if name == "site" else "OSU"
        if name in file and file[name].shape == (count,) and file[name].dtype.kind in kinds:
            return [_text(each) for each in file[name][:]], []
    if "site" not in file or file["site"].is_scale:  # netCDF has such of a dimension alone
        return numbered, []
    return numbered, [
        f"{path} has no {count} names as site, but {file['site'].dtype} of shape "
        f"{file['site'].shape}: sites are numbered"
    ]


def _datasets(file: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """The arrays of a file and of its groups, by their paths."""
    found = {}
    for name, held in file.items():
        inner = _datasets(held, f"{within}{name}/") if isinstance(held, Mapping) else None
        found |= {f"{within}{name}": held} if inner is None else inner
    return found


def _places(dataset: Any, axes: Sequence[str], path: str) -> tuple[int, ...]:
    """Where a data set has each axis, by the names of its dimensions where they have any."""
    name = dataset.name.lstrip("/")
    if dataset.ndim != len(axes):
        raise AssemblyError(
            f"Expected {name} [{', '.join(axes)}] in {path}. Received: shape {dataset.shape}"
        )
    named = [_axis_name(dimension) for dimension in dataset.dims]
    if not any(named):
        return tuple(range(len(axes)))
    places = [[i for i, given in enumerate(named) if given in _AXES[axis]] for axis in axes]
    if any(len(found) != 1 for found in places):
        raise AssemblyError(
            f"Expected {name} with the dimensions {', '.join(axes)} in {path}. "
            f"Received: {', '.join(given or 'one without a name' for given in named)}"
        )
    return tuple(found[0] for found in places)


def _averaged(
    dataset: Any, places: Sequence[int], within: slice, part: slice | None = None
) -> np.ndarray:
    """The mean over the bins of a window, which are the axis before the last; `part` of the first.

    NaN if any bin of a trial is missing: what is not finite, or the file's own mark of that.
    """
    index = [slice(None)] * len(places)
    index[places[-2]] = within
    if part is not None:
        index[places[0]] = part
    values = dataset[tuple(index)]
    known = ~_missing(dataset, values)
    values = values * dataset.attrs.get("scale_factor", 1.0) + dataset.attrs.get("add_offset", 0.0)
    return np.where(known, values, math.nan).transpose(places).mean(axis=-2)


def _missing(dataset: Any, values: np.ndarray) -> np.ndarray:
    """Which of a data set's values stand for one that is missing: by the file's own mark, or unset.

    What was never written has netCDF's number for that, 9.97e36 of floats, and no attribute of it.
    """
    marks = [dataset.attrs[n] for n in ("_FillValue", "missing_value") if n in dataset.attrs]
    marks += [dataset.fillvalue] if dataset.fillvalue else []  # 0 is HDF5's, and a response
    missing = ~np.isfinite(values)
    for mark in map(np.ravel, marks):
        if mark.dtype.kind in "fiu":  # of more digits than the values, maybe
            missing |= np.isin(values, mark[np.isfinite(mark)].astype(values.dtype))
    return missing


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
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _within(starts: np.ndarray, window: tuple[float, float], path: str) -> slice:
    """Which bins lie within the window; they have to cover it."""
    if starts.dtype.kind not in "fiu":
        raise AssemblyError(
            f"Expected numbers, ms, as bin_start in {path}. Received: {str(starts[0])!r} ..."
        )
    if len(starts) == 1:  # averaged already
        if not starts[0] < window[1]:
            raise AssemblyError(
                f"Expected bins that cover {window[0]:g} to {window[1]:g} ms in {path}. Received: "
                f"one from {starts[0]:g} ms on"
            )
        return slice(None)
    widths = np.diff(starts)
    width = float(widths[0])
    if width <= 0.0 or not np.allclose(widths, width):
        raise AssemblyError(
            f"Expected ascending bins of one width in {path}. Received: bin_start {starts.tolist()}"
        )
    within = _covering(starts, width, window)
    if within is None:
        seconds = _covering(1000.0 * starts, 1000.0 * width, window) is not None
        raise AssemblyError(
            f"Expected bins that cover {window[0]:g} to {window[1]:g} ms in {path}. Received: "
            f"{len(starts)} of {width:g} ms from {starts[0]:g} to {starts[-1] + width:g} ms"
            + seconds
            * '. They cover it in seconds: give bin_start the attribute units = "s"'
        )
    return within


def _covering(starts: np.ndarray, width: float, window: tuple[float, float]) -> slice | None:
    """Which bins lie within a window; None where they do not cover it."""
    margin = 1e-3 * width  # of float32, and of seconds that became ms
    within = (starts >= window[0] - margin) & (starts + width <= window[1] + margin)
    if within.sum() * width < window[1] - window[0] - margin * max(1, within.sum()):
        return None
    first = int(np.argmax(within))
    return slice(first, first + int(within.sum()))


def _in_ms(file: Mapping[str, Any], starts: np.ndarray) -> np.ndarray:
    """The bins' starts, which may be in seconds where the file says so."""
    held = next(file[name] for name in _STARTS if name in file)
    units = _text(np.ravel(held.attrs.get("units", ""))[0]).strip().lower()
    known = starts.astype(float) if starts.dtype.kind in "fiu" else starts
    return 1000.0 * known if units in _SECONDS and known.dtype.kind == "f" else known


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


def read_images(path: str | pathlib.Path) -> np.ndarray:
    """The images of an assembly, as a network takes them.

    Args:
        path: of an HDF5 or netCDF-4 file with `pixels` [image, height, width, channels].

    Returns:
        float32, `[images, height, width, channels]`.

    Raises:
        AssemblyError: the file is neither, or has no such images.
    """
    with _opened(path) as file:
        pixels = _datasets(file).get("pixels")
        if pixels is None or pixels.ndim != 4 or pixels.dtype.kind not in "fiu":
            found = "" if pixels is None else f" (pixels {pixels.shape}, {pixels.dtype})"
            raise AssemblyError(
                f"Expected numbers as pixels [image, height, width, channels] in {path}, for the "
                f"features of a run. Received: {', '.join(file)}{found}"
            )
        made = np.asarray(pixels[:], np.float32)
        greatest = float(np.max(made, initial=0.0))
        if greatest > _GREATEST_PIXEL or (greatest > 1.0 and (made == np.round(made)).all()):
            raise AssemblyError(
                f"Expected pixels as the network takes them in {path}: fractions from 0 to 1, less "
                "the mean and divided by the deviation where the run has --pixel_mean. Received: "
                f"numbers up to {greatest:g}. Divide them by 255"
            )
        return made


def read_features(path: str | pathlib.Path, images: int) -> dict[str, np.ndarray]:
    """A network's responses to the same images.

    Args:
        path: of a .npz or an HDF5 file with an array for each layer, `[images, ...]`; in groups,
            where a layer's name has a slash.
        images: how many there are.

    Returns:
        Layer to `[images, features]`, in the file's order.

    Raises:
        AssemblyError: the file is neither, is empty, or an array is of other images.
    """
    expected = "a .npz or an HDF5 file of features"
    if str(path).endswith(".npz"):
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
        except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise AssemblyError(
                f"Expected {expected}. Received: {path}, {_what_is(path, error)}"
            ) from error
    else:
        with _opened(path, expected) as file:
            found = {name: held[()] for name, held in _datasets(file).items() if not held.is_scale}
    for layer, values in found.items():
        if values.ndim < 2 or len(values) != images or values.dtype.kind not in "fiub":
            raise AssemblyError(
                f"Expected numbers [{images} images, features] of {layer} in {path}. "
                f"Received: shape {values.shape}, {values.dtype}"
            )
    if not found:
        raise AssemblyError(f"Expected a layer's features in {path}. Received: none")
    return {layer: values.reshape(images, -1) for layer, values in found.items()}
