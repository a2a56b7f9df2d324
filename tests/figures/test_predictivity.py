"""Neural predictivity on responses made from a known layer."""

import io

import numpy as np
import pytest

h5py = pytest.importorskip("h5py")
pytest.importorskip("sklearn")

from neural_alignment.cli import figures as command  # noqa: E402
from neural_alignment.figures.assembly import (  # noqa: E402
    Assembly,
    AssemblyError,
    read_assembly,
    read_features,
    read_images,
)
from neural_alignment.figures.predictivity import (  # noqa: E402
    best,
    correlation,
    divide,
    median,
    predictivity,
    split_half_reliability,
)
from tests.figures.made_runs import read_table  # noqa: E402

IMAGES, SITES, REPEATS, CATEGORIES = 160, 24, 8, 8
STARTS = np.arange(-20.0, 250.0, 10.0)
LABELS = np.repeat(np.arange(CATEGORIES), IMAGES // CATEGORIES)


def network(seed=0):
    """Three layers, each a random nonlinear function of the one before."""
    generator = np.random.default_rng(seed)
    layers, x = {}, generator.standard_normal((IMAGES, 8))
    for name in ("early", "middle", "late"):
        x = np.tanh(x @ generator.standard_normal((8, 8)))
        layers[name] = x
    return layers


def recorded(layer="middle", noise=0.5, seed=1):
    """Responses [images, repeats, sites] of unit variance from a layer, plus noise a trial."""
    generator = np.random.default_rng(seed)
    signal = network()[layer] @ generator.standard_normal((8, SITES))
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    trials = generator.standard_normal((IMAGES, REPEATS, SITES))
    return Assembly(signal[:, None] + noise * trials, LABELS, [f"site{i}" for i in range(SITES)])


def reliability_of(noise):
    return 1.0 / (1.0 + noise**2 / REPEATS)


@pytest.mark.parametrize("layer", ["early", "middle", "late"])
def test_the_layer_that_the_responses_were_made_from_wins(layer):
    scores, notes = predictivity(network(), recorded(layer))
    assert best(scores).layer == layer and notes == []
    raw = {one.layer: median(one.raw) for one in scores}
    assert raw[layer] > 0.97 > 0.95 > max(r for name, r in raw.items() if name != layer)


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.5, 3.0])
def test_the_score_falls_with_noise_as_theory_says(noise):
    """raw = sqrt(reliability) of a noise-free model, reliability = 1 / (1 + noise^2 / repeats)."""
    (one,), _ = predictivity({"middle": network()["middle"]}, recorded(noise=noise), splits=4)
    expected = reliability_of(noise)
    assert median(one.reliability) == pytest.approx(expected, abs=0.04)
    assert median(one.raw) == pytest.approx(expected**0.5, abs=0.05)
    assert median(one.ceiling) == pytest.approx(expected**0.5, abs=0.03)
    assert median(one.corrected) == pytest.approx(expected**-0.5, abs=0.12)
    assert one.corrected == pytest.approx(one.raw / one.reliability)


def test_permuted_responses_score_nothing():
    made = recorded()
    order = np.random.default_rng(5).permutation(IMAGES)
    permuted = Assembly(made.responses[order], LABELS, made.sites)
    scores, _ = predictivity(network(), permuted, splits=4)
    assert all(abs(median(one.raw)) < 0.12 for one in scores)


def test_missing_trials_and_constant_sites_are_handled_and_said():
    made = recorded(noise=0.3)
    responses = made.responses.copy()
    responses[3, 2, 0] = np.nan  # a trial
    responses[:10, :, 1] = np.nan  # ten images of one site
    responses[:, :, 2] = 4.0  # a site that never changes
    responses[:, :, 3] = np.nan  # nothing
    (one, *_), notes = predictivity(network(), Assembly(responses, LABELS, made.sites))
    assert np.isnan(one.raw[2:4]).all() and np.isfinite(np.delete(one.raw, [2, 3])).all()
    said = "; ".join(notes)
    assert "sites site2, site3: constant, or too few images; no score" in said
    assert f"{1 + 10 * REPEATS + IMAGES * REPEATS} trials" in said and "2 sites lack images" in said
    whole, _ = predictivity(network(), made)
    assert one.raw[4:] == pytest.approx(whole[0].raw[4:])
    assert one.raw[0] == pytest.approx(whole[0].raw[0], abs=0.02)


