"""Networks in Keras 3, on any of its backends: blocks, architectures, the registry, forward passes."""

# Registers our own layers, so that a saved network loads whatever of this package is imported.
from kaggle_nerve.models import layers as layers
from kaggle_nerve.models import normalisation as normalisation
