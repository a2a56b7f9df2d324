"""Step time and operation counts, against stock Keras layers."""
