"""The registry, options and configs of the rules; what they refuse."""

import dataclasses
import math
import subprocess
import sys

import keras
import numpy as np
import pytest

from neural_alignment import alignments, layers
from tests.layers.conformance import EVERY, rule

COEFFICIENTS = [
    (name, field.name)
    for name in alignments.names()
    for field in dataclasses.fields(alignments.rule(name))
    if field.name.endswith("_coef")
]


def test_the_rules():
    assert set(alignments.names()) >= {
        "activation",
        "direct",
        "feedback",
        "frozen",
        "information",
        "kolen_pollack",
        "mirror",
        "mixed",
        "moving_average",
        "phaseless",
        "product",
        "sign_symmetry",
        "symmetric",
    }
    assert list(alignments.names()) == sorted(alignments.names())


def test_defaults_of_the_coefficients():
    found = {
        name: alignments.get(name).get_config()
        for name in ("symmetric", "activation", "mirror", "information", "kolen_pollack")
    }
    coefficients = {
        name: {key: value for key, value in config.items() if key.endswith("_coef")}
        for name, config in found.items()
    }
    assert coefficients == {
        "symmetric": {"decay_coef": 20.0, "self_coef": 40.0},
        "activation": {"sparse_coef": 0.1, "amp_coef": 0.2},
        "mirror": {"decay_coef": 0.1, "amp_coef": 0.2},
        "information": {"amp_coef": 0.2, "null_coef": 2e-3, "decay_coef": 0.1},
        "kolen_pollack": {"decay_coef": 1e-3},
    }


@pytest.mark.parametrize("variant", EVERY)
def test_configs(variant):
    made = rule(variant)
    config = made.get_config()
    assert set(config) == {field.name for field in dataclasses.fields(made)}
    assert {key: config[key] for key in EVERY[variant]} == EVERY[variant]
    assert type(made).from_config(config) == made
    assert alignments.get(alignments.serialize(made)) == made
    assert made.replace() == made
    assert made != alignments.Feedback(density=0.125)
    assert alignments.get(made) is made


@pytest.mark.parametrize("variant", EVERY)
def test_every_option_has_help_and_no_default_changes_a_rule(variant):
    cls = type(rule(variant))
    for field in dataclasses.fields(cls):
        assert field.metadata["help"]
        assert field.name in "".join(base.__doc__ or "" for base in cls.__mro__), field.name
    assert cls() == alignments.get(cls.name)


def test_backprop_is_none():
    assert alignments.get(None) is None
    assert alignments.get("backprop") is None
    assert alignments.serialize(None) is None


@pytest.mark.parametrize("make", [layers.Dense, lambda n, **kw: layers.Conv2D(n, 3, **kw)])
def test_an_unknown_rule(make):
    with pytest.raises(ValueError) as error:
        make(4, alignment="symetric")
    message = str(error.value)
    assert ", ".join(alignments.names()) in message
    assert "Received: 'symetric' (did you mean 'symmetric'?)" in message


@pytest.mark.parametrize("name", alignments.names())
def test_an_unknown_option(name):
    with pytest.raises(TypeError) as error:
        alignments.get({"name": name, "densty": 0.5})
    message = str(error.value)
    assert repr(name) in message
    assert ", ".join(alignments.rule(name).option_names()) in message
    assert "Received: 'densty' (did you mean 'density'?)" in message
    with pytest.raises(TypeError, match="Expected an option"):
        alignments.get(name).replace(densty=0.5)


@pytest.mark.parametrize("identifier", [3, {"self_coef": 1.0}, ["symmetric"], alignments.Symmetric])
def test_what_is_not_a_rule(identifier):
    with pytest.raises(TypeError, match="Expected a rule's name, a config with a 'name'"):
        layers.Dense(4, alignment=identifier)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "0.1", True, [0.1]])
