"""The phantom: a synthetic competition in the real format. No pixel of it comes from a patient.

It replaces the competition's data in the demo, in rehearsals and in tests. Each of its directories has a
marker, ``synthetic.json``, which :func:`is_synthetic` reads.
"""

from kaggle_nerve.phantom.marker import MARKER, is_synthetic
from kaggle_nerve.phantom.writer import write_competition

__all__ = ["MARKER", "is_synthetic", "write_competition"]
