"""What a run prints: nothing of a layer's name is lost in a narrow terminal."""

import io
import re

import pytest
import rich.console

from neural_alignment.training.console import final_table

PATH = "encoder/block_11/multi_head_attention/attention_output"
MEASURED = {"weight_angle": 12.5, "norm_ratio": 1.25}


@pytest.mark.parametrize("width", (40, 60, 200))
def test_a_long_path_of_a_layer_is_whole(width):
    written = io.StringIO()
    row = {"val_top1": 0.5, "val_top5": 0.75, "val_loss": 1.0}
    rich.console.Console(file=written, width=width).print(final_table(row, {PATH: MEASURED}))
    first_column = re.findall(r"^│([^│]*)│", written.getvalue(), re.MULTILINE)
    assert "".join(part.strip() for part in first_column) == PATH
