"""Recordings of neurons whose bins or names are other than usual."""

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")

from neural_alignment.figures.assembly import AssemblyError, read_assembly  # noqa: E402
from tests.figures.test_predictivity import SITES, STARTS, recorded, write  # noqa: E402

# An assembly of one bin, or of odd names: what is noted, or "Expected ..." where it is refused.
ODD = {
    "one bin of the window": ({"bin_start": [70.0]}, None),
    "one bin from elsewhere": ({"bin_start": [0.0]}, "one bin, from 0 ms: it is taken for"),
    "one bin after the window": ({"bin_start": [500.0]}, "Expected bins that cover 70 to 170 ms"),
    "one bin of no time": ({"bin_start": [np.nan]}, "Expected bins that cover 70 to 170 ms"),
    "names of other sites": ({"bin_start": [70.0], "site": np.array([b"a", b"b"])},
                             "no 24 names as site, but |S1 of shape (2,)"),
    "names that are numbers": ({"bin_start": [70.0], "site": np.zeros(SITES)}, "but float64 of"),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_bins_and_names_that_are_odd_are_said(case, tmp_path):
    parts, said = ODD[case]
    made = recorded()
    responses = made.responses[:, :, None]
    path = write(tmp_path / "a.h5", made, **({"responses": responses, "blank": None} | parts))
    if said and said.startswith("Expected"):
        with pytest.raises(AssemblyError, match=said):
            read_assembly(path)
        return
    notes = [note for note in read_assembly(path).notes if "no blank" not in note]
    assert [said in note for note in notes] == [True] * (said is not None)


# Bins as files have them: their starts, the unit that is said; or what is said of them.
BINS = {
    "seconds": (STARTS / 1000.0, "s", None),
    "seconds of float32": ((STARTS / 1000.0).astype(np.float32), "seconds", None),
    "seconds as bytes": (STARTS / 1000.0, np.bytes_(b"s"), None),
    "seconds as an array": (STARTS / 1000.0, np.array(["sec"], "S"), None),
    "ms that were float32 seconds": ((STARTS / 1000.0).astype(np.float32) * 1000.0, None, None),
    "whole ms": (STARTS.astype(np.int16), "ms", None),
    "ms with an error of rounding": (STARTS + 2e-5 * np.sin(STARTS), "milliseconds", None),
    "seconds unsaid": (STARTS / 1000.0, None, 'They cover it in seconds: .* units = "s"'),
    "late": (STARTS + 200.0, None, "from 180 to 450 ms$"),
    "half a bin off": (STARTS + 5.0, None, "Expected bins that cover 70 to 170 ms"),
}


@pytest.mark.parametrize("case", BINS)
def test_bins_in_seconds_and_rounded(case, tmp_path):
    starts, unit, said = BINS[case]
    made = recorded()
    path = write(tmp_path / "a.h5", made)
    with h5py.File(path, "r+") as file:
        del file["bin_start"]
        file["bin_start"] = starts
        if unit is not None:
            file["bin_start"].attrs["units"] = unit
    if said is None:
        assert read_assembly(path).responses == pytest.approx(made.responses)
        return
    with pytest.raises(AssemblyError, match=said):
        read_assembly(path)


@pytest.mark.parametrize("name", ["site", "sites", "neuroid", "unit"])
@pytest.mark.parametrize("kind", ["bytes", "objects", "numbers"])
def test_sites_are_named_by_any_name_of_their_dimension(name, kind, tmp_path):
    made = recorded()
    path = write(tmp_path / "a.h5", made, site=None)
    texts = [f"IT-{i}é" for i in range(SITES)]
    with h5py.File(path, "r+") as file:
        if kind == "objects":
            file[name] = np.array(texts, dtype=object).astype(h5py.string_dtype())
        elif kind == "bytes":
            file[name] = np.array([text.encode() for text in texts])
        else:
            file[name] = np.arange(SITES) + 5
    numbers = [str(i + 5 * (name == "site")) for i in range(SITES)]
    read = read_assembly(path)
    assert list(read.sites) == (numbers if kind == "numbers" else texts) and read.notes == []


@pytest.mark.parametrize(
    ("kind", "mark", "how"),
    [
        ("f4", 9.96920996838687e36, "never written"),  # as netCDF leaves it, without an attribute
        ("f8", 9.969209968386869e36, "never written"),
        ("i4", -2147483647, "never written"),
        ("f4", -999.9, "_FillValue"),  # in more digits than the responses have
        ("f4", np.float64(9.96921e36), "missing_value"),
        ("i2", np.int64(-1), "missing_value"),
        ("f4", np.array([-1.0, -2.0]), "missing_value"),
        (">f4", -999.9, "_FillValue"),
        ("f4", "none", "_FillValue"),  # a text is no mark: NaN alone is missing
    ],
)
def test_what_is_missing_in_any_kind_of_number(tmp_path, kind, mark, how):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["bin_start"], file["category"] = [70.0], np.zeros(4)
        fill = mark if how == "never written" else None
        held = file.create_dataset("responses", (4, 1, 1, 2), kind, fillvalue=fill)
        for image in (0, 1, 3):
            held[image] = image
        if how != "never written":
            held.attrs[how] = mark
            held[2] = np.asarray(np.nan if isinstance(mark, str) else np.ravel(mark)[-1], kind)
    found = read_assembly(tmp_path / "a.nc").responses[:, 0, 0]
    np.testing.assert_array_equal(found, [0.0, 1.0, np.nan, 3.0])


def test_a_category_that_was_never_written_is_refused(tmp_path):
    path = tmp_path / "a.nc"
    with h5py.File(path, "w") as file:
        file["bin_start"], file["responses"] = [70.0], np.zeros((4, 1, 1, 2))
        file.create_dataset("category", (4,), "i4", fillvalue=-2147483647)[1:] = [1, 1, 2]
    with pytest.raises(AssemblyError, match="a category of every image .*Received: 1 that"):
        read_assembly(path)
