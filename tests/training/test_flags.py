"""Flags that make no sense are refused by name, before TensorFlow is imported."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags as absl_flags

from neural_alignment import alignments, config
from neural_alignment.config import UsageError

ROOT = pathlib.Path(__file__).parents[2]


def parse(*arguments: str) -> absl_flags.FlagValues:
    fv = absl_flags.FlagValues()
    config.define_flags(fv)
    fv(["train.py", *arguments])
    config.validate(fv)
    return fv


MIRROR = "--alignment=mirror"
TWO = ("--alignment=symmetric", "--alignment_optimizer=adam")
FALLING = "--constant_lr=false"
NO_LOSS = ("--alignment=kolen_pollack", "--decay_coef=0")

# The flag that the message must name first, and the command line.
WRONG = [
    # unknown values
    ("dataset", ["--dataset=digit"]),
    ("model", ["--model=resnet19"]),
    ("alignment", ["--alignment=feedbak"]),
    ("optimizer", ["--optimizer=sgd"]),
    ("alignment_optimizer", [MIRROR, "--alignment_optimizer=sgd"]),
    ("strategy", ["--strategy=all"]),
    ("dtype", ["--dtype=float16"]),
    ("loss", ["--loss=hinge"]),
    ("preprocessing", ["--preprocessing=vgg"]),
    ("shard_by", ["--shard_by=example"]),
    ("shortcut", ["--shortcut=none"]),
    ("grad_clipping_method", ["--grad_clip", "--grad_clipping_method=both"]),
    ("noisy_opt_distribution", ["--use_noisy_global_opt", "--noisy_opt_distribution=cauchy"]),
    ("input_distribution", [MIRROR, "--input_distribution=cauchy"]),
    ("amp_coef_schedule_type", [MIRROR, "--amp_coef_schedule_type=cyclic"]),
    # out of range
    ("seed", ["--seed=-1"]),
    ("seed", ["--seed=2147483648"]),
    ("train_epochs", ["--train_epochs=0"]),
    ("train_epochs", ["--train_epochs=nan"]),
    ("max_epochs", ["--max_epochs=-1"]),
    ("train_batch_size", ["--train_batch_size=0"]),
    ("eval_batch_size", ["--eval_batch_size=0"]),
    ("minibatch_size", ["--minibatch_size=0"]),
    ("epochs_per_checkpoint", ["--epochs_per_checkpoint=0"]),
    ("checkpoint_max", ["--checkpoint_max=0"]),
    ("load_step", ["--load_checkpoint=run", "--load_step=-1"]),
    ("image_size", ["--image_size=0"]),
    ("max_bad_records", ["--max_bad_records=-1"]),
    ("shuffle_buffer", ["--shuffle_buffer=0"]),
    ("num_classes", ["--num_classes=1"]),
    ("num_train", ["--num_train=0"]),
    ("num_validation", ["--num_validation=0"]),
    ("layers_list", ["--layers_list=64,-3"]),
    ("layers_list", ["--layers_list=64,x"]),
    ("filters_list", ["--model=conv", "--filters_list=0"]),
    ("kernels_list", ["--model=conv", "--kernels_list=1.5"]),
    ("l2", ["--l2=-1"]),
    ("kernel_scale", ["--kernel_scale=0"]),
    ("bias_rate", ["--bias_rate=-1"]),
    ("learning_rate", ["--learning_rate=-0.1"]),
    ("learning_rate", ["--learning_rate=inf"]),
    ("alignment_learning_rate", [*TWO, "--alignment_learning_rate=-1"]),
    ("warmup_epochs", [FALLING, "--warmup_epochs=-1"]),
    (
        "alignment_warmup_epochs",
        [*TWO, "--alignment_constant_lr=false", "--alignment_warmup_epochs=-1"],
    ),
    ("drops", [FALLING, "--drops=60,30"]),
    ("drops", [FALLING, "--drops=30,30"]),
    ("drops", [FALLING, "--drops=0"]),
    ("drops", [FALLING, "--drops=soon"]),
    ("alignment_drops", [*TWO, "--alignment_constant_lr=false", "--alignment_drops=3,2"]),
    ("drop", ["--manual_lr", "--drop=-1"]),
    ("boundary_step", ["--manual_lr", "--drop=1", "--boundary_step=-1"]),
    ("base_batch_size", ["--rescale_lr", "--base_batch_size=0"]),
    ("grad_clipping_value", ["--grad_clip", "--grad_clipping_value=0"]),
    ("noisy_opt_variance", ["--use_noisy_global_opt", "--noisy_opt_variance=-1"]),
    ("noisy_global_opt_variance", ["--use_noisy_global_opt", "--noisy_global_opt_variance=-1"]),
    (
        "noisy_alignment_opt_variance",
        [*TWO, "--use_noisy_alignment_opt", "--noisy_alignment_opt_variance=-1"],
    ),
    ("loss_rate", ["--loss_rate=-1"]),
    ("alignment_rate", [MIRROR, "--alignment_rate=-1"]),
    ("delay_epochs", [MIRROR, "--delay_epochs=-1"]),
    ("alternate_step_freq", [MIRROR, "--alternate_step_freq=0"]),
    ("iterations_per_loop", ["--iterations_per_loop=0"]),
    ("logical_cpus", ["--strategy=mirrored", "--logical_cpus=0"]),
    ("amp_coef", [MIRROR, "--amp_coef=nan"]),
    ("input_stddev", [MIRROR, "--input_distribution=normal", "--input_stddev=-1"]),
    ("density", ["--alignment=feedback", "--density=0"]),
    ("decay_coef_start", [MIRROR, "--decay_coef_start=-0.1"]),
    ("decay_coef_stop", [MIRROR, "--decay_coef_stop=1.5"]),
    ("decay_coef_stop", [MIRROR, "--decay_coef_start=0.6", "--decay_coef_stop=0.5"]),
    (
        "decay_coef_cycle",
        [
            MIRROR,
            "--decay_coef_cycle=0",
            "--decay_coef_schedule_type=linear",
            "--decay_coef_schedule_rate=1",
        ],
    ),
    # combinations without sense
    ("augment", ["--augment"]),
    ("data_dir", ["--dataset=digits", "--data_dir=data"]),
    ("num_train", ["--dataset=cifar10", "--num_train=100"]),
    ("alternate_step_freq", ["--alternate_step_freq=1"]),
    ("alternate_step_freq", ["--alignment=backprop", "--alternate_step_freq=1"]),
    ("alternate_step_freq", ["--alignment=feedback", "--alternate_step_freq=1"]),
    ("delay_epochs", ["--alignment=backprop", "--delay_epochs=1"]),
    ("alignment_optimizer", ["--alignment=backprop", "--alignment_optimizer=adam"]),
    ("alignment_optimizer", ["--alignment=feedback", "--alignment_optimizer=adam"]),
    ("alignment_optimizer", ["--alignment=sign_symmetry", "--alignment_optimizer=adam"]),
    ("alignment_optimizer", [*NO_LOSS, "--alignment_optimizer=gd"]),
    ("alignment_optimizer", [*NO_LOSS, "--decay_coef_stop=0.5", "--alignment_optimizer=gd"]),
    ("delay_epochs", [*NO_LOSS, "--alignment_rate=3", "--delay_epochs=1"]),
    ("alignment_rate", [*NO_LOSS, "--alignment_rate=3"]),
    ("alignment_rate", ["--alignment=backprop", "--alignment_rate=2"]),
    ("amp_coef", ["--alignment=backprop", "--amp_coef=1"]),
    ("amp_coef", ["--alignment=symmetric", "--amp_coef=1"]),
    ("amp_coef_stop", ["--alignment=symmetric", "--amp_coef_stop=0.5"]),
    ("use_sparse", [MIRROR, "--use_sparse"]),
    ("input_stddev", [MIRROR, "--input_distribution=none", "--input_stddev=0.5"]),
    ("input_stddev", ["--alignment=activation", "--input_stddev=0.5"]),
    ("activation_fn_override", [MIRROR, "--activation_fn_override=relu"]),
    ("decay_coef_schedule_type", [MIRROR, "--decay_coef_cycle=2"]),
    ("decay_coef_schedule_type", [MIRROR, "--decay_coef_schedule_rate=2"]),
    ("decay_coef_schedule_rate", [MIRROR, "--decay_coef_schedule_type=linear"]),
    ("alignment_learning_rate", [MIRROR, "--alignment_learning_rate=1"]),
    ("alignment_rescale_lr", [MIRROR, "--alignment_rescale_lr"]),
    ("alignment_constant_lr", [MIRROR, "--alignment_constant_lr=false"]),
    ("alignment_warmup_epochs", [MIRROR, "--alignment_warmup_epochs=1"]),
    ("alignment_drops", [MIRROR, "--alignment_drops=3"]),
    ("alignment_manual_lr", [MIRROR, "--alignment_manual_lr"]),
    ("use_noisy_alignment_opt", [MIRROR, "--use_noisy_alignment_opt"]),
    ("warmup_epochs", ["--warmup_epochs=2"]),
    ("drops", ["--drops=10"]),
    ("alignment_warmup_epochs", [*TWO, "--alignment_warmup_epochs=2"]),
    ("alignment_drops", [*TWO, "--alignment_drops=2"]),
    ("manual_lr", ["--drop=1", "--boundary_step=5"]),
    ("boundary_step", ["--manual_lr", "--drop=1"]),
    ("boundary_step", ["--manual_lr", "--boundary_step=10"]),
    ("constant_lr", ["--manual_lr", FALLING]),
    ("base_batch_size", ["--base_batch_size=128"]),
    *(
        (flag, ["--alignment=product", "--factored=false", *given])
        for flag, given in (
            ("optimizer", ["--optimizer=adam"]),
            ("alignment_optimizer", ["--alignment_optimizer=rmsprop"]),
            ("grad_clip", ["--grad_clip"]),
            ("use_noisy_global_opt", ["--use_noisy_global_opt"]),
            ("density=1", ["--density=0.5"]),
        )
    ),
    *(
        (flag, ["--bias_rate=0.5", *given])
        for flag, given in (
            ("optimizer", ["--optimizer=adam"]),
            ("grad_clip", ["--grad_clip"]),
            ("use_noisy_global_opt", ["--use_noisy_global_opt"]),
        )
    ),
    ("shuffle", ["--dataset=imagenet", "--noshuffle"]),
    ("kernel_scale", ["--model=resnet20", "--kernel_scale=0.5"]),
    ("grad_clipping_value", ["--grad_clipping_value=2"]),
    ("grad_clipping_method", ["--grad_clipping_method=value"]),
    ("noisy_opt_variance", ["--noisy_opt_variance=2"]),
    ("noisy_opt_distribution", ["--noisy_opt_distribution=uniform"]),
    ("noisy_global_opt_variance", ["--noisy_global_opt_variance=2"]),
    ("noisy_alignment_opt_distribution", [*TWO, "--noisy_alignment_opt_distribution=normal"]),
    (
        "noisy_opt_variance",
        ["--use_noisy_global_opt", "--noisy_global_opt_variance=1", "--noisy_opt_variance=2"],
    ),
    ("minibatch_size", ["--train_batch_size=64", "--minibatch_size=48"]),
    ("max_epochs", ["--train_epochs=5", "--max_epochs=6"]),
    ("load_step", ["--load_step=5"]),
    ("tpu_name", ["--strategy=mirrored", "--tpu_name=local"]),
    ("tpu_zone", ["--tpu_zone=europe-west4-a"]),
    ("gcp_project", ["--strategy=one_device", "--gcp_project=mine"]),
    ("gpu", ["--strategy=tpu", "--gpu=0"]),
    ("gpu", ["--strategy=one_device", "--gpu=0,1"]),
    ("logical_cpus", ["--logical_cpus=2"]),
    ("gpu", ["--strategy=mirrored", "--logical_cpus=2", "--gpu=0"]),
    ("workdir", ["--workdir=gs://bucket/run"]),
    ("jit_compile", ["--jit_compile=sometimes"]),
]


@pytest.mark.parametrize(
    ("flag", "arguments"), WRONG, ids=[" ".join(arguments) for _, arguments in WRONG]
)
def test_refused_by_name(flag, arguments):
    with pytest.raises((UsageError, absl_flags.Error)) as raised:
        parse(*arguments)
    message = str(raised.value)
    assert flag in message.partition("Received")[0]
    if isinstance(raised.value, UsageError):
        assert "xpected " in message and "Received: " in message


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([], "auto"),
        (["--jit_compile=auto"], "auto"),
        (["--jit_compile"], "true"),
        (["--jit_compile", "--seed=1"], "true"),
        (["--jit_compile=true"], "true"),
        (["--jit_compile=True"], "true"),
        (["--jit_compile=1"], "true"),
        (["--nojit_compile"], "false"),
        (["--jit_compile=false"], "false"),
        (["--jit_compile=0"], "false"),
    ],
)
def test_a_switch_is_a_boolean_too(given, read):
    settings = config.read(parse(*given))
    assert settings.devices.jit_compile == read
    line = config.flag_lines(settings).get("jit_compile")
    assert line == (None if read == "auto" else f"--jit_compile={read}")


ACCEPTED = [
    [],
    ["--alignment=backprop"],
    [*TWO, "--delay_epochs=2", "--alternate_step_freq=1", "--alignment_rate=0.5"],
    [*TWO, "--alignment_constant_lr=false", "--drops=4,8", "--alignment_warmup_epochs=0"],
    [FALLING, "--drops=", "--warmup_epochs=0"],
    ["--manual_lr", "--warmup_epochs=2", "--drop=1", "--boundary_step=100"],
    ["--rescale_lr", "--base_batch_size=128"],
    ["--use_noisy_global_opt", "--noisy_opt_variance=0.1", "--noisy_opt_distribution=uniform"],
    [*TWO, "--use_noisy_alignment_opt", "--noisy_alignment_opt_variance=0"],
    [
        MIRROR,
        "--decay_coef=0.1",
        "--decay_coef_start=0.5",
        "--decay_coef_stop=0.5",
        "--decay_coef_schedule_type=exponential",
        "--decay_coef_schedule_rate=-0.1",
        "--decay_coef_cycle=3",
    ],
    [
        *NO_LOSS,
        "--decay_coef_schedule_type=linear",
        "--decay_coef_schedule_rate=0.1",
        "--alignment_optimizer=gd",
    ],
    [MIRROR, "--input_stddev=0.5"],
    [MIRROR, "--activation_backward", "--activation_fn_override=relu"],
    [*TWO, "--bias_rate=0", "--use_noisy_alignment_opt"],
    ["--train_epochs=2.5", "--max_epochs=2.5"],
    ["--strategy=mirrored", "--logical_cpus=2"],
    ["--workdir=/mnt/bucket/run", "--dataset=imagenet", "--data_dir=gs://bucket/data"],
    ["--tpu_name=mine", "--tpu_zone=z", "--gcp_project=p"],
]


@pytest.mark.parametrize("arguments", ACCEPTED, ids=" ".join)
def test_accepted(arguments):
    parse(*arguments)


@pytest.mark.parametrize("rule", alignments.names())
def test_every_option_of_every_rule_at_its_default(rule):
    lines = [f"--alignment={rule}"]
    made = alignments.get(rule)
    for name in made.option_names():
        if getattr(made, name) is not None:
            lines.append(f"--{name}={getattr(made, name)}")
    if "input_distribution" in made.option_names():
        lines.append("--input_distribution=normal")
    parse(*lines)


@pytest.mark.parametrize("preset", config.preset_names())
def test_presets(preset):
    config.validate(config.parsed(config.expand(["train.py", f"--preset={preset}"])))


def test_unknown_preset():
    with pytest.raises(UsageError, match="--preset: expected one of .*Received: 'none'"):
        config.expand(["train.py", "--preset", "none"])


def test_flags_of_a_run_come_first(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    lines = ["--seed=3", "--load_checkpoint=elsewhere", "--load_step=4", "--layers_list=7"]
    (tmp_path / "flags.cfg").write_text("\n".join(lines))
    for arguments in (
        [f"--load_checkpoint={tmp_path}", "--seed=5"],
        ["--load_checkpoint", str(tmp_path), "--seed=5"],
        [f"--load_checkpoint={tmp_path}/checkpoints/step-000000001", "--seed=5"],
    ):
        fv = config.parsed(config.with_flags_of_run(["evaluate.py", *arguments]))
        assert fv["seed"].value == 5
        assert fv["layers_list"].value == ["7"]
        assert fv["load_step"].value is None
        assert fv["load_checkpoint"].value.startswith(str(tmp_path))
    assert config.with_flags_of_run(["evaluate.py", "--load_checkpoint=x"]) == [
        "evaluate.py",
        "--load_checkpoint=x",
    ]


def script(name: str, *arguments: str, cwd: pathlib.Path) -> subprocess.CompletedProcess:
    """Runs a script where an import of TensorFlow or Keras would fail."""
    blocked = cwd / "blocked"
    for module in ("tensorflow", "keras"):
        (blocked / module).mkdir(parents=True, exist_ok=True)
        (blocked / module / "__init__.py").write_text(f"raise AssertionError('{module} imported')")
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": f"{blocked}{os.pathsep}{ROOT}"},
    )


HELP = {
    # A flag that the short help has, and one that only the whole has.
    "train.py": ("--alignment=", "--decay_coef_start="),
    "evaluate.py": ("--load_checkpoint=", "--decay_coef_start="),
    "search.py": ("--space=", "--startup_trials="),
}


@pytest.mark.parametrize("name", HELP)
@pytest.mark.parametrize("asked", ["-h", "--help", "--helpfull"])
def test_help_in_groups_needs_no_tensorflow(name, asked, tmp_path):
    shown = script(name, "--seed=wrong", asked, cwd=tmp_path)
    main, other = HELP[name]
    assert shown.returncode == 0 and not shown.stderr
    assert main in shown.stdout and "\n\n" in shown.stdout
    assert (other in shown.stdout) == (asked == "--helpfull")
    lines = shown.stdout.splitlines()
    assert asked == "--helpfull" or len(lines) < 120
    assert max(map(len, lines)) <= 100


def test_help_has_every_flag(tmp_path):
    fv = absl_flags.FlagValues()
    config.define_flags(fv)
    shown = script("train.py", "--helpfull", cwd=tmp_path).stdout
    assert [name for name in fv if not re.search(rf"--(\[no\])?{name}\b", shown)] == []


@pytest.mark.parametrize(
    ("flag", "arguments"),
    [
        ("alternate_step_freq", ["--alignment=backprop", "--alternate_step_freq=1"]),
        ("train_batch_size", ["--train_batch_size=many"]),
        ("no_such_flag", ["--no_such_flag=1"]),
        ("preset", ["--preset=none"]),
        ("flags only", ["digits"]),
    ],
)
def test_script_refuses_before_tensorflow_and_leaves_nothing(flag, arguments, tmp_path):
    done = script("train.py", *arguments, "--workdir=run", cwd=tmp_path)
    assert done.returncode != 0
    assert flag in done.stderr
    assert "Traceback" not in done.stderr and "imported" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_evaluate_wants_a_checkpoint(tmp_path):
    done = script("evaluate.py", "--load_step=3", cwd=tmp_path)
    assert done.returncode == 2
    assert "load_step" in done.stderr