def test_one_repeat_has_no_reliability():
    made = recorded()
    single = Assembly(made.responses[:, :1], LABELS, made.sites)
    scores, notes = predictivity(network(), single)
    assert np.isnan(scores[0].corrected).all() and np.isfinite(scores[0].raw).all()
    assert any("one repeat" in note for note in notes)


def test_images_are_divided_within_each_category():
    trained, tested = divide(LABELS, np.random.default_rng(0))
    assert sorted([*trained, *tested]) == list(range(IMAGES))
    assert np.bincount(LABELS[trained]).tolist() == [15] * CATEGORIES
    assert np.bincount(LABELS[tested]).tolist() == [5] * CATEGORIES
    few = divide(np.array(["a", "a", "b", "b", "b"]), np.random.default_rng(0))
    assert [len(part) for part in few] == [3, 2]


def test_correlation_and_reliability_are_exact_where_they_are_known():
    a = np.array([[1.0, 5.0, 1.0], [2.0, 5.0, 2.0], [4.0, 5.0, np.nan], [3.0, 5.0, 3.0]])
    b = np.array([[2.0, 1.0, -1.0], [4.0, 2.0, -2.0], [8.0, 3.0, 0.0], [6.0, 1.0, -3.0]])
    found = correlation(a, b)
    assert found[0] == pytest.approx(1.0) and found[2] == pytest.approx(-1.0)
    assert np.isnan(found[1])
    same = np.repeat(np.arange(6.0)[:, None, None], 4, axis=1)
    assert split_half_reliability(same, np.random.default_rng(0)) == pytest.approx([1.0])


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int16"])
@pytest.mark.parametrize("offset", [0.0, 3000.0, 1e8])
def test_correlation_is_pearsons_for_numbers_of_any_kind_and_size(kind, offset):
    kind = "float64" if offset == 1e8 else kind  # the others have no such number
    generator = np.random.default_rng(0)
    x = 100.0 * generator.standard_normal((50, 3)) + offset
    y = x + 100.0 * generator.standard_normal((50, 3))
    x, y = x.astype(kind), y.astype(kind)
    wanted = [np.corrcoef(x[:, i].astype(float), y[:, i].astype(float))[0, 1] for i in range(3)]
    np.testing.assert_allclose(correlation(x, y), wanted, atol=1e-8)
    constant = np.full_like(y, offset + 7)
    assert np.isnan(correlation(x, constant)).all() and np.isnan(correlation(constant, x)).all()


def test_responses_and_features_of_small_floats_score_as_large_ones():
    made, features = recorded(), {"middle": network()["middle"]}
    whole = predictivity(features, made)[0][0]
    small = Assembly(
        (100.0 * made.responses).astype(np.float16), made.categories, made.sites
    )  # whose squares are out of its range
    found = predictivity({"middle": features["middle"].astype(np.float16)}, small)[0][0]
    np.testing.assert_allclose(found.raw, whole.raw, atol=0.01)
    np.testing.assert_allclose(found.reliability, whole.reliability, atol=0.01)


def test_a_site_with_few_trials_is_as_reliable_as_the_halves_that_are_there():
    same = np.repeat(np.arange(12.0)[:, None, None], 4, axis=1)
    same[2:, 0], same[:10, 1] = np.nan, np.nan  # two halves have no three images together
    found = split_half_reliability(same, np.random.default_rng(0))
    assert found == pytest.approx([1.0])


