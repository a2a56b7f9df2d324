"""The preset files: valid, complete, and with the papers' numbers."""

import subprocess
import sys

import pytest

from neural_alignment import config
from neural_alignment.config import presets
from tests.presets.support import parse

NAMES = config.preset_names()
DIGITS = tuple(name for name in NAMES if name.startswith("digits_"))
SMALL = tuple(name for name in NAMES if name.startswith(("mnist_", "makrout_", "lenet_")))
PUBLISHED = tuple(name for name in NAMES if name not in DIGITS)

WANTED = {
    "symmetric", "activation", "wm", "wm_tpe", "wm_tpe_ad", "wm_tpe_ad_ops", "information_tpe",
    "kolen_pollack", "feedback", "backprop", "noisy_symmetric", "noisy_activation",
    "noisy_kolen_pollack", "product", "product_orthogonal", "sign_symmetry",
}  # fmt: skip

# Written from the papers, not from the files: a preset must have these values.
SCHEDULE = {
    "train_batch_size": 256, "optimizer": "momentum", "learning_rate": 0.1, "rescale_lr": False,
    "constant_lr": False, "warmup_epochs": 5.0, "drops": ["30", "60", "80"], "train_epochs": 90.0,
    "alternate_step_freq": None, "delay_epochs": None,
}  # fmt: skip
R_BY_ADAM = {
    "alignment_optimizer": "adam", "alignment_learning_rate": 0.001, "alignment_constant_lr": True,
}  # fmt: skip
SYMMETRIC = {"alignment": "symmetric", "decay_coef": 1e-3, "self_coef": 2e-3}
ACTIVATION = {
    "alignment": "activation", "sparse_coef": 1e-3, "amp_coef": 2e-3, "use_bias_forward": True,
    "use_bias_backward": True, "activation_forward": False, "activation_backward": False,
    "input_distribution": None,
}  # fmt: skip
KOLEN_POLLACK = {"alignment": "kolen_pollack", "l2": 1e-4, "decay_coef": 5e-5}
NOISY = {**SCHEDULE, "drops": ["30", "60"], "noisy_opt_distribution": "normal"}
PRODUCT = {
    "alignment": "product", "expansion": 10.0, "factored": False, "l2": 1e-4, "decay_coef": 5e-5,
    "optimizer": "momentum", "learning_rate": 0.1, "constant_lr": False, "warmup_epochs": 0.0,
}  # fmt: skip
PRODUCT_IMAGENET = {
    **PRODUCT, "model": "resnet18", "drops": ["20", "40", "60"], "train_epochs": 75.0,
    "train_batch_size": 256,
}  # fmt: skip
PRODUCT_CIFAR = {
    **PRODUCT, "dataset": "cifar10", "model": "resnet20", "drops": ["100", "150"],
    "train_epochs": 200.0, "train_batch_size": 128,
}  # fmt: skip
OPERATIONS = (
    "use_bias_forward", "activation_forward", "batch_center_forward_output",
    "center_forward_output", "normalize_forward_output",
    "use_bias_backward", "activation_backward", "center_backward_output",
    "normalize_backward_output",
    "batch_center_backward_input", "center_input", "normalize_input",
)  # fmt: skip


def table5(rule, delay, batch, optimizer, rate, stddev, ratio, decay, operations, **more):
    """A column of Table 5; `operations` are FO, BO and BI as T and F."""
    return {
        "alignment": rule, "delay_epochs": float(delay), "alternate_step_freq": 1,
        "train_epochs": 2.0 * 100 + delay, "train_batch_size": batch, "optimizer": "momentum",
        "learning_rate": 1.0, "base_batch_size": 2048, "rescale_lr": True, "constant_lr": False,
        "warmup_epochs": 6.0, "drops": ["30", "60", "80"], "alignment_optimizer": optimizer,
        "alignment_learning_rate": rate, "alignment_rescale_lr": False,
        "alignment_constant_lr": False, "alignment_warmup_epochs": 6.0, "alignment_drops": None,
        "input_distribution": "normal", "input_stddev": stddev, "l2": 1e-4,
        "amp_coef": pytest.approx(ratio * decay, rel=1e-9), "decay_coef": decay,
        **dict(zip(OPERATIONS, (c == "T" for c in operations), strict=True)), **more,
    }  # fmt: skip


def mnist(rule, **more):
    """[P]'s MLP on MNIST: decay 1e-4 unless a rule has one by epoch."""
    return {
        "dataset": "mnist", "pixel_mean": 0.1307, "pixel_stddev": 0.3081, "model": "fc",
        "layers_list": ["512", "512"], "activation": "relu", "alignment": rule,
        "train_epochs": 40.0, "train_batch_size": 64, "optimizer": "momentum", "momentum": 0.9,
        "nesterov": False, "learning_rate": 0.01, "constant_lr": False, "warmup_epochs": 0.0,
        "drops": ["20", "30"], "drop_factor": 0.5, "alignment_optimizer": None, "l2": None,
        "weight_decay": 1e-4, "weight_decay_schedule": None, **more,
    }  # fmt: skip


