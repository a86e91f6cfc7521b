"""Kernels of the rehearsal: Kaggle's calls about them, and their state."""
