"""Times a whole training step of each rule against stock Keras layers, in one run.

    python benchmarks/step_time.py --model=resnet20
    python benchmarks/step_time.py --model=mlp
    python benchmarks/step_time.py --model=resnet20 --compare=losses --rules=symmetric
    python benchmarks/step_time.py --model=mlp --backend=jax
    python benchmarks/step_time.py --model=mlp --threads=1 --cpu_time   # on a busy machine
    python benchmarks/step_time.py --model=mlp --threads=1 --compare=operations

A step is forward, backward, R and a momentum update. The contestants take turns, and the ratios
are those of one round each. docs/cost.md says what to expect.
"""

from __future__ import annotations

import os
import pathlib
import sys
import time
from typing import Any

from absl import app, flags

from neural_alignment import alignments

_PROJECTING = tuple(
    name
    for name in alignments.names()
    if "input_distribution" in alignments.rule(name).option_names()
)
# Name in the table to the rule's config; "backprop" is this package's layers without a rule.
RULES: dict[str, dict[str, Any] | None] = {
    "backprop": None,
    **{name: {"name": name} for name in alignments.names() if name not in _PROJECTING},
    **{name: {"name": name, "input_distribution": None} for name in _PROJECTING},
    "kolen_pollack": {"name": "kolen_pollack", "update_forward": True},
    "sign_symmetry_batch": {"name": "sign_symmetry", "magnitude": "batch_random"},
    "sign_symmetry_fixed": {"name": "sign_symmetry", "magnitude": "fixed_random"},
    "product_composite": {"name": "product", "factored": False},
    "product_orthogonal": {"name": "product", "feedback": "orthogonal"},
    **{f"{name}_noise": {"name": name, "input_distribution": "normal"} for name in _PROJECTING},
}
# Batch size, steps in one measurement, and measurements: a few minutes for all the rules.
MODELS = {"resnet20": (64, 1, 21), "mlp": (64, 20, 21), "resnet18": (16, 1, 9)}

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Builds, counts, times, prints."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}")
    batch, calls, rounds = MODELS[FLAGS.model]
    rules = {name: RULES[name] for name in FLAGS.rules}
    if FLAGS.backend != "tensorflow":
        if FLAGS.compare != "rules" or FLAGS.jit or FLAGS.threads or FLAGS.cpu_time:
            raise app.UsageError(
                "Expected --compare=rules and no --jit, --threads or --cpu_time with another back "
                f"end, whose step is that of a plain fit. Received: --backend={FLAGS.backend}"
            )
        os.environ["KERAS_BACKEND"] = FLAGS.backend
        from benchmarks import fit_time

        sizes = {"batch": FLAGS.batch or batch, "rounds": FLAGS.rounds or rounds}
        print(fit_time.compare_rules(FLAGS.model, rules, calls=FLAGS.calls or calls, **sizes))
        return
    # Imported here, so that a wrong flag is answered at once.
    import tensorflow as tf

    from benchmarks import report

    if FLAGS.threads:
        tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
        tf.config.threading.set_inter_op_parallelism_threads(FLAGS.threads)
    batch, rounds = FLAGS.batch or batch, FLAGS.rounds or rounds
    if FLAGS.compare == "operations":
        useless = [f"--{name}" for name in ("jit", "cpu_time", "calls") if FLAGS[name].value]
        if useless:
            raise app.UsageError(
                "Expected --compare=operations, which times each operation of TensorFlow's graph, "
                f"without them. Received: {', '.join(useless)}"
            )
        print(report.compare_operations(FLAGS.model, rules, batch=batch, steps=rounds))
        return
    measure = report.compare_rules if FLAGS.compare == "rules" else report.compare_losses
    table = measure(
        FLAGS.model,
        rules,
        batch=batch,
        rounds=rounds,
        calls=FLAGS.calls or calls,
        jit=FLAGS.jit,
        clock=time.process_time if FLAGS.cpu_time else time.perf_counter,
    )
    print(table)


def _define_flags() -> None:
    flags.DEFINE_enum("model", "resnet20", list(MODELS), "network to train")
    flags.DEFINE_enum(
        "backend",
        "tensorflow",
        ["tensorflow", "jax", "torch"],
        "Keras's back end; on another than TensorFlow the step is that of a plain fit",
    )
    flags.DEFINE_integer(
        "batch", None, "examples of a step; default: 64, resnet18 16", lower_bound=1
    )
    flags.DEFINE_multi_enum("rules", list(RULES), list(RULES), "rules to time; repeat for several")
    flags.DEFINE_enum(
        "compare",
        "rules",
        ["rules", "losses", "operations"],
        "rules: each rule with stock layers; losses: two losses with an optimizer each, with one "
        "optimizer on their sum; operations: milliseconds by kind of operation",
    )
    flags.DEFINE_integer(
        "rounds", None, "measurements of each contestant; default: by model", lower_bound=1
    )
    flags.DEFINE_integer(
        "calls", None, "steps in one measurement; default: by model", lower_bound=1
    )
    flags.DEFINE_bool("jit", False, "compile the step with XLA")
    flags.DEFINE_integer("threads", None, "of TensorFlow; default: every core", lower_bound=1)
    flags.DEFINE_bool("cpu_time", False, "seconds of CPU time, not of the clock on the wall")


if __name__ == "__main__":
    _define_flags()
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    app.run(main)
