"""Render one frame and its mask from tissue, organs, probe and speckle."""

import cv2
import numpy as np

from kaggle_nerve.competition.facts import HEIGHT, SIZE, WIDTH
from kaggle_nerve.phantom import anatomy, probe
from kaggle_nerve.phantom.plan import Shot, Stream, stream
from kaggle_nerve.phantom.subject import STAND_INS, Look, Subject, away_from, draw_subject
from kaggle_nerve.phantom.tissue import CANVAS, MARGIN, Tissue, cut_slice, grow_tissue, speckle

_SLICES = 4
"""Number of arrangements of the nerve's fascicles along the neck."""

_TOP = 40
"""Minimum rows between an outline and the frame's top edge, before the probe moves by about twenty."""


def meet_subject(seed: int, number: int) -> tuple[Subject, Tissue]:
    """Draw subject ``number`` of the set with ``seed``, and their tissue."""
    rng = stream(Stream.SUBJECT, seed, number)
    subject = draw_subject(rng)
    return subject, grow_tissue(subject, rng)


def render(subject: Subject, tissue: Tissue, shot: Shot) -> tuple[np.ndarray, np.ndarray]:
    """Render the frame and its mask, both uint8 (420, 580); the mask is 0 or 255.

    The result depends on the arguments only: the same shot always gives the same bytes.
    """
    rng = stream(Stream.FRAME, *shot.seed)
    echo = cut_slice(tissue, shot.position)
    _draw_vessels(echo, rng, subject, shot)
    outline = np.zeros(CANVAS, np.uint8)
    if shot.nerve:
        outline = _draw_nerve(echo, rng, subject, shot)
    else:
        _draw_stand_in(echo, rng, subject)
    _draw_bystander(echo, rng, subject)
    maps = probe.hold(rng)
    frame = speckle(_fade(probe.look_through(echo, maps), subject.look, rng), subject.look, rng)
    if shot.twin:
        frame = _retake(frame, stream(Stream.RETAKE, *shot.seed))
    if not shot.labelled:
        return frame, np.zeros(SIZE, np.uint8)
    return frame, cv2.threshold(probe.look_through(outline, maps), 127, 255, cv2.THRESH_BINARY)[1]


def _draw_nerve(echo: np.ndarray, rng: np.random.Generator, subject: Subject, shot: Shot) -> np.ndarray:
    """Draw the nerve; return its mask, uint8 (CANVAS), 0 or 255."""
    home = subject.home
    shape = stream(Stream.NERVE, home.seed, int(shot.position * _SLICES))
    outline = anatomy.draw_outline(
        shape,
        home.area * np.exp(shape.normal(0, 0.10) + rng.normal(0, 0.10)),
        home.elongation * rng.uniform(0.92, 1.08),
        home.angle + rng.normal(0, 0.1),
    )
    y, x = _near_home(rng, subject)
    y = max(y, _TOP + MARGIN - outline[:, 1].min())
    # It fades towards its end, where frames are hard to classify.
    contrast = home.contrast * np.interp(shot.edge, [0, 0.12], [0.55, 1.0])
    anatomy.draw_nerve(echo, shape, outline, y, x, home.fascicles, contrast)
    return anatomy.fill_outline(CANVAS, outline, y, x)


def _draw_stand_in(echo: np.ndarray, rng: np.random.Generator, subject: Subject) -> None:
    """Draw a structure, sometimes round and dark, at the nerve's place in a frame without a nerve."""
    kind = subject.stand_in if rng.random() < 0.6 else str(rng.choice(STAND_INS))
    y, x = _near_home(rng, subject)
    _draw_organ(echo, rng, kind, y, x)


def _draw_bystander(echo: np.ndarray, rng: np.random.Generator, subject: Subject) -> None:
    """Draw a structure elsewhere, with or without a nerve in the frame."""
    y, x = away_from(rng, subject.home, lowest=300)
    _draw_organ(echo, rng, str(rng.choice(STAND_INS)), y + MARGIN, x + MARGIN)


def _draw_organ(echo: np.ndarray, rng: np.random.Generator, kind: str, y: float, x: float) -> None:
    if kind == "vessel":
        anatomy.draw_vessel(echo, y, x, rng.uniform(9, 24), rng.uniform(0.8, 1.6))
    elif kind == "muscle":
        area = np.exp(rng.normal(np.log(6500), 0.3))
        outline = anatomy.draw_outline(rng, area, rng.uniform(1.2, 2.6), rng.normal(0, 0.3))
        anatomy.draw_muscle(echo, rng, outline, y, x)
    elif kind == "clump":
        anatomy.draw_clump(echo, rng, y, x, rng.uniform(20, 45), rng.uniform(3, 8))


def _draw_vessels(echo: np.ndarray, rng: np.random.Generator, subject: Subject, shot: Shot) -> None:
    """Draw the subject's vessels, which pulsate and drift slightly from slice to slice."""
    for vessel in subject.vessels:
        y, x = vessel.y + rng.normal(0, 3), vessel.x + 40 * (shot.position - 0.5) + rng.normal(0, 3)
        radius = vessel.radius * rng.uniform(0.88, 1.12)
        anatomy.draw_vessel(echo, y + MARGIN, x + MARGIN, radius, vessel.stretch)


def _near_home(rng: np.random.Generator, subject: Subject) -> tuple[float, float]:
    """Draw a random place (y, x) on the canvas near the subject's nerve."""
    dy, dx = np.clip(rng.normal(0, (7, 10)), -20, 20)
    return subject.home.y + MARGIN + float(dy), subject.home.x + MARGIN + float(dx)


def _fade(echo: np.ndarray, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Apply the losses from depth and poor contact, and the frame's own gain: decibels."""
    rows = np.linspace(0, look.attenuation, HEIGHT, dtype=np.float32)[:, np.newaxis]
    across = (np.arange(WIDTH) - look.shadow_x - rng.normal(0, 8)) / look.shadow_width
    shadow = look.shadow_depth * np.exp(-0.5 * across**2)
    return echo - (rows + (shadow - rng.normal(0, 0.7)).astype(np.float32))


def _retake(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the frame with the faint noise of another capture."""
    noise = rng.normal(0, 0.6, frame.shape)
    return np.clip(np.round(frame + noise), 0, 255).astype(np.uint8)
