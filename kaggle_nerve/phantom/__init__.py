"""The phantom: a synthetic competition in the real format. No pixel of it comes from a patient.

It stands in for the competition's data in the demo, in rehearsals and in tests. Every directory of
it carries a marker, ``synthetic.json``, which :func:`is_synthetic` reads.
"""

from kaggle_nerve.phantom.marker import MARKER, is_synthetic
from kaggle_nerve.phantom.writer import write_competition

__all__ = ["MARKER", "is_synthetic", "write_competition"]
