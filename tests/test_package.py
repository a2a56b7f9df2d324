"""What `import neural_alignment` gives, and what it costs."""

import subprocess
import sys

import pytest

import neural_alignment


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_subpackages_are_attributes():
    for name in ("alignments", "data", "layers", "models", "optimizers", "training"):
        assert getattr(neural_alignment, name).__name__ == f"neural_alignment.{name}"
        assert name in dir(neural_alignment)


def test_an_unknown_attribute():
    with pytest.raises(AttributeError, match="'neural_alignment' has no attribute 'layer'"):
        _ = neural_alignment.layer


def test_the_version_is_a_release_number():
    assert [part.isdigit() for part in neural_alignment.__version__.split(".")] == [True] * 3


def test_importing_the_package_is_light():
    result = run(
        "import sys, neural_alignment; dir(neural_alignment); "
        "sys.exit(str(sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules))))"
    )
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "use",
    [
        "import neural_alignment; neural_alignment.layers",
        "from neural_alignment import layers",
        "import neural_alignment; neural_alignment.require_tensorflow()",
    ],
)
def test_without_tensorflow_the_error_says_what_to_install(use):
    result = run(f"import sys; sys.modules['tensorflow'] = None; {use}")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: Expected TensorFlow 2.19 to 2.21 to be installed.")
    assert 'pip install "neural-alignment[cpu]"' in last
    assert 'pip install -e ".[cpu]"' in last


def test_an_error_inside_a_subpackage_is_not_hidden():
    result = run(
        "import sys; sys.modules['numpy'] = None; import neural_alignment as na; na.layers"
    )
    assert "TensorFlow 2.19" not in result.stderr
    assert "numpy" in result.stderr.strip().splitlines()[-1]