# lambda of W, R and the biases: 0.03, then 9e-5; decay_coef counts the square whole.
STRONG_FIRST = {
    "weight_decay": 0.0, "weight_decay_schedule": "0:0.03,1:9e-5",
    "decay_coef_schedule": "0:0.015,1:4.5e-5", "decay_coef": None, "update_forward": False,
}  # fmt: skip


def lenet(rule, **more):
    """BioTorch's LeNet table; its rates are not known."""
    return {
        "dataset": "fashion_mnist", "image_size": 32, "model": "lenet5", "alignment": rule,
        "train_epochs": 100.0, "train_batch_size": 64, "optimizer": "momentum", "momentum": 0.9,
        "nesterov": False, "constant_lr": False, "drops": ["50", "75"], "drop_factor": 0.1,
        "weight_decay": 1e-3, "alignment_optimizer": None, **more,
    }  # fmt: skip


def makrout(rule, rate, **more):
    """The MNIST code of [A]: W, B of variance 1 / (in + out), no shuffling, slow biases."""
    return {
        "dataset": "mnist", "pixel_mean": None, "shuffle": False, "model": "fc",
        "layers_list": ["500"], "activation": "sigmoid", "l2": 0.0, "weight_decay": 0.0,
        "kernel_scale": pytest.approx(0.5**0.5), "loss": "sigmoid", "alignment": rule,
        "train_epochs": 400.0, "train_batch_size": 128, "optimizer": "gd", "learning_rate": rate,
        "constant_lr": True, "bias_rate": 1 / 128, **more,
    }  # fmt: skip


NUMBERS = {
    "makrout_bp": makrout("backprop", 0.2),
    "makrout_fa": makrout("feedback", 0.2),
    "makrout_kp": makrout("kolen_pollack", 0.3, decay_coef=0.0),
    "makrout_wm": makrout(
        "mirror", 0.05, train_epochs=401.0, delay_epochs=1.0, alternate_step_freq=None,
        input_distribution="uniform", input_stddev=pytest.approx(0.05 / 3**0.5),
        use_bias_forward=True, activation_forward=True, activation_fn_override="sigmoid",
        amp_coef=128 * 0.01, decay_coef=0.0, alignment_optimizer="gd",
        alignment_learning_rate=1.0, alignment_constant_lr=True,
    ),
    "lenet_bp": lenet("backprop"),
    "lenet_fa": lenet("feedback"),
    "lenet_dfa": lenet("direct"),
    "lenet_usf": lenet("sign_symmetry", magnitude="uniform"),
    "lenet_brsf": lenet("sign_symmetry", magnitude="batch_random"),
    "lenet_frsf": lenet("sign_symmetry", magnitude="fixed_random"),
    "mnist_bp": mnist("backprop"),
    "mnist_fa": mnist("feedback"),
    "mnist_dfa": mnist("direct"),
    "mnist_sf": mnist("sign_symmetry", magnitude="uniform"),
    "mnist_pfa": mnist(
        "product", feedback="gaussian", expansion=10.0, scale="glorot", **STRONG_FIRST
    ),
    "mnist_pfao": mnist(
        "product", feedback="orthogonal", expansion=1.0, scale="glorot", **STRONG_FIRST
    ),
    "mnist_kp": mnist("kolen_pollack", **STRONG_FIRST),
    "mnist_sa": mnist("symmetric"),
    "mnist_aa": mnist("activation"),
    "mnist_wm": mnist("mirror", learning_rate=0.005, decay_coef=0.2, amp_coef=0.4),
    "mnist_ia": mnist("information"),
    "mnist_pal": mnist("phaseless", learning_rate=0.005, decay_coef=0.2, amp_coef=160.0),
    "mnist_ma": mnist("moving_average"),
    "mnist_mixed": mnist("mixed"),
    "mnist_frozen": mnist("frozen"),
    "backprop": {"alignment": "backprop", "alignment_optimizer": None, **SCHEDULE},
    "feedback": {"alignment": "feedback", "alignment_optimizer": None, **SCHEDULE},
    "symmetric": {**SYMMETRIC, **SCHEDULE, **R_BY_ADAM},
    "activation": {**ACTIVATION, **SCHEDULE, **R_BY_ADAM},
    "kolen_pollack": {**KOLEN_POLLACK, **SCHEDULE, "alignment_optimizer": None},
    "wm": {
        "alignment": "mirror", "input_distribution": "normal", "input_stddev": 1.0,
        "amp_coef": 0.1, "decay_coef": 0.25, "average_positions": True, "l2": 1e-4,
        **dict(zip(OPERATIONS, (c == "T" for c in "FTTFFFFFFTFF"), strict=True)),
        "train_batch_size": 2048, "optimizer": "momentum", "learning_rate": 1.0,
        "rescale_lr": False, "constant_lr": False, "warmup_epochs": 6.0,
        "drops": ["30", "60", "80"], "alignment_optimizer": "gd", "alignment_learning_rate": 1.0,
        "alignment_constant_lr": True, "delay_epochs": 2.0, "alternate_step_freq": None,
    },
    "wm_tpe": table5(
        "mirror", 2, 2048, "gd", 1.0, 0.6905, 15.6607, 0.0283, "TTTFF" "FFFF" "TFF"
    ),
    "wm_tpe_ad": table5(
        "mirror", 0, 256, "adam", 0.0053, 0.95, 13.904, 2.8109e-8, "TTTFF" "FFFF" "TFF"
    ),
    "wm_tpe_ad_ops": table5(
        "mirror", 0, 256, "adam", 0.0025, 0.6402, 0.1344, 232.7856, "TTTTF" "FTFT" "TFF"
    ),
    "information_tpe": table5(
        "information", 1, 256, "adam", 0.0098, 0.8176, 129.1123, 7.999, "TTTTF" "TFTT" "FFF",
        null_coef=3.161e-6,
    ),
    "noisy_symmetric": {**SYMMETRIC, **NOISY, **R_BY_ADAM, "use_noisy_alignment_opt": True},
    "noisy_activation": {**ACTIVATION, **NOISY, **R_BY_ADAM, "use_noisy_alignment_opt": True},
    "noisy_kolen_pollack": {
        **KOLEN_POLLACK, **NOISY, "alignment_optimizer": None, "use_noisy_global_opt": True,
    },
    "sign_symmetry": {
        "alignment": "sign_symmetry", "magnitude": "uniform", "train_batch_size": 2048,
        "learning_rate": 0.5, "rescale_lr": False, "warmup_epochs": 6.0, "constant_lr": False,
        "drops": ["32", "62", "82"], "l2": 1e-4,
    },
    "product": {**PRODUCT_IMAGENET, "feedback": "gaussian"},
    "product_orthogonal": {**PRODUCT_IMAGENET, "feedback": "orthogonal"},
    "product_cifar10": {**PRODUCT_CIFAR, "feedback": "gaussian"},
    "product_orthogonal_cifar10": {**PRODUCT_CIFAR, "feedback": "orthogonal"},
}  # fmt: skip


