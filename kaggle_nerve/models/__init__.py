"""Networks in Keras 3, on any of its backends: blocks, architectures, the registry."""

# Registers our own layers, so that a saved network loads whatever of this package is imported.
from kaggle_nerve.models import layers as layers
