"""docs/flags.md: every flag of the original, and what became of it."""

import re

import pytest
from absl import flags

from neural_alignment import alignments, config
from neural_alignment.config import groups
from tests.docs.pages import ROOT, quoted, tables
from tests.parity import rules

PAGE = ROOT / "docs" / "flags.md"
HEAD = "| original | ours | |"
# The flags of the original training script.
ORIGINAL = """
    gcp_project tpu_zone tpu_name num_shards iterations_per_loop data_dir cache_dir
    checkpoint_max gpu port dbname exp_id_suffix skip_check validate_first do_restore load_step
    load_db load_port load_dbname load_collname load_exp_id load_checkpoint val_exp_id
    train_epochs train_batch_size minibatch_size eval_batch_size epochs_per_checkpoint
    load_params_file save_params_file save_to_gfs optimizer alignment_optimizer
    use_noisy_global_opt use_noisy_alignment_opt noisy_global_opt_distribution
    noisy_global_opt_variance noisy_alignment_opt_distribution noisy_alignment_opt_variance
    noisy_opt_distribution noisy_opt_variance grad_clip grad_clipping_value grad_clipping_method
    learning_rate alignment_learning_rate rescale_lr alignment_rescale_lr constant_lr
    alignment_constant_lr base_batch_size manual_lr alignment_manual_lr warmup_epochs
    alignment_warmup_epochs drop alignment_drop boundary_step alignment_boundary_step dataset
    image_size model use_resnet_v2 tf_layers layers_list activation regularize_weights_via_model
    alignment save_alignment_coefficients alpha alpha_start alpha_stop alpha_cycle
    alpha_schedule_rate alpha_schedule_type beta beta_start beta_stop beta_cycle
    beta_schedule_rate beta_schedule_type gamma gamma_start gamma_stop gamma_cycle
    gamma_schedule_rate gamma_schedule_type reconstruction_reversal reconstruction_amp
    use_sparse update_forward input_distribution input_stddev use_bias_forward use_bias_backward
    activation_fn_override activation_forward activation_backward bn_trainable
    batch_center_backward_input center_input normalize_input batch_center_forward_output
    center_forward_output normalize_forward_output center_backward_output
    normalize_backward_output loss_rate alignment_rate delay_epochs alternate_step_freq
    constant_rate
""".split()
GONE = "\u2013"


def ours() -> flags.FlagValues:
    fv = flags.FlagValues()
    config.define_flags(fv)
    return fv


def expanded(cell: str) -> list[str]:
    """The flags in a cell; NAME stands for each coefficient."""
    match = re.fullmatch(r"NAME(?:`(\w+)`)?", cell)
    if not match:
        return quoted(cell)
    return [name + (match[1] or "") for name in groups.coefficient_names()]


def test_the_original_has_112_flags():
    assert len(ORIGINAL) == len(set(ORIGINAL)) == 112


def test_every_flag_of_the_original_has_one_row():
    named = [name for row in tables(PAGE)[HEAD] for name in quoted(row[0])]
    assert sorted(named) == sorted(ORIGINAL)


@pytest.mark.parametrize("row", tables(PAGE)[HEAD], ids=lambda row: row[0].replace("`", ""))
def test_what_became_of_it(row):
    _, cell, why = row
    if cell == GONE:
        assert why, "says why it went"
        return
    assert expanded(cell), cell
    assert set(expanded(cell)) <= set(ours())


def test_a_name_that_stayed_is_not_given_another():
    kept = set(ours())
    for original, cell, _ in tables(PAGE)[HEAD]:
        for name in quoted(original):
            if name in kept:
                assert expanded(cell) == [name]


def test_coefficients_are_those_of_the_parity_vectors():
    head = "| rule | `alpha` | `beta` | `gamma` |"
    for name, *cells in tables(PAGE)[head]:
        greek = zip(("alpha", "beta", "gamma"), cells, strict=True)
        assert {key: quoted(cell)[0] for key, cell in greek if cell} == rules.COEFFICIENTS[name]
    mapped = {name for name, *_ in tables(PAGE)[head]}
    assert mapped == {name for name, greek in rules.COEFFICIENTS.items() if greek}


def spelled(value) -> tuple[str, ...]:
    """How a page may write a default."""
    if isinstance(value, bool):
        return ("yes",) if value else ("no",)
    if isinstance(value, float | int):
        return (f"{value:g}",)
    return ("none", "all") if value is None else (value,)


def test_other_defaults_are_what_the_page_on_differences_says():
    rows = tables(ROOT / "docs" / "differences.md")["| flag | original | here | reason |"]
    fv = ours()
    for flag, original, here, _ in rows:
        name = quoted(flag)[0]
        assert name in ORIGINAL
        assert here in spelled(fv[name].default), flag
        assert original != here


def test_rules_that_the_original_lacks():
    new = set(alignments.names()) - set(rules.COEFFICIENTS)
    text = (ROOT / "docs" / "differences.md").read_text().rpartition("\n## ")[2]
    named = {name for name in quoted(text) if name in alignments.names()}
    assert named and named <= new
