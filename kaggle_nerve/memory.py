"""Recognise a lack of memory, of the machine or of its accelerator, in what libraries raise and write."""

import errno

from kaggle_nerve.errors import NerveError

MARKS = (
    "MemoryError",
    "std::bad_alloc",
    "RESOURCE_EXHAUSTED",
    "ResourceExhausted",
    "OOM when allocating",
    "ut of memory",
    "OUT_OF_MEMORY",
    "Cannot allocate memory",
    "Unable to allocate",
    "ALLOC_FAILED",
    "can't start new thread",
)
"""Words of TensorFlow, JAX, CUDA, NumPy, OpenCV, Python and the system. No class: TensorFlow need not be installed."""


def is_exhausted(fault: BaseException) -> bool:
    """Return whether ``fault`` is a lack of memory; a NerveError has its sentence already."""
    if isinstance(fault, NerveError):
        return False
    if isinstance(fault, MemoryError) or (isinstance(fault, OSError) and fault.errno == errno.ENOMEM):
        return True
    return mentions(f"{type(fault).__name__}: {fault}")


def mentions(text: str) -> bool:
    """Return whether an error's text or a log speaks of a lack of memory."""
    return any(mark in text for mark in MARKS)
