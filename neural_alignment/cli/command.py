"""What a script does with a job: flags in, one call, messages and exit codes out."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from neural_alignment import config
from neural_alignment.cli import environment
from neural_alignment.cli.parse import Program, help_text, parse, wants_help
from neural_alignment.config import Settings, UsageError
from neural_alignment.config.flags import sections
from neural_alignment.config.modules import import_modules
from neural_alignment.config.presets import values
from neural_alignment.exits import DONE, FAILED, INTERRUPTED, USAGE
from neural_alignment.messages import of_system, one_line, uncompilable


def program(job_name: str) -> Program:
    """The script that runs a job.

    Args:
        job_name: "train" or "evaluate".
    """
    usage = {
        "train": "usage: neural-alignment train [--preset=NAME] [--FLAG=VALUE ...]",
        "evaluate": "usage: neural-alignment evaluate --load_checkpoint=RUN [--FLAG=VALUE ...]",
    }
    about = {
        "train": "Trains a model with a learning rule. The same command again resumes the run.",
        "evaluate": "Validates a run's newest checkpoint, or another, with the run's own flags; "
        "flags of the command line win.",
    }
    return Program(
        usage=usage[job_name],
        about=about[job_name],
        define=config.define_flags,
        sections=sections,
        page="docs/flags.md",
    )


def run(job_name: str, argv: Sequence[str] | None = None) -> int:
    """Runs a job, with errors that a user can act on as one message each.

    Args:
        job_name: "train" or "evaluate".
        argv: the command line, the script's name first; None: this process's.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 75 interrupted and saved.
    """
    argv = list(sys.argv if argv is None else argv)
    with environment.guarded_stdout() as output:
        try:
            expanded = config.with_flags_of_run(argv) if job_name == "evaluate" else None
            expanded = config.expand(argv) if expanded is None else expanded
            modules = values(expanded, "import")
            if modules:
                environment.prepare(job_name)
                environment.import_tensorflow(whole=True)  # which the modules may use
                import_modules(modules)
            if asked := wants_help(argv):
                sys.stdout.write(help_text(program(job_name), full=asked == "full"))
                return DONE
            settings = _settings(job_name, expanded)
            environment.prepare(job_name)
            environment.import_tensorflow()
        except UsageError as error:
            return _say(error, USAGE)
        except environment.UnusableError as error:
            return _say(error, FAILED)
        except OSError as error:  # of a run directory that cannot be looked into
            return _say(of_system(error), FAILED)
        code = _run(job_name, settings)
        output.flush()
        # What a run has to say is in its directory; a validation says it here alone.
        return FAILED if output.lost and job_name == "evaluate" and code == DONE else code


def _settings(job_name: str, argv: Sequence[str]) -> Settings:
    fv, rest = parse(program(job_name), argv)
    if job_name == "train":
        fv, rest = parse(program(job_name), config.fill(argv, fv))
    if rest:
        raise UsageError(f"expected flags only. Received: {rest[0]!r}")
    settings = config.validate(fv)
    if job_name == "evaluate" and settings.run.load_checkpoint is None:
        raise UsageError(
            "--load_checkpoint: expected a run directory or a checkpoint. Received: none"
        )
    return settings


def _run(job_name: str, settings: Settings) -> int:
    with environment.without_notes():
        from neural_alignment.training import job
        from neural_alignment.training.signals import interrupts

    try:
        with environment.logging_to_stderr(), interrupts():  # outside of steps
            _split_cpu(settings.devices.logical_cpus)
            getattr(job, job_name)(settings)
    except KeyboardInterrupt:
        return _say("interrupted between steps. Run the same command again to go on.", INTERRUPTED)
    except Exception as error:
        return _failed(error)
    return DONE


def _failed(error: Exception) -> int:
    """Says what a job raised; what nobody foresaw goes on, with its traceback."""
    import tensorflow as tf

    from neural_alignment.data.imagenet import describe_error
    from neural_alignment.extras import MissingPackageError
    from neural_alignment.lock import LockedError
    from neural_alignment.runs.checkpoints import CheckpointError
    from neural_alignment.runs.directory import RunDirectoryError
    from neural_alignment.runs.folders import FolderError
    from neural_alignment.training.divergence import DivergenceError
    from neural_alignment.training.loop import InterruptedRun
    from neural_alignment.training.strategy import DeviceError

    known = (
        CheckpointError,
        DeviceError,
        DivergenceError,
        FolderError,
        LockedError,
        MissingPackageError,
        RunDirectoryError,
    )
    if isinstance(error, UsageError):
        return _say(error, USAGE)
    if isinstance(error, InterruptedRun):
        return _say(f"{error}. Run the same command again to go on.", INTERRUPTED)
    if isinstance(error, known):
        return _say(error, FAILED)
    if isinstance(error, OSError):
        return _say(of_system(error), FAILED)
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return _say(
            f"out of memory: {one_line(error)}. Lower --train_batch_size or --eval_batch_size, or "
            "give a --minibatch_size.",
            FAILED,
        )
    if isinstance(error, tf.errors.OpError) and (operation := uncompilable(error)):
        return _say(
            "--jit_compile: expected a model that XLA can compile. Received: the operation "
            f"{operation}. Pass --jit_compile=false, which runs the step as it is, and another "
            "--workdir.",
            FAILED,
        )
    if isinstance(error, tf.errors.OpError):
        told = describe_error(error) or f"{type(error).__name__}: {one_line(error)}"
        cut_short = isinstance(error, tf.errors.DataLossError | tf.errors.OutOfRangeError)
        if cut_short and (cache := environment.xla_cache()):
            told = f"{told.rstrip('.')}. If a file of XLA's cache is damaged, empty {cache}."
        return _say(told, FAILED)
    raise error


def _split_cpu(parts: int | None) -> None:
    if parts is None:
        return
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    configuration = [tf.config.LogicalDeviceConfiguration()] * parts
    try:
        tf.config.set_logical_device_configuration(cpu, configuration)
    except RuntimeError as error:  # TensorFlow has begun, in an earlier call of this process
        here = len(tf.config.list_logical_devices("CPU"))
        if here != parts:
            raise UsageError(
                f"--logical_cpus: expected {here}, into which this process has split the CPU. "
                f"Received: {parts}. Start a new process."
            ) from error


def _say(message: object, code: int) -> int:
    environment.say(f"{'' if code == INTERRUPTED else 'error: '}{message}\n")
    return code
