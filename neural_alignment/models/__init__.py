"""Models by name: `names()`, `options(name)`, `get(name, **options)`; imports no TensorFlow.

Every model is a functional Keras model that ends in logits, and takes a learning rule for all of
its convolutions and Dense layers.
"""

from neural_alignment.models.registry import get, names, options, register

__all__ = ["get", "names", "options", "register"]
