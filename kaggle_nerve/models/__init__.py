"""Networks in Keras 3, on any of its backends: blocks, architectures, the registry, forward passes."""
