"""The original's rules, coefficients and options in this package's names."""

import re
import warnings

from neural_alignment import alignments

# Which primitive the original's alpha, beta and gamma weigh, rule by rule.
COEFFICIENTS = {
    "symmetric": {"alpha": "decay_coef", "beta": "self_coef"},
    "activation": {"alpha": "sparse_coef", "beta": "amp_coef"},
    "mirror": {"alpha": "decay_coef", "beta": "amp_coef"},
    "information": {"alpha": "amp_coef", "beta": "null_coef", "gamma": "decay_coef"},
    "kolen_pollack": {"alpha": "decay_coef"},
    "feedback": {},
}

# Options that change nothing in the original for rules that look at the kernels only; here such
# rules do not have them.
PROJECTION_OPTIONS = set(alignments.ProjectionAlignment.option_names())


# What the original's options are where a case does not name them.
OFF = {"input_distribution": None, "update_forward": False, "average_positions": False}


def rule(original_name, coefficients=None, options=None, rule_options=None):
    """The rule that the original's class, coefficients and options describe."""
    name = original_name.lower()
    known = set(alignments.rule(name).option_names())
    options = {**(options or {}), **(rule_options or {})}
    unknown = set(options) - PROJECTION_OPTIONS - known
    assert not unknown, f"options that {name} does not have: {unknown}"
    config = {key: value for key, value in (OFF | options).items() if key in known}
    for greek, value in (coefficients or {}).items():
        config[COEFFICIENTS[name][greek]] = value
    with warnings.catch_warnings():  # some cases have random coefficients
        warnings.simplefilter("ignore", alignments.AlignmentWarning)
        return alignments.get({"name": name, **config})


def from_spec(spec):
    """The rule of a case's `alignment_spec`; None is backpropagation."""
    if spec is None or spec["rule"] is None:
        return None
    return rule(spec["rule"], spec["coeffs"], spec["options"], spec.get("rule_options"))


def dense_layout(name, array):
    """Transposes the original's Dense backward kernels, [units, in], and their gradients."""
    is_backward = re.search(r"(backward_kernel(:0)?|(^|_)d?B)$", name) is not None
    return array.T if is_backward and array is not None and array.ndim == 2 else array