def write(path, made, order="irbs", names=None, **others):
    """An HDF5 file with bins: the response grows over the window, a blank lies under all."""
    shape = np.where((STARTS >= 70) & (STARTS < 170), 1.0 + 0.1 * np.sin(STARTS), 50.0)
    scale = shape[(STARTS >= 70) & (STARTS < 170)].mean()
    values = made.responses[:, :, None] * shape[:, None] / scale + 3.0
    parts = {
        "responses": values.transpose(["irbs".index(axis) for axis in order]),
        "bin_start": STARTS,
        "category": np.array([f"c{label}" for label in LABELS], "S"),
        "site": np.array(made.sites, "S"),
        "blank": np.full((4, len(STARTS), SITES), 3.0),
    } | others
    with h5py.File(path, "w") as file:
        for name, value in parts.items():
            if value is not None:
                file[name] = value
        for dimension, name in zip(file["responses"].dims, names or (), strict=names is not None):
            dimension.label = name
    return path


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("irbs", None),
        ("irbs", ("image", "repeat", "bin", "site")),
        ("sbir", ("neuroid", "time_bin", "presentation", "repetition")),
    ],
)
def test_an_assembly_is_read(tmp_path, order, names):
    made = recorded()
    read = read_assembly(write(tmp_path / "a.h5", made, order, names))
    assert read.responses == pytest.approx(made.responses)
    assert list(read.sites) == made.sites and read.notes == []
    assert read.categories[-1] == "c7"


def test_dimensions_are_named_by_scales_as_netcdf_does(tmp_path):
    path = write(tmp_path / "a.nc", recorded(), "sirb")
    with h5py.File(path, "a") as file:
        for i, name in enumerate(("site_", "image", "repeat", "bin")):
            name = {"site_": "neuroid"}.get(name, name)
            scale = file.create_dataset(name, data=np.arange(file["responses"].shape[i]))
            scale.make_scale(name)
            file["responses"].dims[i].attach_scale(scale)
    assert read_assembly(path).responses == pytest.approx(recorded().responses)


def test_missing_trials_are_nan_or_the_files_own_mark(tmp_path):
    path = write(tmp_path / "a.nc", recorded())
    whole = read_assembly(path).responses
    inside = int(np.searchsorted(STARTS, 100.0))
    with h5py.File(path, "a") as file:
        file["responses"].attrs["_FillValue"] = 9.96921e36
        file["responses"][2, 1, inside, 3] = 9.96921e36  # one bin of a trial
        file["responses"][4, 0, inside, 5] = np.nan
        file["responses"][6, 0, 0, 5] = np.nan  # a bin outside of the window
    read = read_assembly(path).responses
    missing = np.argwhere(np.isnan(read)).tolist()
    assert missing == [[2, 1, 3], [4, 0, 5]]
    assert np.isclose(read, whole).sum() == whole.size - 2


def test_what_an_assembly_lacks_is_said(tmp_path):
    read = read_assembly(write(tmp_path / "a.h5", recorded(), blank=None, category=None))
    assert ["no blank" in read.notes[0], "no category" in read.notes[1]] == [True, True]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            {"responses": np.zeros((3, 4, 5))},
            r"responses .image, repeat, bin, site. in .*\(3, 4, 5\)",
        ),
        ({"bin_start": None}, "no bin_start"),
        ({"bin_start": np.arange(4.0)}, r"bin_start of 27 values"),
        ({"bin_start": STARTS[::-1]}, "ascending bins of one width"),
        ({"bin_start": STARTS**3}, "ascending bins of one width"),
        ({"bin_start": STARTS + 100.0}, "cover 70 to 170 ms in .* from 80 to 350 ms"),
        ({"blank": np.zeros((2, 3, 4))}, r"blank .repeat, 27 bins, 24 sites."),
        ({"category": np.zeros(3)}, "category of 160 values"),
        ({"category": np.where(LABELS == 3, np.nan, LABELS)}, "category of every .*Received: 20 "),
        ({"bin_start": STARTS.astype("S")}, "numbers, ms, as bin_start in .*Received: '-20.0'"),
        ({"bin_start": np.where(STARTS == 0, np.nan, STARTS)}, "ascending bins of one width"),
        ({"responses": np.zeros((160, 2, 0, 24)), "bin_start": np.zeros(0)}, r"\(160, 2, 0, 24\)"),
        ({"responses": np.zeros((0, 2, 27, 24)), "category": np.zeros(0)}, r"\(0, 2, 27, 24\)"),
        ({"responses": np.zeros((160, 0, 27, 24))}, r"\(160, 0, 27, 24\)"),
        ({"responses": np.full((160, 2, 27, 24), b"x")}, "responses of numbers, .*S1"),
    ],
)
def test_a_file_that_is_no_assembly_is_refused(tmp_path, others, message):
    path = write(tmp_path / "a.h5", recorded(), **others)
    with pytest.raises(AssemblyError, match=f"Expected.*{message}"):
        read_assembly(path)


