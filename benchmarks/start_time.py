"""Times what comes before the second training step, by part, in seconds of CPU time.

    python benchmarks/start_time.py --model=resnet18 --rule=symmetric
    TF_XLA_FLAGS=--tf_xla_persistent_cache_directory=runs/xla python benchmarks/start_time.py --jit

The second command, run twice, finds in the directory what the first run has compiled. docs/cost.md
has the table.
"""

from __future__ import annotations

import pathlib
import sys
import time

from absl import app, flags

FLAGS = flags.FLAGS

# Batch sizes, those of step_time.py.
MODELS = {"mlp": 64, "resnet20": 64, "resnet18": 16}


def main(argv: list[str]) -> None:
    """Measures and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}")
    parts, clock = {}, time.process_time
    began = clock()

    def done(part: str) -> None:
        nonlocal began
        parts[part], began = clock() - began, clock()

    import keras
    import numpy as np
    import tensorflow as tf

    done("import TensorFlow and Keras")
    from benchmarks import networks, steps
    from neural_alignment import alignments

    done("import this package")
    network, batch = networks.NETWORKS[FLAGS.model], MODELS[FLAGS.model]
    model = network.build(alignments.get(FLAGS.rule))
    step = steps.training_step(model, jit=FLAGS.jit)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(batch, *network.input_shape)), tf.float32)
    labels = tf.constant(rng.integers(network.num_classes, size=batch), tf.int32)
    done("model and optimizer")
    step.get_concrete_function(images, labels)
    done("trace")
    step(images, labels)[0].numpy()
    done("first step, compiled")
    step(images, labels)[0].numpy()
    done("second step")
    print(
        f"{FLAGS.model}, {FLAGS.rule}, {'XLA' if FLAGS.jit else 'graph'}; "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}\n\n| part | s |\n|---|---|"
    )
    for part, seconds in parts.items():
        print(f"| {part} | {seconds:.2f} |")


if __name__ == "__main__":
    flags.DEFINE_enum("model", "mlp", list(MODELS), "network to train")
    flags.DEFINE_string("rule", "symmetric", "learning rule, by name")
    flags.DEFINE_bool("jit", False, "compile the step with XLA")
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    app.run(main)
