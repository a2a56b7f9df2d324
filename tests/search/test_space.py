"""Spaces: what is in them, what their samples look like, and what is refused."""

import collections
import json
import re

import numpy as np
import pytest
from hyperopt import base, rand
from scipy import stats

from neural_alignment.search import flags as search_flags
from neural_alignment.search import space_file
from neural_alignment.search.plan import Plan
from neural_alignment.search.proposer import expression
from neural_alignment.search.space import SpaceError, random_points, schedule_epochs
from tests.search.support import ROOT, call, fake_space

SAMPLES = 10_000
NOISE = ("uniform", 1e-10, 1.0)
RATIO = ("uniform", 0.1, 200.0)
WEIGHT = ("loguniform", 1e-11, 1e7)
RATE = ("loguniform", 1e-6, 1e-2)
WM = {"input_stddev": NOISE, "amp_over_decay": RATIO, "decay": WEIGHT}
WM_AD = {**WM, "alignment_rate": RATE}
CONTINUOUS = {"wm": WM, "wm_ad": WM_AD, "wm_ad_ops": WM_AD, "ia": {**WM_AD, "null": WEIGHT}}
OPERATIONS = {
    "FO_bias": "use_bias_forward",
    "FO_relu": "activation_forward",
    "FO_bwmc": "batch_center_forward_output",
    "FO_fwmc": "center_forward_output",
    "FO_fwl2n": "normalize_forward_output",
    "BO_bias": "use_bias_backward",
    "BO_relu": "activation_backward",
    "BO_fwmc": "center_backward_output",
    "BO_fwl2n": "normalize_backward_output",
    "BI_bwmc": "batch_center_backward_input",
    "BI_fwmc": "center_input",
    "BI_fwl2n": "normalize_input",
}
DISCRETE = {
    "wm": {},
    "wm_ad": {
        "batch": (256, 1024, 2048, 4096),
        "delay": (0, 1, 2),
        "steps": ("alternate", "simultaneous"),
    },
}
for _name in ("wm_ad_ops", "ia"):
    DISCRETE[_name] = {**DISCRETE["wm_ad"], **dict.fromkeys(OPERATIONS, (False, True))}


def draw(space, number):
    """hyperopt's own random sample: parameter name to values."""
    domain = base.Domain(lambda _: None, expression(space))
    _, values = rand.suggest_batch(range(number), domain, None, seed=1)
    return values


@pytest.mark.parametrize("name", ["wm", "wm_ad", "wm_ad_ops", "ia"])
def test_distributions_of_10000_samples(name):
    space = space_file.load(name)
    values = draw(space, SAMPLES)
    assert set(values) == set(CONTINUOUS[name]) | set(DISCRETE[name])
    for parameter, (distribution, low, high) in CONTINUOUS[name].items():
        drawn = np.asarray(values[parameter])
        assert drawn.min() >= low * (1 - 1e-12) and drawn.max() <= high * (1 + 1e-12)
        if distribution == "loguniform":
            drawn, low, high = np.log(drawn), np.log(low), np.log(high)
        assert stats.kstest(drawn, "uniform", (low, high - low)).pvalue > 1e-4, parameter
    for parameter, options in DISCRETE[name].items():
        counts = np.bincount(values[parameter], minlength=len(options))
        assert len(counts) == len(options)
        assert stats.chisquare(counts).pvalue > 1e-4, parameter


@pytest.mark.parametrize("name", ["wm", "wm_ad", "wm_ad_ops", "ia"])
def test_options(name):
    space = space_file.load(name)
    found = {p.name: tuple(o.value for o in p.options) for p in space.walk() if p.options}
    assert found == DISCRETE[name]
    assert (space.max_epochs, space.schedule_epochs) == (45, 100)
    small = space_file.load(f"{name}_digits")
    assert [p.name for p in small.walk()] == [p.name for p in space.walk()]
    assert small.flags["dataset"] == "digits" and small.flags["model"] == "fc"
    for parameter, other in zip(small.walk(), space.walk(), strict=True):
        assert (parameter.low, parameter.high) == (other.low, other.high)


