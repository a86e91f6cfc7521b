"""A subject: their tissue, the place of their nerve, and the machine's settings."""

from dataclasses import dataclass

import numpy as np

EMPTY_SHARE = 0.588
"""Share of frames without a mask: 3312 of the 5635 real training frames."""

LOWEST_RATE, HIGHEST_RATE = 0.02, 0.90
"""Bounds of a subject's share of frames with a mask; the real ones range from 0.017 to 0.89."""

STAND_INS = ("nothing", "vessel", "muscle", "clump")

# The beta distribution with the real subjects' mean 0.41 and standard deviation 0.23.
_RATE_ALPHA, _RATE_BETA = 1.46, 2.11


@dataclass(frozen=True)
class Look:
    """Settings of the machine. Levels are in decibels, 0 is white; lengths are in pixels."""

    gain: float
    dynamic_range: float
    gamma: float
    attenuation: float
    """Decibels lost from the top edge to the bottom edge."""
    axial: float
    """Standard deviation of the point spread downwards."""
    lateral: float
    """Standard deviation of the point spread sideways."""
    smoothing: float
    """Width of the machine's speckle averaging, as a multiple of the point spread."""
    shadow_x: float
    shadow_width: float
    shadow_depth: float
    """Decibels lost in the middle of the shadow of a badly coupled part of the probe."""


@dataclass(frozen=True)
class Home:
    """Place and appearance of the subject's nerve in the frame."""

    y: float
    x: float
    area: float
    """Square pixels inside the outline, before a frame's own variation."""
    elongation: float
    angle: float
    """Radians from the x axis to the long axis."""
    fascicles: int
    contrast: float
    """Contrast of the nerve, 0 to 1."""
    seed: int
    """Seed of the nerve's own shape."""


@dataclass(frozen=True)
class Vessel:
    """A vessel that is visible in all slices."""

    y: float
    x: float
    radius: float
    stretch: float


@dataclass(frozen=True)
class Subject:
    """Everything that a subject's frames have in common."""

    look: Look
    home: Home
    depths: tuple[float, ...]
    """Rows of the fascia lines between the layers, from the skin downwards."""
    levels: tuple[float, ...]
    """Decibels of the layers, one more than ``depths``."""
    tilt: float
    """Rows that the layers fall per column."""
    arch: float
    """Rows by which the layers bend up in the middle."""
    waviness: float
    """Rows of the layers' irregular waves."""
    streaks: float
    """Decibels of the tissue's fibres."""
    vessels: tuple[Vessel, ...]
    stand_in: str
    """Most frequent structure at the nerve's place in frames without a nerve: one of STAND_INS."""


def draw_subject(rng: np.random.Generator) -> Subject:
    """Draw a random subject."""
    depths = np.cumsum([rng.uniform(9, 16), *rng.uniform([18, 26, 55, 70], [34, 52, 95, 120])])
    levels = [-12, *rng.uniform([-23, -27, -25, -28, -34], [-16, -20, -19, -21, -26])]
    home = _draw_home(rng)
    return Subject(
        look=_draw_look(rng),
        home=home,
        depths=tuple(float(depth) for depth in depths),
        levels=tuple(float(level) for level in levels),
        tilt=rng.normal(0, 0.035),
        arch=rng.normal(6, 10),
        waviness=rng.uniform(9, 18),
        streaks=rng.uniform(4.5, 7.0),
        vessels=tuple(_draw_vessel(rng, home) for _ in range(rng.integers(1, 4))),
        stand_in=str(rng.choice(STAND_INS)),
    )


def _draw_look(rng: np.random.Generator) -> Look:
    return Look(
        gain=rng.normal(2.8, 1.5),
        dynamic_range=rng.uniform(46, 58),
        gamma=rng.uniform(1.25, 1.75),
        attenuation=rng.uniform(2, 9),
        axial=rng.uniform(0.8, 1.2),
        lateral=rng.uniform(1.3, 2.4),
        smoothing=rng.uniform(0.9, 1.6),
        shadow_x=rng.uniform(0, 580),
        shadow_width=rng.uniform(20, 60),
        shadow_depth=rng.uniform(0, 8),
    )


def _draw_home(rng: np.random.Generator) -> Home:
    return Home(
        y=float(np.clip(rng.normal(160, 32), 108, 220)),
        x=float(np.clip(rng.normal(334, 36), 272, 398)),
        area=float(np.exp(rng.normal(np.log(7000), 0.18))),
        elongation=rng.uniform(1.05, 1.7),
        angle=rng.uniform(0, np.pi),
        fascicles=int(rng.integers(2, 7)),
        contrast=rng.uniform(0.8, 1.0),
        seed=int(rng.integers(2**31)),
    )


def _draw_vessel(rng: np.random.Generator, home: Home) -> Vessel:
    y, x = away_from(rng, home, lowest=330)
    return Vessel(y=y, x=x, radius=rng.uniform(9, 30), stretch=rng.uniform(0.9, 1.9))


def away_from(rng: np.random.Generator, home: Home, lowest: float) -> tuple[float, float]:
    """Draw a place (y, x) in the frame, above the row ``lowest`` and away from the nerve."""
    while True:
        y, x = rng.uniform(110, lowest), rng.uniform(30, 550)
        if np.hypot(y - home.y, x - home.x) > 125:
            return float(y), float(x)


def positive_counts(rng: np.random.Generator, subjects: int, frames: int) -> np.ndarray:
    """Draw the number of each subject's ``frames`` with a mask: int array (subjects,).

    Subjects vary like the real ones (a beta distribution); their sum matches the real share of the whole set
    to the frame, if the bounds of a subject allow it.
    """
    rates = rng.beta(_RATE_ALPHA, _RATE_BETA, size=subjects)
    rates = _with_mean(rates, 1 - EMPTY_SHARE)
    total = round(subjects * frames * (1 - EMPTY_SHARE))
    counts = np.floor(rates * frames).astype(int)
    # The largest remainders get the frames that were lost by rounding down.
    largest = np.argsort(-(rates * frames - counts), kind="stable")
    counts[largest[: total - counts.sum()]] += 1
    return counts


def _with_mean(rates: np.ndarray, mean: float) -> np.ndarray:
    """Shift the rates along the logistic curve, within the bounds, until their mean is ``mean``."""
    logits = np.log(np.clip(rates, 1e-3, 1 - 1e-3) / (1 - np.clip(rates, 1e-3, 1 - 1e-3)))
    low, high, shifted = -12.0, 12.0, rates
    for _ in range(60):
        middle = (low + high) / 2
        shifted = np.clip(1 / (1 + np.exp(-(logits + middle))), LOWEST_RATE, HIGHEST_RATE)
        low, high = (middle, high) if shifted.mean() < mean else (low, middle)
    return shifted
