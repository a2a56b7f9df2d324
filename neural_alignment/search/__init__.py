"""Metaparameter searches over training runs ([K] appendix B.1): spaces, trial store, runner.

Nothing here imports TensorFlow: a trial is a training job in a process of its own.
"""
