"""docs/fit.md: its code runs as it stands, and its keys are those that are logged."""

import keras
import pytest

from tests.docs.pages import ROOT, blocks

pytestmark = pytest.mark.backend

PAGE = ROOT / "docs" / "fit.md"


def test_the_code_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(PAGE, "python"))
    scope = {"__name__": "page"}
    exec(compile(code, str(PAGE), "exec"), scope)
    rule, last = scope["rule"], 2 * scope["steps_per_epoch"]
    grown = float(keras.ops.convert_to_numpy(rule.self_coef(last)))
    assert grown == pytest.approx(2.0 * rule.decay_coef), "B ends as W"
    logged = {key.partition("/")[0] for key in scope["history"].history}
    documented = PAGE.read_text()
    assert {f"`{key}/LAYER`" for key in logged if "angle" in key or "ratio" in key}
    for key in ("weight_angle", "norm_ratio", "projection_angle", "local_gradient_angle"):
        assert key in logged and f"`{key}/LAYER`" in documented
