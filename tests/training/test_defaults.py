"""What scripts/train.py fills in: sound for every rule, outdone by flags, recorded, kept."""

import csv
import re

import pytest
from absl import flags

from neural_alignment import alignments, config, data, models
from neural_alignment.config import defaults
from neural_alignment.runs import record
from tests.training import children

RULES = ("backprop", *alignments.names())
# The models that docs/settings.md promises to train on the digits with nothing but a rule.
MODELS = ("fc", "conv", "lenet5")
# Top-1 in percent; 95 for all others. frozen is a baseline, and learns in its last layer alone.
AT_LEAST = {"feedback": 93.0, "frozen": 60.0}


def filled(*argv):
    """The settings of a command line, filled in and checked, as scripts/train.py has them."""
    return config.validate(config.filled(config.expand(["train.py", *argv])))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_covered(rule, model, tmp_path):
    settings = filled(f"--alignment={rule}", f"--model={model}", f"--workdir={tmp_path}")
    assert set(settings.filled) >= {"train_batch_size", "train_epochs", "learning_rate"}
    assert (settings.model.activation is None) == (model not in MODELS)
    assert settings.plan.train_epochs < 60
    assert settings.rule.name == rule


@pytest.mark.parametrize("row", defaults.rows(), ids=str)
def test_rows_name_what_there_is(row):
    assert set(row) <= {"dataset", "model", "alignment", "flags"}
    fv = flags.FlagValues()
    config.define_flags(fv)
    assert set(row["flags"]) <= set(fv)
    known = {"dataset": data.names(), "model": models.names(), "alignment": RULES}
    for key, names in known.items():
        assert set(defaults.several(row.get(key, ()))) <= set(names)


def test_a_new_rule_has_the_defaults_of_its_data_set_and_model():
    assert defaults.of("digits", "fc", "a_rule_of_mine") == defaults.of("digits", "fc", "backprop")
    assert defaults.of("digits", "a_model_of_mine", "mirror")["train_epochs"] == "25"
    assert defaults.of("data_of_mine", "fc", "mirror") == {}


def test_flags_win_before_and_after(tmp_path):
    settings = filled(
        f"--workdir={tmp_path}", "--train_epochs=3", "--layers_list=7,7", "--alignment=mirror"
    )
    assert settings.plan.train_epochs == 3.0
    assert settings.model.layers_list == (7, 7)
    assert not {"train_epochs", "layers_list"} & set(settings.filled)
    assert settings.model.activation == "relu"


def test_a_model_without_an_option_is_not_given_it(tmp_path):
    settings = filled(f"--workdir={tmp_path}", "--model=resnet20", "--alignment=mirror")
    assert settings.model.activation is None and settings.model.layers_list is None
    assert "train_batch_size" in settings.filled


@pytest.mark.parametrize(
    "argv",
    [["--defaults=none"], ["--preset=digits_symmetric"], ["--dataset=cifar10"]],
    ids=" ".join,
)
def test_nothing_is_filled_in(argv, tmp_path):
    settings = filled(f"--workdir={tmp_path}", *argv)
    assert settings.filled == ()
    if "preset" not in argv[0]:
        assert settings.plan.train_epochs == 90.0


def train(folder, *argv):
    more = ["--max_epochs=0.05", "--epochs_per_checkpoint=0.05"]
    return children.run(folder, "train.py", [*argv, *more, f"--workdir={folder}/run"])


def flags_of(folder):
    lines = (folder / "run" / "flags.cfg").read_text().splitlines()
    return record.named([line for line in lines if line.startswith("--")])


def test_a_run_says_and_records_what_held(tmp_path):
    ended = train(tmp_path, "--alignment=mirror", "--decay_coef=0.2")
    assert ended.code == 0, ended.errors
    first = ended.output.splitlines()[0]
    assert first.startswith("defaults of digits, fc, mirror (flags win): ")
    kept = flags_of(tmp_path)
    said = dict(pair.split("=") for pair in first.partition("): ")[2].split())
    assert set(said) == set(kept["defaults"].split(","))
    assert {name: kept[name] for name in said} == said
    # The class's own options, in force and no others.
    assert (kept["decay_coef"], kept["amp_coef"]) == ("0.2", "0.2")
    assert (kept["input_distribution"], kept["average_positions"]) == ("normal", "true")
    assert "activation_fn_override" not in kept


def test_a_run_keeps_its_defaults_when_the_table_changes(tmp_path):
    """Taken up by the same command, and repeated by its flags.cfg."""
    assert train(tmp_path, "--alignment=symmetric").code == 0
    file = tmp_path / "run" / "flags.cfg"
    # As a version with another table would have recorded it.
    old = file.read_text().replace("--learning_rate=0.02", "--learning_rate=0.017")
    file.write_text(old)
    again = filled(f"--workdir={tmp_path}/run", "--alignment=symmetric")
    assert again.rate.learning_rate == 0.017
    ended = train(tmp_path, "--alignment=symmetric")
    assert ended.code == 0, ended.errors
    assert file.read_text() == old
    repeated = filled(f"--flagfile={file}", f"--workdir={tmp_path}/other")
    assert repeated.rate.learning_rate == 0.017
    assert repeated.filled == again.filled
    # What was given is not taken from the record: another command is another run.
    ended = train(tmp_path, "--alignment=symmetric", "--learning_rate=0.5")
    assert ended.code == 1
    assert "was --learning_rate=0.017, now --learning_rate=0.5" in ended.errors


def test_a_run_of_version_0_1_keeps_the_defaults_of_its_classes(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "lock").touch()
    lines = ["--alignment=mirror", "--amp_coef=0.5", "--layers_list=9"]
    (run / "flags.cfg").write_text("\n".join(lines) + "\n")
    given = ["--alignment=mirror", "--amp_coef=0.5", "--layers_list=9"]
    for settings in (
        filled(*given, f"--workdir={run}"),
        filled(f"--flagfile={run}/flags.cfg", f"--workdir={tmp_path}/other"),
    ):
        made = settings.rule.make()
        assert (made.input_distribution, made.average_positions) == (None, False)
        assert (made.decay_coef, made.amp_coef) == (1e-3, 0.5)
        assert settings.plan.train_epochs == 90.0
    evaluated = config.with_flags_of_run(["evaluate.py", f"--load_checkpoint={run}"])
    assert "--input_distribution=none" in evaluated


@pytest.mark.slow
@pytest.mark.parametrize("model", ["fc", "lenet5"])
@pytest.mark.parametrize("rule", RULES)
def test_it_learns_with_nothing_but_a_rule(rule, model, tmp_path):
    argv = [f"--alignment={rule}", f"--model={model}", f"--workdir={tmp_path}/run"]
    ended = children.run(tmp_path, "train.py", argv)
    assert ended.code == 0, ended.errors
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        top1 = 100.0 * float(list(csv.DictReader(file))[-1]["val_top1"])
    assert top1 >= AT_LEAST.get(rule, 95.0)


@pytest.mark.slow
def test_backpropagation_learns_through_other_layers(tmp_path):
    argv = ["--dataset=digits", "--layers_list=64,64,64", f"--workdir={tmp_path}/run"]
    ended = children.run(tmp_path, "train.py", argv)
    assert ended.code == 0, ended.errors
    (top1,) = re.findall(r"^top-1 ([\d.]+)%", ended.output, re.MULTILINE)
    assert float(top1) >= 95.0
