"""Tissue without organs: curved layers, fascia, fibres; and speckle, which turns the echo into a frame."""

from dataclasses import dataclass

import cv2
import numpy as np

from kaggle_nerve.competition.facts import HEIGHT, WIDTH
from kaggle_nerve.phantom.subject import Look, Subject

MARGIN = 48
"""Margin of the canvas around a frame in pixels, so that the probe can move."""

CANVAS = (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN)
"""(height, width) of the canvas on which a subject's tissue is drawn."""

_ROWS, _COLUMNS = np.mgrid[: CANVAS[0], : CANVAS[1]].astype(np.float32) - MARGIN


@dataclass(frozen=True)
class Tissue:
    """A subject's tissue on the canvas: float32 arrays (CANVAS), in decibels or unit variance."""

    layers: np.ndarray
    fibres: tuple[np.ndarray, np.ndarray]
    """Two independent fields; a slice along the neck is a mixture of both."""
    strength: np.ndarray
    """Decibels of the fibres at every pixel."""


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], down: float, across: float) -> np.ndarray:
    """Draw a Gaussian field of mean 0 and variance 1: float32 (shape).

    ``down`` and ``across`` are its correlation lengths in pixels (standard deviation of the kernel).
    """
    steps = max(1, int(down / 2)), max(1, int(across / 2))
    small = tuple(size // step + 8 for size, step in zip(shape, steps, strict=True))
    noise = rng.standard_normal(small, dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=across / steps[1], sigmaY=down / steps[0])
    full = cv2.resize(noise, (small[1] * steps[1], small[0] * steps[0]), interpolation=cv2.INTER_CUBIC)
    field = full[2 * steps[0] :, 2 * steps[1] :][: shape[0], : shape[1]]
    return (field - field.mean()) / (field.std() + 1e-6)


def grow_tissue(subject: Subject, rng: np.random.Generator) -> Tissue:
    """Draw the subject's layers and fibres on the canvas."""
    flat_rows = _flat_rows(subject, rng)
    return Tissue(
        layers=_layers(subject, flat_rows, rng),
        fibres=(_fibres(flat_rows, rng), _fibres(flat_rows, rng)),
        strength=_fibre_strength(subject, flat_rows, rng),
    )


def cut_slice(tissue: Tissue, position: float) -> np.ndarray:
    """Compute the tissue's echo at a ``position`` (0 to 1) along the neck: decibels, float32 (CANVAS).

    The two fields are mixed with weights on a circle, so that all slices have the same contrast.
    """
    angle = 0.45 * np.pi * position
    echo = cv2.addWeighted(tissue.fibres[0], np.cos(angle), tissue.fibres[1], np.sin(angle), 0)
    # Bright fibres stand out from their surroundings; there are no equally dark ones.
    crests = np.maximum(echo - np.float32(0.6), 0)
    crests *= crests
    echo = cv2.scaleAdd(crests, 0.35, echo)
    echo *= tissue.strength
    echo += tissue.layers
    return echo


def speckle(echo: np.ndarray, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Turn an ``echo`` in decibels into the machine's picture: uint8 (height, width).

    Scatterers with random phase are blurred by the point spread; the amplitude of the sum has a Rayleigh
    distribution in uniform tissue. It is slightly averaged, log-compressed and mapped to grey.
    """
    amplitude = cv2.exp(echo * np.float32(np.log(10) / 20))
    spread = {"ksize": (0, 0), "sigmaX": look.lateral, "sigmaY": look.axial}
    power, part = np.zeros_like(echo), np.empty(echo.shape, np.float32)
    for _ in range(2):
        rng.standard_normal(out=part, dtype=np.float32)
        part *= amplitude
        blurred = cv2.GaussianBlur(part, **spread)
        power += cv2.multiply(blurred, blurred)
    # The mean power of blurred unit noise is the sum of the squared kernel.
    power *= np.float32(2 * np.pi * look.lateral * look.axial)
    wide = look.smoothing
    power = cv2.GaussianBlur(power, (0, 0), sigmaX=wide * look.lateral, sigmaY=wide * look.axial)
    power += np.float32(1e-6)
    return _to_grey(cv2.log(power) * np.float32(10 / np.log(10)), look)


def _to_grey(decibels: np.ndarray, look: Look) -> np.ndarray:
    """Map decibels to grey by gain, dynamic range and gamma: uint8 (height, width)."""
    linear = decibels * np.float32(1 / look.dynamic_range)
    linear += np.float32(look.gain / look.dynamic_range + 1)
    return cv2.convertScaleAbs(cv2.pow(np.clip(linear, 0, 1), look.gamma), alpha=255)


def _flat_rows(subject: Subject, rng: np.random.Generator) -> np.ndarray:
    """Compute the row that each pixel would have if the layers were flat: float32 (CANVAS)."""
    sideways = (_COLUMNS - WIDTH / 2) / (WIDTH / 2)
    bend = subject.tilt * (_COLUMNS - WIDTH / 2) - subject.arch * (1 - sideways**2)
    waves = 0.8 * smooth_noise(rng, CANVAS, 70, 120) + 0.5 * smooth_noise(rng, CANVAS, 28, 55)
    # The probe flattens the skin: the waves begin below it.
    below = np.clip(_ROWS / 120, 0.08, 1)
    return _ROWS - below * (bend + subject.waviness * waves)


def _layers(subject: Subject, flat_rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw each pixel's layer level, large dark and bright patches, and the fascia between layers."""
    edges = np.repeat(subject.depths, 2) + np.tile([-4.0, 4.0], len(subject.depths))
    levels = np.repeat(subject.levels, 2)[1:-1]
    field = np.interp(flat_rows, edges, levels).astype(np.float32)
    field += np.clip(_ROWS / 100, 0.15, 1) * 3.2 * smooth_noise(rng, CANVAS, 16, 30)
    for depth in subject.depths[1:]:
        field += _fascia(flat_rows, depth, rng)
    return _bellies(field, flat_rows, rng)


def _bellies(field: np.ndarray, flat_rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw dark muscle bellies with bright edges into ``field``: decibels (CANVAS).

    They lie where a random smooth field is positive; its zero contour is their edge.
    """
    height = smooth_noise(rng, CANVAS, 20, 42) - rng.uniform(0.25, 0.7)
    sideways, down = cv2.Sobel(height, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(height, cv2.CV_32F, 0, 1) / 8
    slope = np.hypot(sideways, down) + 0.004
    distance = height / slope
    deep = np.clip((flat_rows - 25) / 30, 0, 1)
    field -= deep * 8.0 / (1 + np.exp(-np.clip(distance, -20, 20)))
    # An edge perpendicular to the beam reflects more than a parallel one.
    swell = np.clip(13 * np.abs(down) / slope - 3 + 6 * smooth_noise(rng, CANVAS, 20, 30), 0, 17)
    return field + deep * swell * np.exp(-0.5 * np.clip(distance / 1.8, -9, 9) ** 2)


def _fascia(flat_rows: np.ndarray, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a bright line of varying width, with gaps, along a layer's edge: decibels (CANVAS)."""
    along = smooth_noise(rng, (1, CANVAS[1]), 1, 40)
    wander = 2.5 * smooth_noise(rng, (1, CANVAS[1]), 1, 30)
    offset = (flat_rows - depth - wander) / rng.uniform(1.6, 3.0)
    return np.clip(11 + 7 * along, 0, 19) * np.exp(-0.5 * offset * offset)


def _fibres(flat_rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw fibres that follow the layers: unit variance, float32 (CANVAS)."""
    tall = CANVAS[0] + 160
    fine = smooth_noise(rng, (tall, CANVAS[1]), 1.7, 8)
    long = smooth_noise(rng, (tall, CANVAS[1]), 2.4, 32)
    flat = 0.6 * fine + 0.8 * long
    return cv2.remap(
        flat, _COLUMNS + MARGIN, flat_rows + 80 + MARGIN, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT
    )


def _fibre_strength(subject: Subject, flat_rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the fibres' strength, high in fat and fascia, lower in muscle and at depth: decibels (CANVAS)."""
    patches = np.clip(1 + 0.3 * smooth_noise(rng, CANVAS, 25, 45), 0.4, 1.6)
    deep = np.interp(flat_rows, [0, 60, 250, 420], [0.9, 1.0, 0.95, 0.6]).astype(np.float32)
    return subject.streaks * patches * deep