def test_files_of_another_kind_are_refused(tmp_path):
    to_h5(tmp_path / "group.h5", **{"responses/x": np.zeros(3)})
    with pytest.raises(AssemblyError, match="Expected responses .*Received: responses$"):
        read_assembly(tmp_path / "group.h5")
    (tmp_path / "classic.nc").write_bytes(b"CDF\x01 and so on")
    with pytest.raises(AssemblyError, match="nccopy -k nc4"):
        read_assembly(tmp_path / "classic.nc")
    np.savez(tmp_path / "f.npz", layer=np.zeros((3, 2)))
    with pytest.raises(AssemblyError, match=r"160 images, features. of layer .*\(3, 2\)"):
        read_features(tmp_path / "f.npz", IMAGES)
    with pytest.raises(AssemblyError, match=r"Expected a .npz or an HDF5 file"):
        read_features(tmp_path / "classic.nc", IMAGES)


def test_a_blank_that_is_missing_and_names_of_other_kinds(tmp_path):
    made = recorded()
    blank = np.full((4, len(STARTS), SITES), 3.0)
    blank[:, :, 2] = np.nan
    read = read_assembly(write(tmp_path / "a.h5", made, blank=blank, site=np.arange(SITES) + 7))
    assert "no blank of 1 sites" in read.notes[0] and read.sites[:2] == ["7", "8"]
    assert read.responses[:, :, 2] == pytest.approx(made.responses[:, :, 2] + 3.0)
    names = np.array([f"s\xe9{i}".encode("latin1") for i in range(SITES)])
    assert read_assembly(write(tmp_path / "a.h5", made, site=names)).sites[1] == "s\ufffd1"


# Files of features: how they are written, and what is said of them.
FEATURES = {
    "cut.npz": (lambda p: p.write_bytes(saved(layer=np.zeros((IMAGES, 2)))[:300]), "cut.npz, File"),
    "empty.npz": (lambda p: p.write_bytes(b""), "Expected a .npz or an HDF5 file"),
    "objects.npz": (lambda p: p.write_bytes(saved(a=np.array([{}] * IMAGES))), "Object arrays"),
    "complex.npz": (lambda p: p.write_bytes(saved(a=np.zeros((IMAGES, 2)) * 1j)), "complex128"),
    "nothing.npz": (lambda p: p.write_bytes(saved()), "a layer's features in .*Received: none"),
    "none.npz": (lambda p: None, "none.npz, no such file"),
    "none.h5": (lambda p: None, "none.h5, no such file"),
    "folder.h5": (lambda p: p.mkdir(), "folder.h5, a folder"),
    "scalar.h5": (lambda p: to_h5(p, layer=1.0), r"features. of layer in .*Received: shape \(\)"),
    "group.h5": (lambda p: to_h5(p, **{"a/b": np.zeros(3)}), r"of a/b in .*shape \(3,\)"),
}


def saved(**arrays):
    held = io.BytesIO()
    np.savez(held, **arrays)
    return held.getvalue()


def to_h5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


