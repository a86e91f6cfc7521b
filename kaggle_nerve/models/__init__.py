"""Networks in Keras 3, on any of its backends: blocks, architectures, the registry."""

# Registers our own layers, so that any import from this package lets saved networks load.
from kaggle_nerve.models import layers as layers