def test_operations_set_their_flags():
    space = space_file.load("ia")
    settings = next(random_points(space, 1, 0))
    for name, flag in OPERATIONS.items():
        for value in (False, True):
            assert space.training_flags({**settings, name: value})[flag] is value


@pytest.mark.parametrize("name", space_file.names())
def test_every_sample_is_valid_for_the_training_script(name):
    space = space_file.load(name)
    plan = Plan(
        space=space, algorithm="tpe", seed=0, startup_trials=20, max_epochs=space.max_epochs
    )
    rates = set()
    for settings in random_points(space, 50, seed=2):
        assert space.contains(settings)
        flags = plan.trial_flags(settings)
        parsed = search_flags.parse_training_flags(flags)
        assert parsed.amp_coef == pytest.approx(settings["amp_over_decay"] * settings["decay"])
        assert parsed.decay_coef == settings["decay"]
        assert parsed.rescale_lr and not parsed.constant_lr and not parsed.alignment_constant_lr
        stretch = 2 if parsed.alternate_step_freq == 1 else 1
        assert parsed.max_epochs == stretch * space.max_epochs + parsed.delay_epochs
        assert parsed.train_epochs == stretch * space.schedule_epochs + parsed.delay_epochs
        rates.add(parsed.train_batch_size / parsed.base_batch_size * parsed.learning_rate)
        # The delay governs the warm-up of the alignment loss's rate.
        assert (parsed.alignment_warmup_epochs > 0) == (parsed.delay_epochs == 0)
        search_flags.parse_training_flags(plan.final_flags(settings))
    if name in ("wm_ad", "wm_ad_ops", "ia"):
        assert rates == {0.125, 0.5, 1.0, 2.0}
    if name == "wm":
        assert rates == {1.0}


def test_an_invalid_flag_is_refused_by_name():
    data = space_file.load("wm").to_data()
    data["flags"]["null_coef"] = 1.0
    plan = Plan(
        space=space_file.from_data(data), algorithm="tpe", seed=0, startup_trials=1, max_epochs=45
    )
    with pytest.raises(Exception, match="null_coef"):
        search_flags.check_trials(plan)


TABLE_5 = {
    "wm": (2, 2048, 0.6905, 15.6607, 0.0283, None, None, "TTTFF FFFF TFF"),
    "wm_ad": (0, 256, 0.9500, 13.9040, 2.8109e-8, None, 0.0053, "TTTFF FFFF TFF"),
    "wm_ad_ops": (0, 256, 0.6402, 0.1344, 232.7856, None, 0.0025, "TTTTF FTFT TFF"),
    "ia": (1, 256, 0.8176, 129.1123, 7.9990, 3.1610e-6, 0.0098, "TTTTF TFTT FFF"),
}


@pytest.mark.parametrize("name", TABLE_5)
def test_table_5_lies_inside(name):
    delay, batch, stddev, ratio, decay, null, rate, letters = TABLE_5[name]
    operations = {
        operation: letter == "T"
        for operation, letter in zip(OPERATIONS, letters.replace(" ", ""), strict=True)
    }
    settings = {"input_stddev": stddev, "amp_over_decay": ratio, "decay": decay}
    if name != "wm":
        settings |= {"batch": batch, "delay": delay, "steps": "alternate", "alignment_rate": rate}
    if name in ("wm_ad_ops", "ia"):
        settings |= operations
    if null is not None:
        settings["null"] = null
    space = space_file.load(name)
    assert space.contains(settings)
    assert not space.contains({**settings, "decay": 1e8})
    flags = space.training_flags(settings)
    expected = {
        "delay_epochs": delay,
        "train_batch_size": batch,
        "alternate_step_freq": 1,
        "alignment_optimizer": "gd" if name == "wm" else "adam",
        "alignment_learning_rate": 1.0 if name == "wm" else rate,
        "warmup_epochs": 6,
        "drops": "30,60,80",
        "input_distribution": "normal",
        "alignment": "information" if name == "ia" else "mirror",
        "amp_coef": pytest.approx(ratio * decay),
        "learning_rate": 1.0,
        "base_batch_size": 2048,
        "optimizer": "momentum",
        **{OPERATIONS[operation]: value for operation, value in operations.items()},
    }
    assert {flag: flags[flag] for flag in expected} == expected