@pytest.mark.parametrize("name", FEATURES)
def test_files_that_hold_no_features(name, tmp_path):
    lay, message = FEATURES[name]
    lay(tmp_path / name)
    with pytest.raises(AssemblyError, match=message) as caught:
        read_features(tmp_path / name, IMAGES)
    assert "\n" not in str(caught.value)


def test_features_in_groups_and_of_any_kind_of_number(tmp_path):
    x = np.arange(2.0 * IMAGES).reshape(IMAGES, 2)
    to_h5(tmp_path / "f.h5", **{"block1/conv": x, "block1/relu": x > 3, "out": x.astype(int)})
    found = read_features(tmp_path / "f.h5", IMAGES)
    assert sorted(found) == ["block1/conv", "block1/relu", "out"]
    assert all(values.shape == (IMAGES, 2) for values in found.values())


def test_a_layer_without_a_score_is_named():
    layers = {"same": np.ones((IMAGES, 3)), "late": network()["late"]}
    scores, notes = predictivity(layers, recorded("late"), 3)
    assert best(scores).layer == "late" and "no score of same: the features do not vary" in notes[0]
    layers["late"][0] = np.nan
    with pytest.raises(ValueError, match="'late'.*with NaN or infinite numbers"):
        predictivity(layers, recorded("late"), 3)


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_the_command_names_the_best_layer(tmp_path, capsys, ending):
    assembly = write(tmp_path / "a.h5", recorded("late"))
    features = tmp_path / f"f.{ending}"
    layers = {name: x.reshape(IMAGES, 2, 4) for name, x in network().items()}
    if ending == "npz":
        np.savez(features, **layers)
    else:
        with h5py.File(features, "w") as file:
            for name, x in layers.items():
                file[name] = x
    arguments = [f"--assembly={assembly}", f"--features={features}", f"--outdir={tmp_path}"]
    assert command.main(["figures", "--figure=predictivity", "--format=png", *arguments]) == 0
    assert "best layer: late" in capsys.readouterr().err
    rows = read_table(tmp_path / "predictivity.csv")
    assert {r["layer"] for r in rows if r["best"] == "True"} == {"late"} and len(rows) == 6


def test_a_file_that_is_not_given(tmp_path, capsys):
    assert command.main(["figures", "--figure=predictivity", f"--outdir={tmp_path}"]) == 1
    assert "Expected --assembly=FILE" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "said"), [(99, "'99'"), ("face", "'face'")])
def test_a_category_of_one_image_is_refused(name, said):
    made = recorded()
    alone = Assembly(made.responses, np.array([name, *LABELS[1:]]), made.sites)
    message = f"at least two images of every category.*Received: 1 of {said}"
    with pytest.raises(ValueError, match=message):
        predictivity(network(), alone)


def test_fewer_components_than_asked_for_are_said():
    made = recorded("late")
    few = Assembly(made.responses[:8], np.zeros(8), made.sites)
    scores, notes = predictivity({"late": network()["late"][:8]}, few, 25)
    assert "5 components, not 25, are fitted to 6 images" in notes
    assert len(scores) == 1


@pytest.mark.parametrize(
    ("pixels", "refused"),
    [(np.full((2, 4, 4, 1), 255, "uint8"), True), (np.ones((2, 4, 4, 1), "uint8"), False),
     (np.full((2, 4, 4, 1), 2.5), False), (np.full((2, 4, 4, 1), 255.0), True),
     (np.linspace(0.0, 255.0, 32).reshape(2, 4, 4, 1), True),
     (np.arange(32.0).reshape(2, 4, 4, 1) / 16.0, False), (np.zeros((2, 4, 4, 1)), False)],
)  # fmt: skip
def test_pixels_as_files_have_them_are_not_as_a_network_takes_them(pixels, refused, tmp_path):
    to_h5(tmp_path / "a.h5", pixels=pixels)
    if refused:
        with pytest.raises(AssemblyError, match="Received: numbers up to 255. Divide them by 255"):
            read_images(tmp_path / "a.h5")
    else:
        assert read_images(tmp_path / "a.h5").max() == pixels.max()
