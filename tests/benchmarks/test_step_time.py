import pathlib
import re
import subprocess
import sys

import pytest

from benchmarks import report, step_profile, step_time
from neural_alignment import alignments

SCRIPT = pathlib.Path(step_time.__file__)


def test_every_rule_is_timed():
    configs = [config for config in step_time.RULES.values() if config]
    assert {config["name"] for config in configs} == set(alignments.names())
    for config in configs:
        alignments.get(config)


def _rows(table):
    return [re.split(r" *\| *", line)[1:-1] for line in table.splitlines() if line[:1] == "|"][2:]


def test_rules_are_compared_with_stock():
    rules = {name: step_time.RULES[name] for name in ("feedback", "mirror")}
    table = report.compare_rules("mlp", rules, batch=4, rounds=2, calls=1, jit=False)
    rows = _rows(table)
    assert [row[0] for row in rows] == [report.STOCK, "feedback", "mirror"]
    assert rows[0][2] == "1.000 [1.000, 1.000]"
    assert [row[3] for row in rows] == ["1.00", "1.00", "1.42"]
    assert [row[5] for row in rows] == ["8", "8", "11"]


def test_two_optimizers_are_compared_with_one():
    rules = {"feedback": {"name": "feedback"}, "symmetric": {"name": "symmetric"}}
    table = report.compare_losses("mlp", rules, batch=4, rounds=2, calls=1, jit=False)
    rows = _rows(table)
    assert [row[0] for row in rows] == ["symmetric, one optimizer", "symmetric, two optimizers"]
    assert rows[0][2] == "1.000 [1.000, 1.000]"


def test_the_time_goes_to_operations():
    rules = {"symmetric": step_time.RULES["symmetric"]}
    rows = _rows(report.compare_operations("mlp", rules, batch=64, steps=3))
    assert [row[0] for row in rows] == [report.STOCK, "symmetric"]
    for row in rows:
        *kinds, total = map(float, row[1:])
        assert total > 0.0
        assert sum(kinds) == pytest.approx(total, abs=0.01 * len(kinds))
        # The largest share on an idle machine; another's load falls on passes over memory.
        assert kinds[list(step_profile.KINDS).index("products")] > 0.1 * total


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("gradient_tape/a/MatMul:_MklMatMul", "products"),
        ("momentum/ResourceApplyMomentum_1:ResourceApplyMomentum", "momentum"),
        ("mul_3:Mul", "multiples"),
        ("AddN_2:AddN", "sums of two"),
        ("a/L2Loss:L2Loss", "sums over all"),
        ("convert_bitcast_fusion.2", "noise"),
        ("a/ReluGrad:ReluGrad", "rest"),
    ],
)
def test_an_operation_has_one_kind(operation, kind):
    times = step_profile.by_kind({operation: 2.0})
    assert {name for name, value in times.items() if value} == {kind, "total"}


def test_rules_without_a_loss_have_no_two_optimizers():
    with pytest.raises(ValueError, match="an alignment loss"):
        report.compare_losses(
            "mlp", {"feedback": {"name": "feedback"}}, batch=4, rounds=1, calls=1, jit=False
        )


def test_a_wrong_flag_is_answered_before_tensorflow():
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", str(SCRIPT), "--model=resnet7"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode != 0
    assert "resnet20|mlp|resnet18" in ran.stderr
    assert "tensorflow" not in ran.stderr


@pytest.mark.slow
def test_another_back_end_is_timed():
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), "--model=mlp", "--backend=jax", "--rules=feedback"]
        + ["--batch=4", "--rounds=2", "--calls=1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "plain fit, 2 rounds; jax" in ran.stdout
    rows = _rows(ran.stdout)
    assert [row[0] for row in rows] == [report.STOCK, "feedback"]
    assert rows[0][2] == "1.000 [1.000, 1.000]"