@pytest.mark.parametrize(("name", "coefficient"), COEFFICIENTS)
def test_a_coefficient_that_is_no_finite_number(name, coefficient, value):
    with pytest.raises(ValueError) as error:
        alignments.get({"name": name, coefficient: value})
    assert str(error.value) == (
        f"Expected a finite number or a schedule (a callable of the global step) for {coefficient} "
        f"of the rule {name!r}. Received: {coefficient}={value!r}"
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *[(n, {"density": d}, "density") for n in alignments.names() for d in (0.0, -0.1, 1.5)],
        ("feedback", {"density": math.nan}, "a finite number for density"),
        ("feedback", {"density": None}, "a finite number for density"),
        ("feedback", {"density": "half"}, "a finite number for density"),
        ("product", {"expansion": 0.5}, "expansion >= 1"),
        ("product", {"expansion": math.inf}, "a finite number for expansion"),
        ("product", {"feedback": "random"}, "one of gaussian, orthogonal, identity for feedback"),
        ("product", {"feedback": None}, "one of gaussian, orthogonal, identity for feedback"),
        ("product", {"feedback": "identity"}, "expansion=1 and density=1 with feedback='identity'"),
        (
            "product",
            {"feedback": "identity", "expansion": 1.0, "density": 0.5},
            "expansion=1 and density=1 with feedback='identity'",
        ),
        ("product", {"feedback": "orthogonal", "density": 0.5}, "density=1"),
        (
            "sign_symmetry",
            {"magnitude": "unifrom"},
            "one of uniform, batch_random, fixed_random for magnitude",
        ),
        *[
            (n, {"input_stddev": s}, "input_stddev")
            for n in ("activation", "mirror", "information")
            for s in (-1.0, math.nan, math.inf, None, "1")
        ],
        ("mirror", {"input_distribution": "gaussian"}, "one of normal, uniform"),
        ("mirror", {"center_input": 1}, "True or False for center_input"),
        ("mirror", {"center_input": None}, "True or False for center_input"),
        ("mirror", {"average_positions": "yes"}, "True or False for average_positions"),
        ("information", {"use_sparse": "yes"}, "True or False for use_sparse"),
        ("mirror", {"activation_fn_override": 3}, "activation_fn_override"),
        ("mirror", {"activation_fn_override": "rleu"}, "for activation_fn_override"),
    ],
)
def test_an_option_out_of_range(name, options, message):
    with pytest.raises(ValueError) as error:
        alignments.get({"name": name, **options})
    assert str(error.value).startswith("Expected ")
    assert message in str(error.value)
    assert "Received: " in str(error.value)


def test_replace_changes_a_copy():
    made = alignments.Mirror()
    changed = made.replace(activation_fn_override="relu")
    assert made.activation_fn_override is None
    assert changed == alignments.Mirror(activation_fn_override="relu")
    assert changed != made


def test_every_activation_that_is_offered_exists():
    for field in dataclasses.fields(alignments.Mirror):
        if field.name == "activation_fn_override":
            for choice in field.metadata["choices"]:
                assert callable(keras.activations.get(choice))


def test_numbers_of_any_kind_are_numbers():
    made = alignments.Symmetric(self_coef=np.float32(0.5), decay_coef=1)
    assert made.replace(self_coef=0.5, decay_coef=1.0) == made


def test_one_object_serves_many_layers_and_cannot_change():
    made = alignments.Symmetric()
    stack = [layers.Dense(3, alignment=made) for _ in range(2)]
    assert stack[0].alignment is stack[1].alignment
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.self_coef = 1.0
    assert hash(made) == hash(alignments.Symmetric())


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="Expected a new name for a rule. Received: 'mirror'"):
        alignments.register("mirror")
    assert alignments.rule("mirror") is alignments.Mirror


def test_a_schedule_without_config_cannot_be_saved():
    made = alignments.Symmetric(self_coef=lambda step: 0.1)
    with pytest.raises(TypeError, match="Expected a schedule with get_config"):
        made.get_config()


def test_schedules_round_trip():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, 10, 0.01)
    made = alignments.Mirror(amp_coef=schedule)
    assert made.has_loss
    again = alignments.get(alignments.serialize(made))
    assert again.get_config() == made.get_config()
    assert float(again.amp_coef(5)) == float(schedule(5))


def test_rules_need_no_tensorflow_to_list_their_options():
    code = (
        "import sys; from neural_alignment import alignments; "
        "[alignments.rule(n).option_names() for n in alignments.names()]; alignments.get('mirror');"
        "sys.exit(sorted({'tensorflow', 'keras'} & set(sys.modules)) != [])"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
