"""The figures by name: what each shows, where it is published, what it needs."""

from __future__ import annotations

import dataclasses
import importlib

from neural_alignment.figures.material import Drawn, Material

RUNS, SEARCH, FILES, NOTHING = "runs", "search", "files", "nothing"
FORMATS = ("png", "pdf", "svg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A figure that can be drawn.

    Args:
        about: what it shows, in a line.
        source: where it is published.
        of: what it is drawn from: `RUNS`, `SEARCH`, `FILES` that flags name, or `NOTHING`.
        needs: what that has to have kept, in words.
        module: of the package `neural_alignment.figures`.
        function: of the module; it takes a `Material` and gives a `Drawn`.
    """

    about: str
    source: str
    of: str
    needs: str
    module: str
    function: str = "draw"

    def draw(self, material: Material) -> Drawn:
        """Draws it.

        Args:
            material: what there is to draw from.

        Returns:
            The figure and its numbers.

        Raises:
            NotDrawn: something is missing.
        """
        module = importlib.import_module(f"neural_alignment.figures.{self.module}")
        return getattr(module, self.function)(material)


KINDS: dict[str, Kind] = {
    "curves": Kind(
        about="top-1 and losses against epochs, mean and ± 1 sd over seeds",
        source="[A] fig. 2; [P] fig. 2",
        of=RUNS,
        needs="any run",
        module="curves",
    ),
    "angles": Kind(
        about="angle of W and B of every layer against epochs, coloured by depth",
        source="[K] fig. S4; [A] fig. 3a",
        of=RUNS,
        needs="a rule with a kernel B",
        module="layers",
        function="draw_angles",
    ),
    "error_angles": Kind(
        about="angle of every layer's error to backpropagation's against epochs",
        source="[A] fig. 3b",
        of=RUNS,
        needs="`--path_metrics`",
        module="layers",
        function="draw_error_angles",
    ),
    "norm_ratios": Kind(
        about="norm ratio of B and W of every layer against epochs",
        source="[K] fig. S4",
        of=RUNS,
        needs="a rule with a kernel B",
        module="layers",
        function="draw_norm_ratios",
    ),
    "depth": Kind(
        about="angles after the last epoch, from the input layer to the output layer",
        source="[P] fig. 2; [A] fig. 3",
        of=RUNS,
        needs="a rule with a kernel B; error angles: `--path_metrics`",
        module="layers",
        function="draw_by_depth",
    ),
    "scatter": Kind(
        about="W against B of layers, element by element, at several checkpoints",
        source="[K] fig. S3",
        of=RUNS,
        needs="checkpoints: `--keep_epochs=0,2`; `--layers`, `--epochs` choose",
        module="scatter",
    ),
    "noise": Kind(
        about="top-1 against the variance of noise on updates, mean ± s.e.m.",
        source="[K] figs. 5, S1",
        of=RUNS,
        needs="runs of several `--noisy_opt_variance`",
        module="sweeps",
        function="draw_noise",
    ),
    "sparsity": Kind(
        about="top-1 against the share of feedback weights fixed at zero",
        source="[P] fig. 6",
        of=RUNS,
        needs="runs of several `--density`",
        module="sweeps",
        function="draw_sparsity",
    ),
    "architectures": Kind(
        about="top-1 of the same settings across networks",
        source="[K] fig. S5",
        of=RUNS,
        needs="runs of several `--model`",
        module="sweeps",
        function="draw_architectures",
    ),
    "importance": Kind(
        about="score with each option of each categorical metaparameter",
        source="[K] fig. S2",
        of=SEARCH,
        needs="a search over a space with choices",
        module="importance",
    ),
    "predictivity": Kind(
        about="how well each layer's features predict neurons, raw and by their reliability",
        source="[K] app. B.5",
        of=FILES,
        needs="`--assembly=FILE --features=FILE`",
        module="predictivity_figure",
    ),
    "gradient_flow": Kind(
        about="gradient flow of the alignment losses in one dimension; the mirror's blow-up",
        source="[K] fig. 2, app. D.1",
        of=NOTHING,
        needs="",
        module="phase_portraits",
        function="draw_alignment_losses",
    ),
    "two_layer": Kind(
        about="a two-layer scalar network under backprop, feedback and symmetric",
        source="[K] app. D.2",
        of=NOTHING,
        needs="",
        module="phase_portraits",
        function="draw_two_layer",
    ),
    "eigenvalues": Kind(
        about="spectrum of QᵀQ against the expansion, with its Marchenko–Pastur edges",
        source="[P] fig. 3a",
        of=NOTHING,
        needs="",
        module="random_paths",
        function="draw_eigenvalues",
    ),
    "path_angle": Kind(
        about="angle of a random W and its path W QᵀQ against the expansion",
        source="[P] fig. 3b",
        of=NOTHING,
        needs="",
        module="random_paths",
        function="draw_path_angle",
    ),
    "connectivity": Kind(
        about="correlation and angle of W and B where some pairs are connected one way",
        source="[P] app. B",
        of=NOTHING,
        needs="",
        module="random_paths",
        function="draw_connectivity",
    ),
}