def tree():
    """A space in which a choice governs other parameters."""
    data = fake_space()
    adam = [{"name": "rate", "distribution": "loguniform", "flag": "rate", "low": 1, "high": 2}]
    gd = [{"name": "drops", "distribution": "integer", "flag": "rate", "low": 3, "high": 5}]
    data["parameters"].append(
        {
            "name": "optimizer",
            "distribution": "choice",
            "flag": "optimizer",
            "options": [
                {"value": "adam", "parameters": adam, "flags": {"warm": 1}},
                {"value": "gd", "parameters": gd},
            ],
        }
    )
    return data


def test_what_a_choice_governs_exists_only_there():
    space = space_file.from_data(tree())
    seen = collections.Counter()
    for settings in random_points(space, 200, seed=0):
        adam = settings["optimizer"] == "adam"
        assert ("rate" in settings) == adam and ("drops" in settings) != adam
        flags = space.training_flags(settings)
        assert ("warm" in flags) == adam
        assert flags["rate"] == settings["rate" if adam else "drops"]
        assert adam or flags["rate"] in (3, 4, 5)
        seen[settings["optimizer"]] += 1
    assert min(seen.values()) > 60
    assert not space.contains({**settings, "rate": 1.5, "drops": 3})
    drawn = draw(space, 1000)
    assert len(drawn["rate"]) + len(drawn["drops"]) == 1000
    counts = collections.Counter(map(int, drawn["drops"]))
    assert set(counts) == {3, 4, 5}
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    assert space_file.from_data(json.loads(json.dumps(space.to_data()))) == space


def test_a_trial_goes_to_the_same_place_of_its_schedule():
    assert schedule_epochs({}, 45) == 45
    assert schedule_epochs({"alternate_step_freq": 1, "delay_epochs": 2}, 45) == 92


def test_files_of_a_user(tmp_path):
    (tmp_path / "base.json").write_text(json.dumps(fake_space(z=1, w=2)))
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nextends = "base.json"\nremove = ["switch", "w"]\nmax_epochs = 1\n'
        '[flags]\nz = 3\n[[parameters]]\nname = "x"\ndistribution = "uniform"\nflag = "x"\n'
        "low = 0\nhigh = 5\n"
    )
    space = space_file.load(str(tmp_path / "mine.toml"))
    assert [p.name for p in space.walk()] == ["x", "y"] and space.flags == {"z": 3}
    assert (space.max_epochs, space.schedule_epochs) == (1, 4)
    assert next(space.walk()).high == 5
    for name in ("base.json", "mine.toml"):  # as an editor of Windows saves them
        text = (tmp_path / name).read_text().replace("\n", "\r\n")
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert space_file.load(str(tmp_path / "mine.toml")) == space


SOMETIMES = {
    "name": "sometimes",
    "distribution": "choice",
    "options": [{"value": "yes", "flags": {"z": 2}}, {"value": "no"}],
}
ELSEWHERE = {
    "name": "elsewhere",
    "distribution": "choice",
    "options": [{"value": "yes", "flags": {"workdir": "/tmp"}}, {"value": "no"}],
}


def test_a_product_with_a_flag_that_is_certain_here():
    data = fake_space()
    inner = {"name": "i", "distribution": "uniform", "flag": "i", "low": 1, "high": 2, "times": "z"}
    data["parameters"].append(
        {
            "name": "sometimes",
            "distribution": "choice",
            "options": [
                {"value": "yes", "flags": {"z": 2}, "parameters": [inner]},
                {"value": "no"},
            ],
        }
    )
    data["parameters"][0].update(times="y")
    space = space_file.from_data(data)
    for settings in random_points(space, 20, seed=0):
        flags = space.training_flags(settings)
        assert flags["x"] == settings["x"] * settings["y"]
        assert flags.get("i") == (2 * settings["i"] if "i" in settings else None)


