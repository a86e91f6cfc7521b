"""Build the notebooks in top-level ``kernels/`` from the package's own sources."""
