"""What a script does with a job: checks before TensorFlow is imported, messages, exit codes."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

from absl import flags

import neural_alignment
from neural_alignment.training import flags as training_flags

# sysexits.h's EX_TEMPFAIL: run the same command again to go on.
INTERRUPTED = 75
USAGE = 2
FAILED = 1


def run(job_name: str, argv: Sequence[str]) -> int:
    """Runs a job, with errors that a user can act on as one message each.

    Args:
        job_name: "train" or "evaluate".
        argv: what absl left of the command line.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 75 interrupted and saved.
    """
    try:
        if len(argv) > 1:
            raise training_flags.UsageError(f"expected flags only. Received: {argv[1]!r}")
        training_flags.validate(flags.FLAGS)
        neural_alignment.require_tensorflow()
    except training_flags.UsageError as error:
        return _say(error, USAGE)
    except ImportError as error:
        return _say(error, FAILED)
    return _run(job_name)


def _run(job_name: str) -> int:
    import tensorflow as tf

    from neural_alignment.data.imagenet import describe_error
    from neural_alignment.lock import LockedError
    from neural_alignment.training import job
    from neural_alignment.training.checkpoints import CheckpointError
    from neural_alignment.training.loop import DivergenceError, InterruptedRun
    from neural_alignment.training.run_directory import RunDirectoryError
    from neural_alignment.training.strategy import DeviceError

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # outside of steps, as SIGINT
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    try:
        _split_cpu(flags.FLAGS["logical_cpus"].value)
        getattr(job, job_name)(flags.FLAGS)
    except training_flags.UsageError as error:
        return _say(error, USAGE)
    except InterruptedRun as interruption:
        _say(f"{interruption}. Run the same command again to go on.", INTERRUPTED)
        return INTERRUPTED
    except KeyboardInterrupt:
        _say("interrupted between steps. Run the same command again to go on.", INTERRUPTED)
        return INTERRUPTED
    except (
        CheckpointError,
        DeviceError,
        DivergenceError,
        LockedError,
        OSError,
        RunDirectoryError,
    ) as error:
        return _say(error, FAILED)
    except tf.errors.OpError as error:
        message = describe_error(error)
        if message is None:
            raise
        return _say(message, FAILED)
    return 0


def _split_cpu(parts: int | None) -> None:
    if parts is not None:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        configuration = [tf.config.LogicalDeviceConfiguration()] * parts
        tf.config.set_logical_device_configuration(cpu, configuration)


def _say(message: object, code: int) -> int:
    sys.stderr.write(f"{'' if code == INTERRUPTED else 'error: '}{message}\n")
    return code