def test_the_documented_file_is_a_valid_space(tmp_path):
    [block] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "search.md").read_text(), re.S)
    (tmp_path / "mine.toml").write_text(block)
    space = space_file.load(str(tmp_path / "mine.toml"))
    assert {"decay", "input", "input_stddev"} <= {p.name for p in space.walk()}
    plan = Plan(space=space, algorithm="tpe", seed=0, startup_trials=1, max_epochs=space.max_epochs)
    search_flags.check_trials(plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["parameters"][0].update(low=2), r"parameters\[0\] \(x\): Expected low < high"),
        (lambda d: d["parameters"][1].update(low=0), r"\(y\): low: a loguniform needs more than 0"),
        (lambda d: d["parameters"][0].update(high=float("nan")), "Expected a finite number"),
        (lambda d: d["parameters"][0].pop("high"), "needs the bound 'high'"),
        (lambda d: d["parameters"][0].pop("flag"), "the key 'flag' is missing"),
        (lambda d: d["parameters"][0].update(flag="y"), "y sets --y, which is set already"),
        (lambda d: d["parameters"][0].update(name="y"), "two parameters are called 'y'"),
        (lambda d: d["parameters"][0].update(times="q"), "times: Expected.*Received --q"),
        (lambda d: d["parameters"][0].update(times="x"), "times: Expected.*Received --x"),
        (lambda d: d["parameters"][0].update(times="switch"), "times: .*Received --switch"),
        (lambda d: (d["flags"].update(z="2"), d["parameters"][0].update(times="z")), "--z"),
        (
            lambda d: (d["parameters"][0].update(times="y"), d["parameters"][1].update(times="x")),
            "x: times: .*no product itself. Received --y",
        ),
        (
            lambda d: (d["parameters"][0].update(times="z"), d["parameters"].append(SOMETIMES)),
            "x: times: .*wherever x exists.* Received --z",
        ),
        (lambda d: d["flags"].update(max_epochs=1), "Received --max_epochs; leave it out"),
        (lambda d: d["flags"].update(preset="wm"), "Received --preset; leave it out"),
        (lambda d: d["parameters"][0].update(flag="train_epochs"), "Received --train_epochs"),
        (lambda d: d["parameters"].append(ELSEWHERE), "Received --workdir"),
        (lambda d: d["parameters"][0].update(lower=1), "unknown key 'lower'"),
        (lambda d: d["parameters"][0].update(distribution="normal"), "Received 'normal'"),
        (lambda d: d["parameters"][2].update(distribution="choice"), "Expected a list of two"),
        (lambda d: d["parameters"][2].update(low=1), "a boolean has no low"),
        (lambda d: d["flags"].update(x=1), "x sets --x, which is set already"),
        (lambda d: d.update(max_epochs=5), "Expected max_epochs <= schedule_epochs"),
        (lambda d: d.update(parameters=[]), "at least one parameter"),
        (lambda d: d.pop("name"), "the key 'name'"),
        (lambda d: d.update(parameters={}), "Expected a list"),
        (lambda d: d["flags"].update(z=[1]), "Expected a number, a string or a boolean"),
    ],
)
def test_a_wrong_space_is_refused(change, message):
    data = fake_space()
    change(data)
    with pytest.raises(SpaceError, match=message):
        space_file.from_data(data)


def test_a_wrong_file_is_refused(tmp_path):
    with pytest.raises(SpaceError, match="wm_ad_ops.*Received 'wm_add'"):
        space_file.load("wm_add")
    with pytest.raises(SpaceError, match="cannot be read"):
        space_file.load(str(tmp_path / "none.toml"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(SpaceError, match="not valid JSON"):
        space_file.load(str(tmp_path / "bad.json"))
    for text in ("[]", "3", "null"):
        (tmp_path / "list.json").write_text(text)
        with pytest.raises(SpaceError, match="list.json: Expected a table"):
            space_file.load(str(tmp_path / "list.json"))
    (tmp_path / "loop.toml").write_text('extends = "loop.toml"')
    with pytest.raises(SpaceError, match="extends itself"):
        space_file.load(str(tmp_path / "loop.toml"))


def test_the_script_names_the_flag_that_a_space_gets_wrong(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(fake_space()))
    ended = call(f"--space={path}", f"--searchdir={tmp_path / 'search'}")
    assert ended.returncode == 2 and "--space" in ended.stderr and "'x'" in ended.stderr
    assert "Traceback" not in ended.stderr and not (tmp_path / "search").exists()