def test_every_setting_has_a_preset_and_a_digits_version():
    assert set(PUBLISHED) == set(NUMBERS) >= WANTED
    assert {f"digits_{name}" for name in WANTED} <= set(DIGITS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_of_the_papers(name):
    fv = parse(f"--preset={name}")
    options = config.read(fv).rule.options
    assert {flag: options.get(flag, fv[flag].value) for flag in NUMBERS[name]} == NUMBERS[name]
    if "cifar10" not in name and name not in SMALL:
        assert (fv["dataset"].value, fv["model"].value) == ("imagenet", "resnet18")


# What a digits version has in common with its preset: the path, not the numbers.
PATH = (
    "alignment", "magnitude", "feedback", "optimizer", "alignment_optimizer", "constant_lr",
    "alignment_constant_lr", "alternate_step_freq", "delay_epochs", "input_distribution",
    "input_stddev", *OPERATIONS, "use_noisy_global_opt", "use_noisy_alignment_opt",
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(WANTED))
def test_digits_version_takes_the_preset_s_path(name):
    full, small = parse(f"--preset={name}"), parse(f"--preset=digits_{name}")
    assert {flag: small[flag].value for flag in PATH} == {flag: full[flag].value for flag in PATH}
    assert small["dataset"].value == "digits"


@pytest.mark.parametrize("name", NAMES)
def test_file(name):
    text = (presets.PRESETS / f"{name}.cfg").read_text()
    head, _, flags = text.partition("\n\n")
    for key in ("Source:", "Command:", "Cost:", "Result:"):
        assert f"\n# {key} " in head
    assert f"--preset={name}" in head
    given = [line.partition("=")[0] for line in flags.splitlines()]
    assert len(given) == len(set(given))
    assert all(flag.startswith("--") for flag in given)
    for flag in ("--workdir", "--data_dir", "--seed", "--preset", "--flagfile"):
        assert flag not in given
    assert max(map(len, head.splitlines())) <= 100  # a flag is one line, however long


def test_flags_after_a_preset_win_and_those_before_it_do_not():
    fv = parse("--self_coef=5", "--preset=symmetric", "--train_epochs=3", "--decay_coef=0.5")
    assert (fv["train_epochs"].value, fv["decay_coef"].value) == (3.0, 0.5)
    assert fv["self_coef"].value == 2e-3
    assert fv["alignment"].value == "symmetric"


def test_an_unknown_preset_is_refused_with_the_list():
    with pytest.raises(config.UsageError, match="expected one of activation, backprop"):
        parse("--preset=symetric")


def test_presets_are_checked_without_tensorflow():
    code = (
        "import sys\n"
        "from tests.presets.support import parse\n"
        "from neural_alignment.config import preset_names\n"
        "[parse(f'--preset={name}') for name in preset_names()]\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
