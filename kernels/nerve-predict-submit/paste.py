# Nerve predict submit
#
# Writes `submission.csv` from runs that were trained before. Attach the competition's data, and the runs:
# the output of `nerve-train-folds`, or a dataset made with `kaggle-nerve kernels dataset`. Several runs
# are blended.
#
# Made by kaggle-nerve 0.1.0 from its own tested modules (`kaggle-nerve kernels build`). Needs no internet and installs nothing.

# Yours to change.

# The runs, by name, such as ["small", "default"]; "small@flips" predicts with other views of a run.
# An empty list takes all that are attached.
RUNS = []

# Nothing below needs changing.

# What this notebook is made of: version, and of each file that the cells below write the beginning of its SHA-256.
VERSION = "0.1.0"
FILES = {
    "kaggle_nerve/__init__.py": "6a1ee6a35e03d992",
    "kaggle_nerve/errors.py": "ea88c37a8a017dfd",
    "kaggle_nerve/presets/__init__.py": "532ef13800ca2c84",
    "kaggle_nerve/presets/attention-segnet.toml": "922ef5c6d9edb8c3",
    "kaggle_nerve/presets/default.toml": "53d9e04b061d9dbf",
    "kaggle_nerve/presets/segnet.toml": "0e1b8448e434d0ad",
    "kaggle_nerve/presets/small.toml": "a6a0c7c88ebc1687",
    "kaggle_nerve/presets/tiny.toml": "d65ddff569f8c0f2",
    "kaggle_nerve/presets/unet-64x80.toml": "097bec2070fd44ba",
    "kaggle_nerve/presets/unet-96.toml": "3f94dae63b0e88e7",
    "kaggle_nerve/presets/unet-attention.toml": "4c52f1e8741436a1",
    "kaggle_nerve/presets/unet-effb1-448.toml": "5c64663249c717d7",
    "kaggle_nerve/presets/unet-inception.toml": "2af06b27073bce0b",
    "kaggle_nerve/progress.py": "799e3d48a674db34",
    "kaggle_nerve/storage.py": "e846004c9f8bd31a",
    "kaggle_nerve/arrays.py": "b85d0b8a57c856f5",
    "kaggle_nerve/competition/__init__.py": "72e1446ce4985880",
    "kaggle_nerve/competition/csv_text.py": "57f9975ca9b2b692",
    "kaggle_nerve/competition/facts.py": "fdfa0677b25190f3",
    "kaggle_nerve/competition/metric.py": "c0c6554ef4c88816",
    "kaggle_nerve/competition/rle.py": "772c81d30941e154",
    "kaggle_nerve/competition/rle_faults.py": "978ba4810bffc522",
    "kaggle_nerve/competition/submission.py": "3f9fee08e33926c2",
    "kaggle_nerve/settings/__init__.py": "62e8b24732137654",
    "kaggle_nerve/settings/files.py": "8f307061db1d6510",
    "kaggle_nerve/settings/schema.py": "46770c0bbd1827a6",
    "kaggle_nerve/settings/text.py": "d870de0f59f8fb94",
    "kaggle_nerve/maps/__init__.py": "8dbc54ba7303fa8b",
    "kaggle_nerve/maps/blending.py": "cffafe61af3e347b",
    "kaggle_nerve/maps/fullsize.py": "ee6a2837e36f2f9e",
    "kaggle_nerve/maps/levels.py": "fac3eda400ad72d0",
    "kaggle_nerve/maps/matching.py": "300b6baa671c85a2",
    "kaggle_nerve/data/__init__.py": "e2d6ee921e044504",
    "kaggle_nerve/data/cache.py": "b04b99a091bb8005",
    "kaggle_nerve/data/folds.py": "72e4a9d70fb985c7",
    "kaggle_nerve/data/frames.py": "a46d10d020883137",
    "kaggle_nerve/data/tiff.py": "7f38e05fdc7f467b",
    "kaggle_nerve/runs/__init__.py": "6d9e5a2aed82b9ed",
    "kaggle_nerve/runs/adopting.py": "400218667d5f1820",
    "kaggle_nerve/runs/facts.py": "fbf5022761849184",
    "kaggle_nerve/runs/opening.py": "dd878ceec7244405",
    "kaggle_nerve/runs/run.py": "5451807b021da047",
    "kaggle_nerve/prediction/__init__.py": "4eaa54140422c42f",
    "kaggle_nerve/prediction/ensemble.py": "ddf1376b6a169cf7",
    "kaggle_nerve/prediction/forward.py": "0ea98cdd5db87b08",
    "kaggle_nerve/prediction/held_out.py": "374cdf66a47e7c5e",
    "kaggle_nerve/prediction/stored.py": "f1354c4cd57237a6",
    "kaggle_nerve/prediction/views.py": "fc7150c8ce9bfc64",
    "kaggle_nerve/decision/__init__.py": "d1e38092d99021ca",
    "kaggle_nerve/decision/blends.py": "509dbdbce2b08216",
    "kaggle_nerve/decision/calibration.py": "dabe6d06e04a537a",
    "kaggle_nerve/decision/candidates.py": "133f91f4c134c8db",
    "kaggle_nerve/decision/crf.py": "307454e4d799ffdf",
    "kaggle_nerve/decision/decision.py": "974064566a7cf598",
    "kaggle_nerve/decision/evidence.py": "0f90678aaab5bd76",
    "kaggle_nerve/decision/features.py": "5e771195227e9e34",
    "kaggle_nerve/decision/figures.py": "0ee8105fe4219cd0",
    "kaggle_nerve/decision/masks.py": "5fc37ff12266be00",
    "kaggle_nerve/decision/nested.py": "6107becb6d642296",
    "kaggle_nerve/decision/presence.py": "98489135087a2c6b",
    "kaggle_nerve/decision/review.py": "ec29ed0eb35ae45f",
    "kaggle_nerve/decision/rule.py": "6a627882d24d8b0e",
    "kaggle_nerve/decision/shape.py": "1ac9f732462fd798",
    "kaggle_nerve/decision/shape_prior.py": "07464a160a2f5d6e",
    "kaggle_nerve/decision/shaping.py": "07fee9f22d18919d",
    "kaggle_nerve/decision/text.py": "7f6d78398113fc94",
    "kaggle_nerve/decision/tune.py": "e7a20bf02c8a6035",
    "kaggle_nerve/pipeline.py": "885ae0eac40cd7ed",
    "kaggle_nerve/session/__init__.py": "650e4f80d063cf17",
    "kaggle_nerve/session/console.py": "9d5224ac84d61d0a",
    "kaggle_nerve/session/places.py": "88d5d51ae773d41d",
    "kaggle_nerve/session/submitting.py": "ae73cf669bd32644",
}

import importlib.metadata, os, sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow tells of its start at length
print("kaggle-nerve", VERSION, "on Python", sys.version.split()[0])
for package in "tensorflow", "keras", "numpy", "pandas", "scikit-learn", "opencv-python", "opencv-python-headless":
    try:
        print(f"{package:<24}", importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        pass
for path in FILES:
    os.makedirs(os.path.dirname(path), exist_ok=True)

def write(path, text):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)

write("kaggle_nerve/__init__.py", r'''"""kaggle-nerve: from Kaggle's Ultrasound Nerve Segmentation files to a score on its leaderboard.

What scripts and notebooks need is here, imported when it is first used: see docs/api.md.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaggle_nerve.competition.rle import decode, encode
    from kaggle_nerve.competition.submission import check as check_submission
    from kaggle_nerve.competition.submission import score
    from kaggle_nerve.phantom import write_competition as write_phantom
    from kaggle_nerve.pipeline import learn_decision, prepare
    from kaggle_nerve.runs import open_run
    from kaggle_nerve.settings import apply_changes, load_preset
    from kaggle_nerve.training.run_folds import train_folds
    from kaggle_nerve.trial import predict

# TensorFlow decides at its import whether convolutions on a processor take oneDNN's kernels, and by itself
# does so on few processors; without them a training step was measured to take three times as long.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"

__all__ = [
    "apply_changes",
    "check_submission",
    "decode",
    "encode",
    "learn_decision",
    "load_preset",
    "open_run",
    "predict",
    "prepare",
    "score",
    "train_folds",
    "write_phantom",
]

_PLACES = {
    "apply_changes": "settings:apply_changes",
    "check_submission": "competition.submission:check",
    "decode": "competition.rle:decode",
    "encode": "competition.rle:encode",
    "learn_decision": "pipeline:learn_decision",
    "load_preset": "settings:load_preset",
    "open_run": "runs:open_run",
    "predict": "trial:predict",
    "prepare": "pipeline:prepare",
    "score": "competition.submission:score",
    "train_folds": "training.run_folds:train_folds",
    "write_phantom": "data.phantom:write_competition",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, inside = _PLACES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), inside)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
''')

write("kaggle_nerve/errors.py", r'''"""The one exception that a user is meant to read."""


class NerveError(Exception):
    """A fault somebody can act on. ``str()`` is one sentence: what is wrong, where, what to do.

    The command line prints it without a traceback and exits with 1. Anything else that is raised
    is a defect of this package.
    """

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: IPython asks for it."""
        return [f"{type(self).__name__}: {self}"]
''')

write("kaggle_nerve/presets/__init__.py", r'''"""The presets: one TOML file each, read by :mod:`kaggle_nerve.settings`."""
''')

write("kaggle_nerve/presets/attention-segnet.toml", r'''description = "SegNet whose decoder also sees the encoder, through attention gates"
size = [96, 128]
folds = "5"

[model]
architecture = "segnet"
skip = "attention"
width = 16
depth = 4
dropout = 0.2

[loss]
smooth = 50.0
presence = 0.5

[optimiser]
name = "adam"
learning_rate = 1e-3

[training]
epochs = 60
batch = 16
patience = 12
positive_rate = 0.7

[augmentation]
hflip = 0.5
rotate = 12.0
shift = 0.0
scale = 1.0
contrast = 0.15
brightness = 0.0
gamma = 1.0
noise = 0.0
''')

write("kaggle_nerve/presets/default.toml", r'''description = "For a GPU: 224x304"
size = [224, 304]
folds = "5+all"

[model]
width = 32
depth = 5
widest = 512
dropout = 0.3
presence_pool = "attention"

[loss]
# The same share of a nerve as in the preset small.
smooth = 270.0
presence = 0.5
empty_frames = 0.0

[optimiser]
name = "adamw"
learning_rate = 1e-3

[training]
epochs = 60
batch = 16
positive_rate = 0.7
positive_share = 0.5
average = "ema"
ema_decay = 0.995

[augmentation]
hflip = 0.5
rotate = 12.0
shift = 0.1
scale = 1.2
contrast = 0.15
brightness = 0.06
gamma = 1.25
noise = 0.025
elastic = 0.04
gain = 0.4
sharpness = 0.6

[prediction]
tta = "scales"
''')

write("kaggle_nerve/presets/segnet.toml", r'''description = "SegNet with true pooling indices, BCE and Dice, early stopping"
size = [96, 128]
folds = "5"

[model]
architecture = "segnet"
width = 16
depth = 4
dropout = 0.2

[loss]
smooth = 50.0
presence = 0.5

[optimiser]
name = "adam"
learning_rate = 1e-3

[training]
epochs = 60
batch = 16
patience = 12
positive_rate = 0.7

[augmentation]
hflip = 0.5
rotate = 12.0
shift = 0.0
scale = 1.0
contrast = 0.15
brightness = 0.0
gamma = 1.0
noise = 0.0
''')

write("kaggle_nerve/presets/small.toml", r'''description = "For a processor: 96x128, all of it in half an hour on two cores with --jobs 2 --time-budget 27m"
size = [96, 128]
folds = "5+all"

[model]
# The network runs at half the size: five times as many frames in the same time are worth more than pixels.
stem = 2
width = 16
depth = 4
dropout = 0.2
presence_pool = "attention"

[loss]
# With 1, an empty frame pushes an unsure pixel down 100 times harder than a missed nerve pulls it up.
smooth = 50.0
presence = 0.5
# The map says where the nerve is if there is one; whether there is one is the presence head's to say.
empty_frames = 0.0

[optimiser]
name = "adam"
learning_rate = 2e-3

[training]
epochs = 60
batch = 16
positive_rate = 0.7
positive_share = 0.5
average = "ema"
ema_decay = 0.995

[augmentation]
hflip = 0.5
rotate = 12.0
shift = 0.1
scale = 1.2
contrast = 0.15
brightness = 0.06
gamma = 1.25
noise = 0.025
elastic = 0.04
gain = 0.4
sharpness = 0.6

[prediction]
tta = "scales"
''')

write("kaggle_nerve/presets/tiny.toml", r'''description = "Tests and the demo: a minute a fold on two cores, to see the whole job work"
size = [96, 128]
folds = "3"

[model]
stem = 2
width = 8
depth = 3

[loss]
smooth = 50.0

[optimiser]
learning_rate = 3e-3

[training]
epochs = 14
batch = 16

[augmentation]
rotate = 6.0
shift = 0.05
scale = 1.1
noise = 0.0
''')

write("kaggle_nerve/presets/unet-64x80.toml", r'''description = "The field's first baseline: U-Net, 64x80, intensities in [0, 1], one hold-out of 42/5 subjects"
size = [64, 80]
folds = "42/5"

[model]
width = 32
depth = 4
widest = 512
batch_norm = false
dropout = 0.0
presence = false
normalise = "unit"

[loss]
dice = 1.0
bce = 0.0
presence = 0.0

[optimiser]
name = "adam"
learning_rate = 1e-5
schedule = "constant"
warmup = 0.0

[training]
epochs = 20
batch = 32
# A rate this low may take many epochs to leave the all-full mask.
collapse_epochs = 15

[augmentation]
hflip = 0.0
rotate = 0.0
shift = 0.0
scale = 1.0
contrast = 0.0
brightness = 0.0
gamma = 1.0
noise = 0.0

[prediction]
tta = "none"
''')

write("kaggle_nerve/presets/unet-96.toml", r'''description = "The most copied baseline: U-Net, 96x96, Dice loss, Adam 1e-5, 60 epochs"
size = [96, 96]
folds = "5"

[model]
width = 32
depth = 4
widest = 512
batch_norm = false
dropout = 0.0
presence = false
normalise = "unit"

[loss]
dice = 1.0
bce = 0.0
presence = 0.0

[optimiser]
name = "adam"
learning_rate = 1e-5
schedule = "constant"
warmup = 0.0

[training]
epochs = 60
batch = 32
# A rate this low may take many epochs to leave the all-full mask.
collapse_epochs = 15

[augmentation]
hflip = 0.0
rotate = 0.0
shift = 0.0
scale = 1.0
contrast = 0.0
brightness = 0.0
gamma = 1.0
noise = 0.0

[prediction]
tta = "none"
''')

write("kaggle_nerve/presets/unet-attention.toml", r'''description = "U-Net with attention gates, scSE and deep supervision, 160x224"
size = [160, 224]
folds = "5"

[model]
skip = "attention"
scse = true
deep_supervision = true
stem = 2
width = 24
depth = 4
widest = 384
dropout = 0.2
skip_dropout = 0.1

[loss]
# The same share of a nerve as in the preset small.
smooth = 146.0
presence = 0.5

[optimiser]
name = "adamw"
learning_rate = 2e-3
clip_norm = 1.0

[training]
epochs = 60
batch = 16
positive_rate = 0.7
average = "ema"
ema_decay = 0.995

[augmentation]
rotate = 12.0
shift = 0.1
scale = 1.2
contrast = 0.15
brightness = 0.06
gamma = 1.25
noise = 0.025
''')

write("kaggle_nerve/presets/unet-effb1-448.toml", r'''description = "The best documented public recipe: U-Net on EfficientNet-B1 (ImageNet), 448x576, four flips"
size = [448, 576]
folds = "5"

[model]
encoder = "efficientnet-b1"
weights = "imagenet"
width = 16
dropout = 0.2

[loss]
# The same share of a nerve as in the preset small.
smooth = 1050.0
dice = 1.0
bce = 0.0
focal = 1.0
presence = 0.5

[optimiser]
name = "adamw"
learning_rate = 5e-4
weight_decay = 1e-4
clip_norm = 1.0

[training]
epochs = 100
batch = 8
positive_rate = 0.5
precision = "auto"

[augmentation]
hflip = 0.5
vflip = 0.25
rotate = 0.0
shift = 0.0
scale = 1.0
contrast = 0.0
brightness = 0.1
gamma = 1.0
noise = 0.01

[prediction]
tta = "flips"
batch = 16
''')

write("kaggle_nerve/presets/unet-inception.toml", r'''description = "The best Keras entry's network: inception blocks, strided convolutions, residual skips, 80x112"
size = [80, 112]
folds = "5"

[model]
block = "inception"
down = "stride"
skip = "residual"
activation = "elu"
width = 32
depth = 4
widest = 512
dropout = 0.5
skip_dropout = 0.5

[loss]
# The share of a nerve that 50 pixels are at 96x128; the entry's own Dice was that of the batch.
smooth = 36.0
dice = 1.0
bce = 0.0
presence = 0.5

[optimiser]
name = "adam"
learning_rate = 4.5e-3
schedule = "constant"
clip_norm = 1.0

[training]
epochs = 50
batch = 64
patience = 8

[augmentation]
hflip = 0.5
vflip = 0.5
rotate = 0.0
shift = 0.0
scale = 1.1
contrast = 0.0
brightness = 0.02
gamma = 1.0
noise = 0.0
''')

write("kaggle_nerve/progress.py", r'''"""How library code tells of long work without printing: it is handed a Reporter.

The default reports nothing. The command line passes one that draws bars on standard error, a notebook one
that prints a line now and then.
"""

import time
from collections.abc import Callable


class Bar:
    """One running count. Use as a context manager; this base class shows nothing."""

    def update(self, steps: int = 1) -> None:
        """Count ``steps`` more units as done."""

    def note(self, text: str) -> None:
        """Show ``text`` beside the bar, such as the current loss."""

    def expect(self, total: int) -> None:
        """Change the number of units that there are in all."""

    def close(self) -> None:
        """Finish the bar."""

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reporter:
    """Makes bars and takes messages; this base class is silent."""

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """A bar of ``total`` units (None: unknown)."""
        return Bar()

    def say(self, text: str) -> None:
        """Tell the user one line."""


SILENT = Reporter()


class LoggedBar(Bar):
    """For a log: a line now and then instead of a bar that redraws itself. ``write`` gets the lines."""

    EVERY = 30.0
    """Seconds between two lines."""

    def __init__(self, label: str, total: int | None, unit: str, write: Callable[[str], None]):
        self.label, self.total, self.unit, self.write, self.done = label, total, unit, write, 0
        self.started = self.told = time.monotonic()

    def update(self, steps: int = 1) -> None:
        """Count; write a line if the last one is old."""
        self.done += steps
        if time.monotonic() - self.told >= self.EVERY:
            self.told = time.monotonic()
            self._tell("")

    def note(self, text: str) -> None:
        """Write it on a line of its own."""
        self.told = time.monotonic()
        self._tell(f", {text}")

    def expect(self, total: int) -> None:
        """Change the total."""
        self.total = total

    def close(self) -> None:
        """Write how it ended."""
        self._tell("")

    def _tell(self, more: str) -> None:
        seconds = time.monotonic() - self.started
        whole = f"/{self.total}" if self.total else ""
        left = (
            f", {seconds * (self.total - self.done) / self.done:.0f} s left"
            if self.total and self.done and self.total != self.done
            else ""
        )
        self.write(f"{self.label}: {self.done}{whole} {self.unit}s in {seconds:.0f} s{left}{more}")
''')

write("kaggle_nerve/storage.py", r'''"""Files that are either whole or absent: atomic writes, completion markers, digests, locks."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kaggle_nerve.errors import NerveError

COMPLETE = "complete.json"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it takes ``path``'s place if the block succeeds.

    A reader, and a later run after a kill, sees the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=f".{path.name}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` with ``\\n`` line ends, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a damaged one is a NerveError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise NerveError(f"{path} is not readable JSON ({fault}); delete it and run again.") from fault


def mark_complete(folder: Path, facts: dict[str, Any]) -> None:
    """Say that the work in ``folder`` is finished; ``facts`` are its inputs' digests and figures."""
    write_json(folder / COMPLETE, facts)


def completed(folder: Path) -> dict[str, Any] | None:
    """The facts of finished work in ``folder``, or None while it is unfinished."""
    marker = folder / COMPLETE
    return read_json(marker) if marker.is_file() else None


def reopen(folder: Path) -> None:
    """Mark the work in ``folder`` as unfinished."""
    (folder / COMPLETE).unlink(missing_ok=True)


def digest_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_text(*parts: str) -> str:
    """SHA-256 of some strings, in hexadecimal; the parts are kept apart."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@contextmanager
def locked(path: Path, told: str, patience: float = 0) -> Iterator[None]:
    """Hold the lock file ``path``; NerveError ``told`` where another process holds it for ``patience`` seconds.

    The system frees the lock of a process that was killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout as fault:
        raise NerveError(told) from fault
    try:
        yield
    finally:
        lock.release()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
''')

write("kaggle_nerve/arrays.py", r'''"""Arrays that are filled a chunk at a time, on disk, and go on where a killed process stopped."""

import json
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from kaggle_nerve.storage import write_text


class GrowingArrays:
    """Memory-mapped arrays ``<name>.npy`` in ``folder``, named ``<name>.partial.npy`` until whole.

    ``shapes``: name -> (shape, dtype), all with the same first length. ``key`` says what they are
    made from: a partial array of another key is started anew. After each chunk call `note`, at the
    end `finish`.
    """

    def __init__(self, folder: Path, shapes: dict[str, tuple[tuple[int, ...], type]], key: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.key = folder, key
        self._pointer = folder / "partial.json"
        self.done = self._rows_done(shapes)
        self.arrays = {name: self._open(name, *shapes[name]) for name in shapes}

    def note(self, rows: int) -> None:
        """Say that the first ``rows`` rows are filled, once they are on disk."""
        for array in self.arrays.values():
            array.flush()
        write_text(self._pointer, json.dumps({"rows": rows, "key": self.key}))
        self.done = rows

    def finish(self) -> None:
        """Give the filled arrays their final names."""
        self.arrays.clear()
        for partial in self.folder.glob("*.partial.npy"):
            partial.replace(self._final(partial.name.removesuffix(".partial.npy")))
        self._pointer.unlink()

    def _rows_done(self, shapes: dict[str, tuple[tuple[int, ...], type]]) -> int:
        try:
            stored = json.loads(self._pointer.read_text())
        except (FileNotFoundError, ValueError):
            return 0
        for name in shapes:
            # A kill inside `finish` leaves some arrays under their final names: take them back.
            if not self._partial(name).is_file() and self._final(name).is_file():
                self._final(name).replace(self._partial(name))
        whole = all(self._partial(name).is_file() for name in shapes)
        return stored["rows"] if whole and stored["key"] == self.key else 0

    def _open(self, name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        if self.done:
            return open_memmap(self._partial(name), mode="r+")
        return open_memmap(self._partial(name), mode="w+", dtype=dtype, shape=shape)

    def _partial(self, name: str) -> Path:
        return self.folder / f"{name}.partial.npy"

    def _final(self, name: str) -> Path:
        return self.folder / f"{name}.npy"
''')

write("kaggle_nerve/competition/__init__.py", r'''"""What Kaggle fixed: the competition's facts, run-length encoding, metric and submission format."""
''')

write("kaggle_nerve/competition/csv_text.py", r'''"""CSV files that somebody else may have written: their bytes, what makes them unreadable, their lines."""

from pathlib import Path

from kaggle_nerve.errors import NerveError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAGIC = (
    (b"\x1f\x8b", "is gzip-compressed; unpack it first"),
    (b"PK\x03\x04", "is a zip archive; unpack it first"),
    (b"BZh", "is bzip2-compressed; unpack it first"),
    (b"\xfd7zXZ", "is xz-compressed; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is zstd-compressed; unpack it first"),
    (b"\xff\xfe", "is UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text; save it as UTF-8"),
)


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises NerveError where it cannot be opened."""
    try:
        return path.read_bytes()
    except OSError as fault:
        raise NerveError(f"cannot read {path}: {fault.strerror}; check the path") from fault


def unreadable(data: bytes) -> tuple[int | None, str] | None:
    """Line (None: the whole file) and reason why the bytes are no text at all; None if they are text."""
    if not data.strip():
        return None, "the file is empty"
    for magic, what in _MAGIC:
        if data.startswith(magic):
            return None, f"the file {what}"
    try:
        data.decode("utf-8")
        at = data.find(b"\0")
    except UnicodeDecodeError as fault:
        at = fault.start
    if at < 0:
        return None
    return data[:at].count(b"\n") + 1, f"byte {at + 1} of the file is not UTF-8 text; write a plain CSV file"


def lines(data: bytes) -> list[str]:
    """The lines of readable bytes without their ends (LF, CRLF or CR) and without a byte-order mark.

    The last line may lack its end. str.splitlines is no help: it also splits at form feeds and the like.
    """
    text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    return text.removesuffix("\n").split("\n")


def shown(text: str) -> str:
    """``text`` in quotes for a message, cut where it is long."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
''')

write("kaggle_nerve/competition/facts.py", r'''"""The competition's fixed facts, each with where it comes from. Nothing else repeats them.

Sources: the competition's data and evaluation pages (``kaggle.com/c/ultrasound-nerve-segmentation``),
and counts taken from its ``train_masks.csv``.
"""

import re

SLUG = "ultrasound-nerve-segmentation"
"""The competition's name in addresses and in the Kaggle API."""

HEIGHT, WIDTH = 420, 580
"""Pixels of every frame. Data page: 580 wide, 420 high, 8-bit grey, LZW-compressed TIFF."""

SIZE = (HEIGHT, WIDTH)
"""(height, width) of every frame and mask."""

TRAIN_FOLDER, TEST_FOLDER = "train", "test"

TRAIN_FRAME = re.compile(r"^(?P<subject>[1-9]\d*)_(?P<img>[1-9]\d*)\.tif$")
"""A training frame's file name. Data page: ``subject_imageNum.tif``."""

TRAIN_MASK = re.compile(r"^(?P<subject>[1-9]\d*)_(?P<img>[1-9]\d*)_mask\.tif$")
"""A training mask's file name, beside its frame; its pixels are 0 or 255."""

TEST_FRAME = re.compile(r"^(?P<img>[1-9]\d*)\.tif$")
"""A test frame's file name: it does not tell the subject."""

TRAIN_CSV = "train_masks.csv"
TRAIN_HEADER = ("subject", "img", "pixels")

SAMPLE_CSV = "sample_submission.csv"
SUBMISSION_HEADER = ("img", "pixels")
"""Data page. Rows are in rising order of ``img``; an empty mask has nothing after the comma."""

TRAIN_FRAMES, TRAIN_SUBJECTS, TRAIN_WITH_MASK = 5635, 47, 2323
"""Counted in ``train_masks.csv``: 42 subjects with 120 frames, 5 with 119."""

TEST_FRAMES = 5508
"""Rows of ``sample_submission.csv``; the subjects are others than the training ones (data page)."""

PUBLIC_SHARE = 0.2
"""Share of the test frames behind the public score (leaderboard page)."""

SESSION_HOURS = 12.0
"""After which Kaggle ends a notebook and throws away what it wrote (documentation of Kaggle's notebooks)."""

SMALLEST_MASK = 2684
"""Pixels of the smallest training mask that is not empty, counted in ``train_masks.csv``."""
''')

write("kaggle_nerve/competition/metric.py", r'''"""The competition's metric: the mean over frames of Dice, where two empty masks agree perfectly.

Dice of a frame is ``2 |X and Y| / (|X| + |Y|)``, and 1 if both masks are empty. So one pixel on a
frame that should be empty costs that frame its whole point.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.errors import NerveError

Runs = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Score:
    """What a submission scores. Means are in [0, 1], or None where no frame belongs to the part.

    Attributes:
        all: mean Dice of all frames that count.
        public, private: the same for the frames of that ``Usage``; None if the solution has no such column.
        frames: how many frames count; with a ``Usage`` column those that are Public or Private.
        per_frame: table with the columns ``img``, ``usage`` ("public", "private" or ""), ``dice``,
            ``intersection``, ``truth_area`` and ``predicted_area`` (pixels), in the solution's order.
    """

    all: float | None
    public: float | None
    private: float | None
    frames: int
    per_frame: pd.DataFrame = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The figures alone, ready for JSON."""
        return {"all": self.all, "public": self.public, "private": self.private, "frames": self.frames}


def dice(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Dice of two masks of the same (height, width), in [0, 1]; what is not 0 belongs to the mask.

    Raises NerveError where the shapes differ or a mask is not one (see ``rle.checked_mask``).

    >>> dice(np.array([[1, 1, 0]]), np.array([[0, 1, 0]]))
    0.6666666666666666
    """
    truth, predicted = rle.checked_mask(truth) != 0, rle.checked_mask(predicted) != 0
    if truth.shape != predicted.shape:
        raise NerveError(
            f"cannot compare masks of {truth.shape} and {predicted.shape} (height, width); "
            "enlarge the prediction to the size of the truth first"
        )
    counts = ((truth & predicted).sum(), truth.sum(), predicted.sum())
    return float(dice_of_counts(*counts))


def dice_of_counts(intersection: Any, truth_area: Any, predicted_area: Any) -> np.ndarray:
    """Dice from pixel counts: arrays, or numbers, of shapes that broadcast; float64 in [0, 1].

    The counts are believed: none is negative and the intersection exceeds neither area.

    >>> dice_of_counts([1, 0, 0], [2, 0, 0], [1, 0, 5]).tolist()
    [0.6666666666666666, 1.0, 0.0]
    """
    both = np.add(truth_area, predicted_area, dtype=np.float64)
    twice = np.multiply(2.0, intersection, dtype=np.float64)
    twice, both = np.broadcast_arrays(twice, both)
    return np.divide(twice, both, out=np.ones(both.shape), where=both > 0)


def dice_of_texts(truth: str, predicted: str, size: tuple[int, int] = SIZE) -> float:
    """Dice of two masks given as run-length texts, without drawing them. Raises rle.RunLengthError."""
    return float(dice_of_counts(*counts_of_texts(truth, predicted, size)))


def counts_of_texts(truth: str, predicted: str, size: tuple[int, int] = SIZE) -> tuple[int, int, int]:
    """(intersection, truth area, predicted area) in pixels of two masks given as run-length texts."""
    return _counts(rle.runs(truth, size), rle.runs(predicted, size))


def score(submission: pd.DataFrame, solution: pd.DataFrame, size: tuple[int, int] = SIZE) -> Score:
    """Score a submission (columns ``img``, ``pixels``) against the true masks.

    ``solution`` has ``img``, ``pixels`` and perhaps ``Usage``: then frames marked Public or Private
    count, and others (such as Ignored) do not. Both tables come from ``submission.read`` and
    ``submission.read_solution``; their rows may stand in different orders.

    Raises NerveError if the frames of the two differ or repeat, or a text that counts is faulty.
    """
    truth, predicted = _by_frame(solution, "solution"), _by_frame(submission, "submission")
    _refuse_other_frames(truth.index, predicted.index)
    if "Usage" in solution:
        usage = truth["Usage"].astype(str).str.strip().str.lower()
        truth, usage = (part[usage.isin(["public", "private"])] for part in (truth, usage))
    else:
        usage = pd.Series("", index=truth.index)
    rows = zip(truth.index, truth["pixels"], predicted["pixels"].loc[truth.index], strict=True)
    counts = [
        _counts(_runs("solution", img, true, size), _runs("submission", img, guess, size))
        for img, true, guess in rows
    ]
    counts = np.array(counts, np.int64).reshape(-1, 3)
    values = dice_of_counts(*counts.T)
    per_frame = pd.DataFrame({"img": truth.index, "usage": usage.to_numpy(), "dice": values})
    per_frame[["intersection", "truth_area", "predicted_area"]] = counts

    def mean(chosen: np.ndarray) -> float | None:
        return float(values[chosen].mean()) if chosen.any() else None

    return Score(
        all=mean(np.ones(len(values), bool)),
        public=mean((usage == "public").to_numpy()),
        private=mean((usage == "private").to_numpy()),
        frames=len(values),
        per_frame=per_frame,
    )


def _by_frame(table: pd.DataFrame, what: str) -> pd.DataFrame:
    for column in ("img", "pixels"):
        if column not in table:
            raise NerveError(f"the {what} has no column {column!r}; its header must begin with img,pixels")
    repeated = table["img"][table["img"].duplicated()]
    if len(repeated):
        raise NerveError(f"the {what} has frame {repeated.iloc[0]} more than once; keep one row of it")
    return table.set_index("img")


def _refuse_other_frames(truth: pd.Index, predicted: pd.Index) -> None:
    missing, unknown = truth.difference(predicted), predicted.difference(truth)
    complaints = [
        f"{what} {len(frames)} frames ({', '.join(map(str, frames[:5]))}{', ...' * (len(frames) > 5)})"
        for what, frames in (("lacks", missing), ("has besides", unknown))
        if len(frames)
    ]
    if complaints:
        raise NerveError(
            f"the submission does not belong to the solution: it {' and '.join(complaints)}; "
            "score it against the solution of the same frames"
        )


def _counts(truth: Runs, predicted: Runs) -> tuple[int, int, int]:
    return rle.intersection(truth, predicted), int(truth[1].sum()), int(predicted[1].sum())


def _runs(whose: str, img: int, text: str, size: tuple[int, int]) -> Runs:
    try:
        return rle.runs(text, size)
    except rle.RunLengthError as fault:
        raise NerveError(f"frame {img} of the {whose}: {fault}") from fault
''')

write("kaggle_nerve/competition/rle.py", r'''"""Run-length text of masks: ``start length start length ...``, as the competition's CSV files hold it.

Pixels are counted from 1, column after column (top to bottom, then left to right), so a pixel's
number is ``column * height + row + 1``. Starts rise and runs never share a pixel. An empty mask is
the empty text. Numbers are separated by one space.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.competition.rle_faults import explain
from kaggle_nerve.errors import NerveError

T = TypeVar("T")
_GROUPS = (20, 16, 10, 8, 5, 4, 3, 2, 1)


class RunLengthError(NerveError):
    """A run-length text, or a mask to be written as one, that breaks the rules; it says which and where."""


def encode(mask: np.ndarray) -> str:
    """The run-length text of one mask.

    ``mask`` is (height, width), of booleans or whole numbers; whatever is not 0 belongs to the mask.
    Any memory layout will do. The result is canonical: touching runs are one run, also where a run
    goes on from the bottom of a column to the top of the next.

    Raises RunLengthError for an array that is not two-dimensional, or of floating point numbers.

    >>> encode(np.array([[0, 1, 1], [0, 1, 0]], np.uint8))
    '3 3'
    """
    mask = checked_mask(mask)
    if mask.size == 0:
        return ""
    # Seen as unsigned bytes or words, "not 0" is "above 0" whatever the type was.
    unsigned = f"u{mask.itemsize}"
    if mask.flags.f_contiguous:
        edges = _edges_along_lines(mask.T.view(unsigned))
    else:
        edges = _edges_across_lines(np.ascontiguousarray(mask).view(unsigned))
    numbers = edges + 1
    numbers[1::2] -= numbers[::2]
    # One formatting call is twice as fast as joining one string per number.
    return ("%d " * numbers.size)[:-1] % tuple(numbers.tolist())


def encode_many(masks: Iterable[np.ndarray]) -> list[str]:
    """The texts of an (n, height, width) array, or of any iterable of masks, which is read one by one.

    Raises RunLengthError as ``encode`` does, with the position of the mask counted from 0.
    """
    return [_numbered(encode, index, mask) for index, mask in enumerate(masks)]


def decode(text: str, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The mask of one run-length text: uint8 of 0 and 1, shape ``size`` = (height, width).

    The array is writable and lies column by column in memory (Fortran order), as the text does.
    Runs may touch. Every other departure from the format raises RunLengthError: see ``runs``.

    >>> decode("3 3", (2, 3)).tolist()
    [[0, 1, 1], [0, 1, 0]]
    """
    height, width = size
    flat = np.zeros(height * width, np.uint8)
    _fill(flat, *runs(text, size))
    return flat.reshape(width, height).T


def decode_many(texts: Iterable[str], size: tuple[int, int] = SIZE) -> np.ndarray:
    """The masks of many texts: uint8 of 0 and 1, shape (n, height, width), 244 kB for each at full size.

    Raises RunLengthError as ``decode`` does, with the position of the text counted from 0.
    """
    texts = list(texts)
    height, width = size
    flat = np.zeros((len(texts), height * width), np.uint8)
    for index, text in enumerate(texts):
        _fill(flat[index], *_numbered(runs, index, text, size))
    return flat.reshape(len(texts), width, height).transpose(0, 2, 1)


def runs(text: str, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """The runs of a text as (starts, lengths), int64 arrays of one entry per run.

    Here starts count from **0**, column after column. The text is checked completely: RunLengthError
    names what is not text, not a whole number, a stray space, an odd count of numbers, a start or
    length below 1, a run past the last pixel of ``size``, and runs that are unsorted or overlap.
    """
    if not isinstance(text, str):
        raise RunLengthError(f"expected run-length text, got {text!r}; an empty mask is the empty text")
    if not text:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # The whole check in a few array operations; only a text that fails is looked at again, slowly,
    # to find out what to say. fromstring stops without a word at what it cannot read, so only
    # digits and spaces may reach it.
    if text.isascii() and text.replace(" ", "").isdigit():
        numbers = np.fromstring(text, np.int64, sep=" ")
        if numbers.size % 2 == 0 and numbers.size == text.count(" ") + 1:
            total = size[0] * size[1]
            # The largest number is looked at first: sums of numbers up to 2**63 would wrap around.
            if numbers.min() >= 1 and numbers.max() <= total:
                starts, lengths = numbers[::2] - 1, numbers[1::2]
                ends = starts + lengths
                if ends[-1] <= total and not (starts[1:] < ends[:-1]).any():
                    return starts, lengths
    raise RunLengthError(explain(text, size))


def area(text: str, size: tuple[int, int] = SIZE) -> int:
    """Pixels in the mask of a text, without drawing it; the text is checked as in ``runs``."""
    return int(runs(text, size)[1].sum())


def intersection(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
) -> int:
    """Pixels that two masks share, from their (starts, lengths) as ``runs`` gives them."""
    if not first[0].size or not second[0].size:
        return 0
    starts, lengths = first
    covered = np.cumsum(lengths)

    def covered_before(positions: np.ndarray) -> np.ndarray:
        # All runs that start earlier, less what the last of them has at or after the position.
        last = np.searchsorted(starts, positions) - 1
        overhang = np.maximum(starts[last] + lengths[last] - positions, 0)
        return np.where(last < 0, 0, covered[last] - overhang)

    starts_of_second, lengths_of_second = second
    ends_of_second = starts_of_second + lengths_of_second
    return int((covered_before(ends_of_second) - covered_before(starts_of_second)).sum())


def checked_mask(mask: np.ndarray) -> np.ndarray:
    """``mask`` as it came, if it is a two-dimensional array of booleans or whole numbers.

    Raises RunLengthError otherwise. Floating point is refused because it is nearly always a
    probability map that was not thresholded, of which every pixel would count.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise RunLengthError(f"a mask is (height, width), got the shape {mask.shape}; drop the other axes")
    if mask.dtype.kind not in "bui":
        raise RunLengthError(
            f"a mask holds booleans or whole numbers, got {mask.dtype}; compare it with a threshold first"
        )
    return mask


def _edges_across_lines(rows: np.ndarray) -> np.ndarray:
    """Where a row-major mask begins and ends, in turn, going down its columns: rising positions from 0.

    Comparing each row with the next and sorting the few hits is far cheaper than turning the image:
    memory is read in the order in which it lies.
    """
    height, width = rows.shape
    first, stop, largest = _touched(rows)
    on_border = first == 0 or stop == height
    # One empty row more on either side shows the mask's upper and lower edge.
    first, stop = max(first - 1, 0), min(stop + 1, height)
    hits = _changes(rows[first:stop].reshape(-1), width, largest)
    # A hit at row * width + column is an edge at column * height + row + 1, below the pixel it names.
    row = hits // width
    edges = (hits - row * width) * height + row
    edges += first + 1
    if on_border:
        # What lies on the image's own border has no neighbour to differ from. A run that goes on in
        # the next column would end and begin at the same place: it does neither.
        top, bottom = np.flatnonzero(rows[0]), np.flatnonzero(rows[-1])
        border = np.setxor1d(top * height, (bottom + 1) * height, assume_unique=True)
        edges = np.concatenate([edges, border])
    edges.sort()
    return edges


def _edges_along_lines(columns: np.ndarray) -> np.ndarray:
    """The same for the transposed view of a column-major mask: it lies in memory as the text runs."""
    first, stop, largest = _touched(columns)
    flat = columns[first:stop].reshape(-1)
    begin, end = np.flatnonzero(flat[:1]), np.flatnonzero(flat[-1:]) + flat.size
    edges = np.concatenate([begin, _changes(flat, 1, largest) + 1, end])
    return edges + first * columns.shape[1]


def _changes(flat: np.ndarray, step: int, largest: int) -> np.ndarray:
    """Positions of a flat unsigned mask where it is entered or left by the pixel ``step`` further on."""
    hits = np.flatnonzero(flat[step:] != flat[:-step])
    if largest > 1:
        # A step between two values that both belong to the mask is none.
        hits = hits[(flat[hits] > 0) != (flat[hits + step] > 0)]
    return hits


def _touched(lines: np.ndarray) -> tuple[int, int, int]:
    """First and stop of a stretch of lines that holds all pixels but zeros, and the largest pixel.

    Several lines are looked at together, because NumPy takes the maximum of a few long rows much
    faster than that of many short ones; the stretch may be that much too long.
    """
    count, length = lines.shape
    group = next(size for size in _GROUPS if count % size == 0)
    largest = np.maximum.reduce(lines.reshape(count // group, group * length), axis=1).tolist()
    touched = [index for index, value in enumerate(largest) if value]
    if not touched:
        return 0, 0, 0
    return touched[0] * group, (touched[-1] + 1) * group, max(largest)


def _fill(flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Set the pixels of runs to 1 in a flat column-major mask of zeros."""
    if not starts.size:
        return
    edges = np.empty(2 * starts.size, np.int64)
    edges[::2], edges[1::2] = starts, starts + lengths
    values = np.zeros(edges.size - 1, np.uint8)
    values[::2] = 1
    # From the first run's start to the last one's end, ones and gaps in turn.
    flat[edges[0] : edges[-1]] = np.repeat(values, np.diff(edges))


def _numbered(function: Callable[..., T], index: int, *arguments: object) -> T:
    try:
        return function(*arguments)
    except RunLengthError as fault:
        raise RunLengthError(f"mask {index}: {fault}") from fault
''')

write("kaggle_nerve/competition/rle_faults.py", r'''"""Says in words what is wrong with a run-length text. Slow, and only needed for a faulty one."""

import re

_WHOLE_NUMBER = re.compile(r"-?[0-9]+")
_DIGITS_AT_MOST = 30


def explain(text: str, size: tuple[int, int]) -> str:
    """The first fault of a text that breaks the rules of ``rle`` for masks of ``size`` (height, width).

    Numbers and runs are counted from 1, and starts are given as they stand in the text.
    """
    words = text.split(" ")
    if "" in words:
        return "the run-length text has a stray space: at its beginning, at its end, or two in a row"
    for place, word in enumerate(words, 1):
        if not _WHOLE_NUMBER.fullmatch(word):
            return f"number {place} of the run-length text, {_short(word)!r}, is not a whole number"
    if len(words) % 2:
        return f"the run-length text has an odd count of numbers ({len(words)}): a start lacks its length"
    height, width = size
    total, previous_start, end = height * width, 0, 0
    for place, pair in enumerate(zip(words[::2], words[1::2], strict=True), 1):
        start, length = map(_number, pair)
        run = f"run {place} ({' '.join(map(_short, pair))})"
        if start < 1:
            return f"{run} has a start below 1: pixels count from 1"
        if length < 1:
            return f"{run} has a length below 1: leave the run out"
        if start + length - 1 > total:
            return f"{run} goes past the end: {height} x {width} pixels end at {total}"
        if start < previous_start:
            return f"{run} is unsorted: the run before it starts at {previous_start}"
        if start <= end:
            return f"{run} overlaps the run before it, which ends at {end}"
        previous_start, end = start, start + length - 1
    raise AssertionError(f"no fault found in {_short(text)!r}, which failed the check")


def _number(word: str) -> int:
    # Python refuses to read numbers of thousands of digits. They are all too large, or below 1, alike.
    if len(word) > _DIGITS_AT_MOST:
        return -1 if word.startswith("-") else 10**_DIGITS_AT_MOST
    return int(word)


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:20] + "..."
''')

write("kaggle_nerve/competition/submission.py", r'''"""Submission files: write, read, and check down to the last byte.

``write`` gives the one form that is beyond doubt: UTF-8 without a byte-order mark, ``\\n`` line ends,
header ``img,pixels``, one row for each frame in rising order, nothing quoted, nothing after the comma
for an empty mask. ``check`` calls every departure from it a fault, except a missing end of the last
line. ``read`` is for looking at files at home and forgives what does not change their meaning.
"""

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition import csv_text, metric, rle
from kaggle_nerve.competition.csv_text import shown
from kaggle_nerve.competition.facts import SUBMISSION_HEADER
from kaggle_nerve.errors import NerveError
from kaggle_nerve.storage import atomic_path

HEADER = ",".join(SUBMISSION_HEADER)
_FRAME_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_WORDS_FOR_NOTHING = {"nan", "na", "n/a", "#n/a", "<na>", "null", "none", "nil", "-nan"}


@dataclass(frozen=True)
class Fault:
    """One fault: its line (from 1, the header's) or None where it is the whole file's, and what is wrong."""

    line: int | None
    message: str

    def __str__(self) -> str:
        return self.message if self.line is None else f"line {self.line}: {self.message}"


@dataclass(frozen=True)
class Report:
    """What ``check`` found: rows below the header, those with a readable mask, their pixels, and the faults."""

    path: Path
    rows: int
    non_empty: int
    pixels: int
    faults: tuple[Fault, ...]

    @property
    def share(self) -> float:
        """Share of the rows that have a mask, in [0, 1]; 0 where there are no rows."""
        return self.non_empty / self.rows if self.rows else 0.0

    @property
    def mean_area(self) -> float:
        """Mean pixels of the masks that are not empty and not faulty; 0 where there are none."""
        return self.pixels / self.non_empty if self.non_empty else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Figures and faults, ready for JSON."""
        return {
            "rows": self.rows,
            "non_empty": self.non_empty,
            "share": self.share,
            "mean_area": self.mean_area,
            "faults": [{"line": fault.line, "message": fault.message} for fault in self.faults],
        }

    def raise_if_faulty(self) -> None:
        """Raise a NerveError that tells the first fault and how to see the others."""
        if self.faults:
            more = len(self.faults) - 1
            others = f" (and {more} more; kaggle-nerve validate lists them)" if more else ""
            raise NerveError(f"{self.path} is not a valid submission: {self.faults[0]}{others}")


def write(path: Path, rows: Iterable[tuple[int, str]]) -> None:
    """Write (frame number, run-length text) pairs as a submission, in rising order, whole or not at all.

    The pairs may come in any order and from a generator. Raises NerveError, and leaves what was at
    ``path`` alone, for no pairs at all, a number below 1 or given twice, and a faulty text.
    """
    texts: dict[int, str] = {}
    for number, text in rows:
        img = operator.index(number)
        if img < 1:
            raise NerveError(f"cannot write frame {img} to {path}: frames count from 1")
        if img in texts:
            raise NerveError(f"cannot write frame {img} to {path} twice; give each frame one mask")
        try:
            rle.runs(text)
        except rle.RunLengthError as fault:
            raise NerveError(f"cannot write frame {img} to {path}: {fault}") from fault
        texts[img] = text
    if not texts:
        raise NerveError(f"cannot write {path}: there are no frames; predict some first")
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        file.write(f"{HEADER}\n")
        file.writelines(f"{img},{texts[img]}\n" for img in sorted(texts))


def read(path: Path) -> pd.DataFrame:
    """A submission as a table: ``img`` (int64) and ``pixels`` (text, "" for an empty mask), as they stand.

    Accepts byte-order marks, CRLF, quotes and any order; texts are not decoded. Raises NerveError
    with the line for what is no table of frames.
    """
    return _read(path, further=False)


def read_solution(path: Path) -> pd.DataFrame:
    """The true masks as a table: as ``read``, and whatever further columns the file has, such as ``Usage``, as text.

    The columns may stand in any order.
    """
    return _read(path, further=True)


def score(path: Path, solution: Path) -> metric.Score:
    """Score the submission file at ``path`` with the competition's metric against the solution file (see
    `read_solution`). NerveError for a faulty file, and where the two are of other frames.
    """
    return metric.score(read(path), read_solution(solution))


def check(path: Path, sample: Path | None = None) -> Report:
    """Find every fault of a submission file.

    With ``sample``, the competition's sample_submission.csv, its frames are expected in its order;
    without it, frames 1 to the largest found, with no gap. Faults in the file are in the report;
    NerveError is raised only for a file that cannot be opened, or an unusable ``sample``.
    """
    data = csv_text.read_bytes(path)
    expected = None if sample is None else read(sample)["img"].tolist()
    if expected == []:
        raise NerveError(f"{sample} has no rows below its header; fetch the competition's files again")
    faults: list[Fault] = []

    def found(line: int | None, message: str) -> None:
        faults.append(Fault(line, message))

    if unreadable := csv_text.unreadable(data):
        return Report(path, 0, 0, 0, (Fault(*unreadable),))
    if data.startswith(csv_text.BYTE_ORDER_MARK):
        found(1, "the file begins with a byte-order mark (BOM); save it as UTF-8 without BOM")
    if b"\r" in data:
        ends, line = data.count(b"\r"), data[: data.index(b"\r")].count(b"\n") + 1
        found(
            line, f"line ends are CR or CRLF (Windows), {ends} in all; save the file with LF (Unix) line ends"
        )
    lines = csv_text.lines(data)
    has_header = _FRAME_NUMBER.fullmatch(lines[0].partition(",")[0]) is None
    if not has_header:
        found(1, f"the header is missing; the first line must be {HEADER}")
    elif lines[0] != HEADER:
        found(1, f"the header is {shown(lines[0])}; it must be {HEADER}")
    frames: list[tuple[int, int]] = []
    rows = non_empty = pixels = 0
    for line, text in enumerate(lines[has_header:], 1 + has_header):
        rows += 1
        img, run_lengths, complaints = _row(text)
        if img is not None:
            frames.append((line, img))
        if run_lengths:
            try:
                pixels += rle.area(run_lengths)
                non_empty += 1
            except rle.RunLengthError as fault:
                complaints.append(_reading(run_lengths, fault))
        for complaint in complaints:
            found(line, complaint)
    if not rows:
        found(None, "there are no rows below the header")
    faults.extend(_faults_of_frames(frames, expected))
    faults.sort(key=lambda fault: (fault.line is None, fault.line or 0))
    return Report(path, rows, non_empty, pixels, tuple(faults))


def _row(text: str) -> tuple[int | None, str, list[str]]:
    """Frame number, run-length text and complaints about one line."""
    if not text.strip():
        return None, "", ["the line is blank; delete it"]
    complaints = []
    if '"' in text or "'" in text:
        complaints.append("the line has quotation marks; write the fields without them")
        text = text.replace('"', "").replace("'", "")
    fields = text.split(",")
    if len(fields) != 2:
        columns = "no comma" if len(fields) == 1 else f"{len(fields)} columns"
        complaints.append(f"the line has {columns}; it must be {HEADER}, with nothing behind")
    number, run_lengths = fields[0], "".join(fields[1:2])
    if _FRAME_NUMBER.fullmatch(number):
        return int(number), run_lengths, complaints
    complaints.append(f"the frame number is {shown(number)}; it must be a whole number, such as 12")
    return None, run_lengths, complaints


def _reading(run_lengths: str, fault: Exception) -> str:
    if run_lengths.strip().lower() in _WORDS_FOR_NOTHING:
        return f"the mask is {shown(run_lengths)}; an empty mask is nothing after the comma"
    return str(fault)


def _faults_of_frames(frames: list[tuple[int, int]], expected: list[int] | None) -> list[Fault]:
    """Unknown, repeated, misplaced and missing frames. ``frames`` holds (line, img) as they stand."""
    place = None if expected is None else {img: index for index, img in enumerate(expected)}
    faults, line_of, misplaced, furthest = [], {}, [], None
    for line, img in frames:
        if place is not None and img not in place:
            faults.append(Fault(line, f"frame {img} is unknown to the sample submission"))
        elif img in line_of:
            faults.append(Fault(line, f"frame {img} stands on line {line_of[img]} already"))
        else:
            line_of[img] = line
            at = img if place is None else place[img]
            if furthest is not None and at < furthest[0]:
                misplaced.append((line, img, furthest[1]))
            else:
                furthest = at, img
    if misplaced:
        line, img, before = misplaced[0]
        order = "rise" if place is None else "follow the sample submission"
        message = f"frame {img} stands after frame {before}; rows must {order} ({len(misplaced)} do not)"
        faults.append(Fault(line, message))
    if place is None:
        missing = [(a + 1, b - 1) for a, b in pairwise([0, *sorted(line_of)]) if b - a > 1]
    else:
        missing = _ranges([img for img in place if img not in line_of])
    if missing:
        count = sum(last - first + 1 for first, last in missing)
        named = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in missing[:10])
        more = ", ..." if len(missing) > 10 else ""
        faults.append(Fault(None, f"frames are missing ({count} in all): {named}{more}"))
    return faults


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Numbers as (first, last) of each unbroken stretch, rising."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        joins = bool(ranges) and ranges[-1][1] == number - 1
        first = ranges.pop()[0] if joins else number
        ranges.append((first, number))
    return ranges


def _read(path: Path, further: bool) -> pd.DataFrame:
    """``further``: whether other columns may stand beside img and pixels."""
    data = csv_text.read_bytes(path)
    if unreadable := csv_text.unreadable(data):
        raise NerveError(f"cannot read {path}: {Fault(*unreadable)}")
    header, *rows = ([field.strip(" \"'") for field in line.split(",")] for line in csv_text.lines(data))
    suits = set(header) >= set(SUBMISSION_HEADER) if further else tuple(header) == SUBMISSION_HEADER
    if not suits or len(set(header)) < len(header):
        wanted = f"{HEADER}, with other columns beside these two if you like" if further else HEADER
        raise NerveError(f"cannot read {path}: the header is {shown(','.join(header))}; it must be {wanted}")
    img = header.index("img")
    for line, fields in enumerate(rows, 2):
        if fields != [""] and (len(fields) != len(header) or not _FRAME_NUMBER.fullmatch(fields[img])):
            row, wanted = shown(",".join(fields)), ",".join(header)
            raise NerveError(f"cannot read {path}: line {line} is {row}; it must be {wanted}")
    table = pd.DataFrame([fields for fields in rows if fields != [""]], columns=header, dtype="str")
    return table.astype({"img": np.int64})
''')

write("kaggle_nerve/settings/__init__.py", r'''"""Presets and run settings: TOML in, frozen dataclasses out, every mistake named.

A preset is a TOML file in ``kaggle_nerve/presets``; a run keeps the settings it was made with in
``settings.toml``. Keys have one spelling, ``section.key``.
"""

from kaggle_nerve.settings.files import default_name, load_preset, load_settings, preset_names, save_settings
from kaggle_nerve.settings.schema import (
    AugmentationSettings,
    LossSettings,
    ModelSettings,
    OptimiserSettings,
    PredictionSettings,
    Settings,
    TrainingSettings,
)
from kaggle_nerve.settings.text import apply_changes, dump, parse

__all__ = [
    "AugmentationSettings",
    "LossSettings",
    "ModelSettings",
    "OptimiserSettings",
    "PredictionSettings",
    "Settings",
    "TrainingSettings",
    "apply_changes",
    "default_name",
    "dump",
    "load_preset",
    "load_settings",
    "parse",
    "preset_names",
    "save_settings",
]
''')

write("kaggle_nerve/settings/files.py", r'''"""Presets, which lie in the package, and the settings that a run was made with."""

from importlib import resources
from pathlib import Path

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings.schema import Settings
from kaggle_nerve.settings.text import apply_changes, dump, nearest, parse
from kaggle_nerve.storage import write_text


def preset_names() -> list[str]:
    """The names of the presets in the package, sorted."""
    files = resources.files("kaggle_nerve.presets").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_preset(name: str, changes: tuple[str, ...] = ()) -> Settings:
    """The preset ``name`` with ``KEY=VALUE`` changes. NerveError for an unknown name, key or value."""
    if name not in preset_names():
        hint = nearest(name, preset_names())
        raise NerveError(f"No preset is called {name!r}{hint}; `kaggle-nerve presets` lists them.")
    text = (resources.files("kaggle_nerve.presets") / f"{name}.toml").read_text(encoding="utf-8")
    return apply_changes(parse(text, f"preset {name}"), changes)


def default_name(preset: str, settings: Settings) -> str:
    """What a run of these settings is called: as the preset, with a tag where some were changed, so that two
    variants never mix.
    """
    changed = settings.digest() != load_preset(preset).digest()
    return f"{preset}-{settings.digest()[:6]}" if changed else preset


def load_settings(path: Path) -> Settings:
    """The settings that a run was made with."""
    if not path.is_file():
        raise NerveError(f"{path} is missing, so this is not a run; name a run made by `train-folds`.")
    return parse(path.read_text(encoding="utf-8"), str(path))


def save_settings(settings: Settings, path: Path) -> None:
    """Write ``settings`` as TOML, atomically."""
    write_text(path, dump(settings))
''')

write("kaggle_nerve/settings/schema.py", r'''"""What can be set, with its range and its default."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, get_args

from kaggle_nerve.storage import digest_text

Encoder = Literal[
    "none",
    "efficientnetv2-b0",
    "efficientnetv2-b1",
    "efficientnetv2-b2",
    "efficientnetv2-b3",
    "efficientnetv2-s",
    "efficientnet-b1",
    "resnet50",
    "convnext-tiny",
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
]
"""Encoders of keras.applications, and EfficientNet-Lite."""

Tta = Literal["none", "hflip", "flips", "scales"]
Combine = Literal["mean", "logits", "agreement"]

ENCODERS: tuple[str, ...] = get_args(Encoder)[1:]
TTA: tuple[str, ...] = get_args(Tta)
COMBINE: tuple[str, ...] = get_args(Combine)

ALL: Final = "all"
"""In place of a fold's number: the fold that holds nobody out. Its model is trained on every subject."""

FoldName = int | Literal["all"]
"""A fold's number from 0, or `ALL`."""

AND_ALL = "+all"
"""The end of the setting ``folds`` where that fold is trained, too."""

LATER = {
    "prediction.combine": "mean",
    "loss.empty_frames": 1.0,
    "model.frozen": 0,
    "model.presence_pool": "mean",
    "model.window": 1.0,
    "augmentation.elastic": 0.0,
    "augmentation.gain": 0.0,
    "augmentation.sharpness": 0.0,
}
"""Keys younger than stored runs, and the value that those were made with: it leaves their digests as they were."""


@dataclass(frozen=True)
class Range:
    """The least and the largest value of a number, both allowed."""

    low: float
    high: float


Share = Annotated[float, Range(0, 1)]
Weight = Annotated[float, Range(0, 100)]


@dataclass(frozen=True)
class ModelSettings:
    """The network. Channels double at each of ``depth`` poolings, from ``width`` up to ``widest``.

    ``skip``: how the encoder's features reach the decoder: as they are, through a residual 1x1 branch
    or through an attention gate (for ``segnet``, whose decoder unpools, ``plain`` means not at all).
    ``encoder`` takes the place of the downward half; ``weights`` are its pretrained ones: ``none``,
    ``imagenet``, or a file; of its five resolutions the ``frozen`` finest keep them as they
    are. ``skip_dropout`` drops whole channels of the skips, ``dropout`` of the deepest features.
    ``presence_pool``: how the presence head averages features over the frame: the ``mean`` of the deepest, or,
    with ``attention``, also means of these and of less deep ones with a weight for each place.
    ``window``: the share of height and width that the network sees at least, in the middle of the columns and a
    little above that of the rows. Outside it no pixel is in a mask.
    """

    architecture: Literal["unet", "unet++", "segnet", "fpn", "deeplabv3+"] = "unet"
    encoder: Encoder = "none"
    weights: str = "none"
    frozen: Annotated[int, Range(0, 5)] = 0
    block: Literal["plain", "residual", "inception"] = "plain"
    down: Literal["pool", "stride"] = "pool"
    skip: Literal["plain", "residual", "attention"] = "plain"
    activation: Literal["relu", "elu"] = "relu"
    scse: bool = False
    deep_supervision: bool = False
    hypercolumns: bool = False
    width: Annotated[int, Range(1, 1024)] = 16
    depth: Annotated[int, Range(1, 6)] = 4
    widest: Annotated[int, Range(1, 4096)] = 256
    stem: Literal[1, 2, 4] = 1
    batch_norm: bool = True
    dropout: Annotated[float, Range(0, 0.9)] = 0.1
    skip_dropout: Annotated[float, Range(0, 0.9)] = 0.0
    presence: bool = True
    presence_pool: Literal["mean", "attention"] = "mean"
    window: Annotated[float, Range(0.2, 1)] = 1.0
    normalise: Literal["image", "unit"] = "image"


@dataclass(frozen=True)
class LossSettings:
    """Weights of the mask's losses and of the presence head's, and what shapes them.

    ``smooth``: pixels that smooth the Dice and Tversky ratios. Tversky counts a false pixel
    ``tversky_alpha`` times and a missed one ``tversky_beta`` times. ``focal_gamma`` is the exponent of
    focal and focal Tversky loss. ``deep``: weight of each coarser mask of deep supervision, against the
    next finer one.

    ``empty_frames``: what the mask's losses count on a frame without a mask. With 0 the map learns from
    frames with a mask alone, and says P(pixel in the mask | there is a mask); the presence head says
    whether there is one. With 1 the map says both at once.
    """

    dice: Weight = 1.0
    batch_dice: Weight = 0.0
    bce: Weight = 1.0
    focal: Weight = 0.0
    tversky: Weight = 0.0
    focal_tversky: Weight = 0.0
    lovasz: Weight = 0.0
    presence: Weight = 0.5
    smooth: Annotated[float, Range(1e-6, 1e6)] = 1.0
    focal_gamma: Annotated[float, Range(0, 10)] = 2.0
    tversky_alpha: Annotated[float, Range(0, 10)] = 0.3
    tversky_beta: Annotated[float, Range(0, 10)] = 0.7
    deep: Annotated[float, Range(0, 10)] = 0.5
    empty_frames: Share = 1.0

    @property
    def is_conditional(self) -> bool:
        """Whether maps say P(pixel in the mask | there is a mask), not P(pixel in the mask)."""
        return self.empty_frames == 0


@dataclass(frozen=True)
class OptimiserSettings:
    """How weights change. ``warmup`` is a share of the run.

    ``schedule``: ``cosine`` falls to 0 once; ``cyclic`` falls to 0 ``cycles`` times; ``step`` multiplies
    by ``factor`` after each of ``steps`` equal parts; ``plateau`` multiplies by ``factor`` after
    ``plateau`` epochs without a better score.
    """

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Range(1e-8, 10)] = 1e-3
    weight_decay: Share = 1e-4
    momentum: Annotated[float, Range(0, 0.9999)] = 0.9
    schedule: Literal["cosine", "constant", "step", "plateau", "cyclic"] = "cosine"
    warmup: Annotated[float, Range(0, 0.9)] = 0.05
    steps: Annotated[int, Range(1, 100)] = 3
    factor: Annotated[float, Range(0.001, 0.999)] = 0.1
    plateau: Annotated[int, Range(1, 1000)] = 4
    cycles: Annotated[int, Range(1, 100)] = 4
    clip_norm: Annotated[float, Range(0, 1e6)] = 0.0


@dataclass(frozen=True)
class TrainingSettings:
    """Epochs, batches, when to stop, and which weights are kept.

    ``positive_rate`` is the share of frames with a mask in the first epoch; it falls in a straight
    line to the training set's own share over ``positive_share`` of the run (0 keeps the natural share).
    ``one_per_subject``: no two frames of a batch come from one subject. ``patience`` counts epochs
    without a better validation score; 0 never stops early.

    ``average``: ``best`` keeps the best epoch; ``ema`` an exponential mean over the steps with
    ``ema_decay``; ``swa`` the mean over the epochs of the last ``swa_share`` of the run; ``top`` the mean
    of the ``top`` best epochs' weights; ``snapshots`` an ensemble of the ends of the learning rate's
    cycles. ``precision``: ``auto`` takes what suits the device.

    ``warm_size`` (height, width), if not [0, 0], trains the first ``warm_share`` of the epochs at that
    size. ``start`` is a model file, or a run whose fold of the same number is taken, to start from.
    ``noise``: what to do with the frames that the table ``noise_table`` (``audit`` writes it) marks:
    ``weight`` counts them less, ``soft`` softens their presence target. ``jit`` lets XLA compile the
    network where that is faster.
    """

    epochs: Annotated[int, Range(1, 10000)] = 30
    batch: Annotated[int, Range(1, 4096)] = 16
    patience: Annotated[int, Range(0, 10000)] = 0
    positive_rate: Share = 0.0
    positive_share: Share = 0.5
    one_per_subject: bool = False
    collapse_epochs: Annotated[int, Range(1, 10000)] = 5
    jit: bool = True
    precision: Literal["float32", "auto", "mixed_float16", "mixed_bfloat16"] = "float32"
    average: Literal["best", "ema", "swa", "top", "snapshots"] = "best"
    ema_decay: Annotated[float, Range(0.5, 0.99999)] = 0.99
    swa_share: Share = 0.3
    top: Annotated[int, Range(1, 20)] = 3
    warm_size: tuple[int, int] = (0, 0)
    warm_share: Annotated[float, Range(0, 0.9)] = 0.3
    start: str = ""
    noise: Literal["none", "weight", "soft"] = "none"
    noise_table: str = ""
    deterministic: bool = False

    @property
    def jit_compile(self) -> str | bool:
        """What Keras is told. Its ``auto`` compiles on JAX and on GPUs, but not TensorFlow on a processor,
        whose own kernels were measured to be faster than what XLA makes there.
        """
        return "auto" if self.jit else False


@dataclass(frozen=True)
class AugmentationSettings:
    """Ranges of the random changes, drawn uniformly for each frame.

    Flips are probabilities; ``rotate`` is in degrees; ``shift`` a share of the frame; ``scale`` and
    ``gamma`` are the largest factor (1.2: from 1/1.2 to 1.2); ``contrast`` a share around 1;
    ``brightness`` and ``noise`` (its standard deviation) are shares of the full range of grey. ``elastic``
    bends the frame smoothly by at most this share of it; ``gain`` brightens and darkens its regions
    smoothly, by at most this share; ``sharpness`` is the share of the finest details that is added or taken.
    """

    hflip: Share = 0.5
    vflip: Share = 0.0
    rotate: Annotated[float, Range(0, 180)] = 10.0
    shift: Annotated[float, Range(0, 0.5)] = 0.08
    scale: Annotated[float, Range(1, 4)] = 1.15
    contrast: Share = 0.2
    brightness: Share = 0.1
    gamma: Annotated[float, Range(1, 5)] = 1.2
    noise: Share = 0.02
    elastic: Annotated[float, Range(0, 0.5)] = 0.0
    gain: Share = 0.0
    sharpness: Share = 0.0


@dataclass(frozen=True)
class PredictionSettings:
    """How frames are predicted, out-of-fold and test alike.

    ``tta`` adds the mirrored view, or (``flips``) all four of left-right and up-down, or (``scales``) both
    left-right ones at zoom 0.9, 1 and 1.1. ``combine``: how the views of a frame, and a run's folds on a
    test frame, become one: the mean of probabilities or of their log-odds, or a mean in which those count
    most that agree with the others on this frame.
    """

    tta: Tta = "hflip"
    combine: Combine = "mean"
    batch: Annotated[int, Range(1, 4096)] = 32


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes.

    ``size`` is (height, width); ``folds`` is the number of patient-grouped folds, or TRAIN/HELD
    (such as ``42/5``) for one plain hold-out of subjects; with ``+all`` at its end (``3+all``) a model of
    all subjects joins the ensemble.
    """

    description: str = ""
    size: tuple[int, int] = (96, 128)
    folds: str = "5"
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    model: ModelSettings = field(default_factory=ModelSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    prediction: PredictionSettings = field(default_factory=PredictionSettings)

    @property
    def trains_all(self) -> bool:
        """Whether the fold `ALL` is trained after the others."""
        return self.folds.endswith(AND_ALL)

    def flat(self) -> dict[str, Any]:
        """``section.key`` -> value, in the order of the file."""
        return dict(_flatten(self))

    def difference(self, other: "Settings") -> tuple[str, Any, Any] | None:
        """The first key, but for the description, whose values differ, and both values; None where none does."""
        theirs = other.flat()
        differing = (
            key for key, value in self.flat().items() if key != "description" and theirs[key] != value
        )
        key = next(differing, None)
        return None if key is None else (key, self.flat()[key], theirs[key])

    def digest(self) -> str:
        """SHA-256 of what the run computes; the description does not count."""
        values = {
            key: value
            for key, value in self.flat().items()
            if key != "description" and value != LATER.get(key)
        }
        return digest_text(json.dumps(values, sort_keys=True))


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for item in dataclasses.fields(value):
        inner = getattr(value, item.name)
        if dataclasses.is_dataclass(inner):
            rows += _flatten(inner, f"{prefix}{item.name}.")
        else:
            rows.append((prefix + item.name, inner))
    return rows
''')

write("kaggle_nerve/settings/text.py", r'''"""Settings as TOML: reading, changing, writing; an unknown key is an error that names the nearest known one."""

import dataclasses
import difflib
import json
import re
import tomllib
import types
from typing import Annotated, Any, Literal, get_args, get_origin

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings.schema import Settings


def parse(text: str, source: str) -> Settings:
    """Settings from TOML; ``source`` names it in errors."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise NerveError(f"{source} is not valid TOML: {fault}.") from fault
    return _replace(Settings(), dict(_flatten_tree(tree)), source)


def apply_changes(settings: Settings, changes: tuple[str, ...]) -> Settings:
    """``settings`` with ``section.key=value`` changes, values written as in TOML (bare words are text)."""
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise NerveError(f"--set {change!r} has no '='; write it as section.key=value.")
        values[key.strip()] = _parse_value(text.strip())
    return _replace(settings, values, "--set")


def dump(settings: Settings) -> str:
    """``settings`` as TOML text that ``parse`` reads back to an equal value."""
    lines, section = [], ""
    for key, value in settings.flat().items():
        head, _, name = key.rpartition(".")
        if head != section:
            section = head
            lines.append(f"\n[{section}]")
        lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _flatten_tree(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            rows += _flatten_tree(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, value))
    return rows


def _replace(settings: Settings, values: dict[str, Any], source: str) -> Settings:
    known = list(settings.flat())
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key not in known:
            raise NerveError(f"{source}: there is no key {key!r}{nearest(key, known)}.")
        section, _, name = key.rpartition(".")
        owner = getattr(settings, section) if section else settings
        declared = next(item for item in dataclasses.fields(owner) if item.name == name)
        sections.setdefault(section, {})[name] = _checked(declared.type, value, key, source)
    top = sections.pop("", {})
    for section, inner in sections.items():
        top[section] = dataclasses.replace(getattr(settings, section), **inner)
    changed = dataclasses.replace(settings, **top)
    _check_together(changed, source)
    return changed


def _checked(kind: Any, value: Any, key: str, source: str) -> Any:
    """``value`` as ``kind`` (what the settings are annotated with) wants it; NerveError for one that does not fit."""
    bounds, choices = None, ()
    if get_origin(kind) is Annotated:
        kind, bounds = get_args(kind)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        kind = type(choices[0])
    if kind is float and type(value) is int:
        value = float(value)
    if kind is str and type(value) is int:
        value = str(value)
    if get_origin(kind) is tuple and isinstance(value, list):
        value = tuple(value)
    if not _is_a(value, kind):
        raise NerveError(f"{source}: {key} = {value!r} must be {_spell(kind)}.")
    if choices and value not in choices:
        raise NerveError(f"{source}: {key} = {value!r} must be one of {', '.join(map(str, choices))}.")
    if bounds and not bounds.low <= value <= bounds.high:
        raise NerveError(f"{source}: {key} = {value!r} must lie between {bounds.low} and {bounds.high}.")
    return value


def _check_together(settings: Settings, source: str) -> None:
    if min(settings.size) < 8 or max(settings.size) > 4096:
        raise NerveError(f"{source}: size = {list(settings.size)} must be height and width from 8 to 4096.")
    if not re.fullmatch(r"(?!1$|1\+)[1-9]\d*(/[1-9]\d*)?(\+all)?", settings.folds):
        raise NerveError(
            f"{source}: folds = {settings.folds!r} must be a number from 2, or TRAIN/HELD such as 42/5, each alone "
            "or with +all behind it."
        )
    for requirement in _together(settings):
        if not requirement[0]:
            raise NerveError(f"{source}: {requirement[1]}")


def _together(settings: Settings) -> list[tuple[bool, str]]:
    """(whether it holds, what is wrong where it does not) for keys that lean on each other."""
    model, loss, training = settings.model, settings.loss, settings.training
    mask_losses = [
        loss.dice,
        loss.batch_dice,
        loss.bce,
        loss.focal,
        loss.tversky,
        loss.focal_tversky,
        loss.lovasz,
    ]
    warm = training.warm_size
    return [
        (any(mask_losses), "every loss of the mask has weight 0, so nothing trains it; set loss.dice=1."),
        (
            not loss.is_conditional or (model.presence and loss.presence > 0),
            "loss.empty_frames = 0 leaves it to the presence head to say which frames are empty; set "
            "model.presence=true and loss.presence=0.5.",
        ),
        (
            model.window == 1 or (settings.augmentation.vflip == 0 and settings.prediction.tta != "flips"),
            f"model.window = {model.window} leaves out more below than above, which frames upside down would turn "
            "round; set augmentation.vflip=0 and prediction.tta=scales, or model.window=1.",
        ),
        (
            loss.tversky == loss.focal_tversky == 0 or loss.tversky_alpha + loss.tversky_beta > 0,
            "loss.tversky_alpha and loss.tversky_beta are both 0; set one of them.",
        ),
        (
            model.architecture not in ("fpn", "deeplabv3+") or model.encoder != "none",
            f"model.architecture = {model.architecture!r} needs an encoder, such as model.encoder=resnet50.",
        ),
        (
            model.architecture != "segnet" or model.encoder == "none",
            "model.architecture = 'segnet' unpools where its own encoder pooled; set model.encoder=none.",
        ),
        (
            model.weights == "none" or model.encoder != "none",
            f"model.weights = {model.weights!r} belong to a pretrained encoder; name it in model.encoder.",
        ),
        (
            not model.frozen or model.weights != "none",
            f"model.frozen = {model.frozen} would keep random weights; set model.weights=imagenet or model.frozen=0.",
        ),
        (
            warm == (0, 0) or min(warm) >= 8,
            f"training.warm_size = {list(warm)} must be height and width from 8, or [0, 0] for none.",
        ),
        (
            training.average != "snapshots" or settings.optimiser.schedule == "cyclic",
            "training.average = 'snapshots' needs cycles; set optimiser.schedule=cyclic.",
        ),
        (
            (training.noise == "none") == (not training.noise_table),
            "training.noise and training.noise_table go together; set both or neither.",
        ),
        (
            training.noise != "soft" or model.presence,
            "training.noise = 'soft' softens the presence target; set model.presence=true.",
        ),
    ]


def _is_a(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_is_a, value, inner))
    return type(value) is kind


def _spell(kind: Any) -> str:
    if isinstance(kind, types.GenericAlias):
        return "[height, width]"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def nearest(word: str, known: list[str]) -> str:
    """``; did you mean ...?`` for the known word most like ``word``, or nothing."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    if not close:
        tails = {name.rpartition(".")[2]: name for name in known}
        close = [tails[tail] for tail in difflib.get_close_matches(word, list(tails), n=1, cutoff=0.6)]
    return f"; did you mean {close[0]!r}?" if close else ""
''')

write("kaggle_nerve/maps/__init__.py", r'''"""The probability map: its levels, its way to full size, several maps become one, an ensemble's brought to scale."""
''')

write("kaggle_nerve/maps/blending.py", r'''"""Several probability maps of one frame, from views, folds or runs, into one."""

import numpy as np

METHODS = ("mean", "logits", "agreement")
SHARPNESS = 100.0
"""Base of the weights by agreement, as in jwliao1209's entry to this competition."""

SAME = 1e-9
"""Relative difference below which two eigenvalues count as one."""

CERTAIN = 1e-4
"""How near to 0 or 1 a probability is believed."""


def combine(maps: np.ndarray, method: str = "mean", weights: np.ndarray | None = None) -> np.ndarray:
    """One map from ``maps`` (members, height, width), probabilities from 0 to 1; float32 (height, width).

    ``mean`` takes the mean of probabilities and ``logits`` that of their log-odds, both with
    ``weights`` (members,) of any scale if given; ``agreement`` weighs each member by how far it agrees
    with the others on this very frame (`agreement_weights`), on top of ``weights``.
    """
    shares = np.ones(len(maps)) if weights is None else np.asarray(weights, float)
    if method == "agreement" and len(maps) > 1:
        shares = shares * agreement_weights(maps)
    shares = (shares / shares.sum()).astype(np.float32)
    if method == "logits":
        return from_log_odds(np.tensordot(shares, log_odds(maps), 1))
    return np.tensordot(shares, maps.astype(np.float32), 1)


class Mixer:
    """Maps and presences of the same frames from several members, combined as the members come in.

    ``method`` is one of `METHODS`, for each frame as in `combine`; the presences get the same weights as
    the frame's maps. ``mean`` and ``logits`` keep running sums; ``agreement`` has to see all members of a
    frame first, and keeps their maps as float16.
    """

    def __init__(self, method: str = "mean"):
        self.method = method
        self._count = 0
        self._sums: list[np.ndarray] = []
        self._maps: list[np.ndarray] = []
        self._presences: list[np.ndarray] = []

    def add(self, maps: np.ndarray, presence: np.ndarray) -> None:
        """Take a member's maps (n, height, width) and presences (n,), all from 0 to 1."""
        self._count += 1
        if self.method == "agreement":
            self._maps.append(maps.astype(np.float16))
            self._presences.append(presence)
            return
        values = [log_odds(each) if self.method == "logits" else each for each in (maps, presence)]
        self._sums = [a + b for a, b in zip(self._sums, values, strict=True)] if self._sums else values

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """What the members make together, float32: maps (n, height, width) and presences (n,)."""
        if self.method == "agreement":
            return self._agreed()
        maps, presence = (total / self._count for total in self._sums)
        return (maps, presence) if self.method == "mean" else (from_log_odds(maps), from_log_odds(presence))

    def _agreed(self) -> tuple[np.ndarray, np.ndarray]:
        maps = np.empty(self._maps[0].shape, np.float32)
        presence = np.empty(len(maps), np.float32)
        for row in range(len(maps)):
            members = np.stack([each[row] for each in self._maps])
            weights = agreement_weights(members)
            maps[row] = combine(members, "mean", weights)
            presence[row] = weights @ np.array([each[row] for each in self._presences])
        return maps, presence


def agreement_weights(maps: np.ndarray) -> np.ndarray:
    """Weights (members,) that sum to 1 from the pairwise Dice of the maps (members, height, width).

    They grow with the leading eigenvector of the matrix of pairwise Dice, which is large for the
    members that agree with those that agree. Source: the "ASME" of jwliao1209's entry, after
    Parisi et al., "Ranking and combining multiple predictors without labeled data", PNAS 2014. Members
    that share nothing get equal parts.
    """
    return weights_of_dice(pairwise_dice(maps))


def weights_of_dice(dice: np.ndarray) -> np.ndarray:
    """The weights (members,) of `agreement_weights` from the members' pairwise Dice (members, members)."""
    values, vectors = np.linalg.eigh(dice)
    # Where several vectors lead, as with members that share nothing, which of them comes last is chance:
    # the one nearest to equal parts is taken.
    leading = vectors[:, values >= values[-1] * (1 - SAME)]
    part = np.abs(leading @ leading.sum(axis=0))
    powers = SHARPNESS ** (part / np.linalg.norm(part))
    return powers / powers.sum()


def pairwise_dice(maps: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Dice between all pairs of the maps' masks at ``threshold``, (members, members); 1 for two empty ones."""
    masks = (maps >= np.float32(threshold)).reshape(len(maps), -1).astype(np.float32)
    shared, areas = masks @ masks.T, masks.sum(axis=1)
    both = areas[:, None] + areas[None, :]
    return np.divide(2 * shared, both, out=np.ones_like(both), where=both > 0).astype(np.float64)


def mean_agreement(maps: np.ndarray) -> float:
    """Mean Dice over the pairs of different members, 1 for a single one."""
    count = len(maps)
    return 1.0 if count == 1 else float((pairwise_dice(maps).sum() - count) / (count * (count - 1)))


def log_odds(probability: np.ndarray | float) -> np.ndarray:
    """The logarithm of p / (1 - p), with p kept `CERTAIN` away from 0 and 1; float32 at least."""
    values = np.asarray(probability)
    kept = np.clip(values.astype(np.promote_types(values.dtype, np.float32)), CERTAIN, 1 - CERTAIN)
    return np.log(kept / (1 - kept))


def from_log_odds(odds: np.ndarray) -> np.ndarray:
    """The probability of log-odds of any size."""
    # By way of tanh, which nothing overflows.
    return (1 + np.tanh(odds / 2)) / 2
''')

write("kaggle_nerve/maps/fullsize.py", r'''"""From working size back to the competition's: resize probabilities first, decide afterwards.

Thresholding at working size and enlarging the mask costs up to 0.04 Dice.
"""

import cv2
import numpy as np

from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import SIZE


def enlarge(probability: np.ndarray, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A probability map (height, width) of any float type at ``size``, as float32 from 0 to 1."""
    return cv2.resize(np.asarray(probability, np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)


class Truths:
    """True masks held as the flat positions of their pixels: a few kilobytes a frame."""

    def __init__(self, pixels: list[str], size: tuple[int, int] = SIZE):
        """``pixels``: the run-length encodings, '' where there is no mask."""
        self.size = size
        self._where = [np.flatnonzero(rle.decode(text, size)).astype(np.int32) for text in pixels]
        self.areas = np.array([len(where) for where in self._where])

    def __len__(self) -> int:
        return len(self._where)

    def inside(self, row: int, values: np.ndarray) -> np.ndarray:
        """The pixels of ``values`` (height, width) that lie in true mask ``row``, flat."""
        return values.reshape(-1)[self._where[row]]

    def mask(self, row: int) -> np.ndarray:
        """True mask ``row`` as bool (height, width)."""
        mask = np.zeros(self.size, bool)
        mask.reshape(-1)[self._where[row]] = True
        return mask

    def counts(self, row: int, full: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predicted area and intersection with true mask ``row`` at each threshold (rising), in pixels.

        ``full``: the probability map at full size. A pixel is in the mask where it is >= the threshold.
        """
        flat = full.reshape(-1)
        candidates = flat[flat >= thresholds[0]]
        inside = flat[self._where[row]]
        return _at_least(candidates, thresholds), _at_least(inside, thresholds)


def _at_least(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return np.array([np.count_nonzero(values >= threshold) for threshold in thresholds])
''')

write("kaggle_nerve/maps/levels.py", r'''"""Probability maps in 256 levels: all that a rule looks at, so that learning and applying agree to the pixel.

A map at full size is rounded to levels 0 to 255. What a threshold would give on a frame can then be
read from two histograms, and 4436 frames of 243,600 pixels become a table of nine megabytes.
"""

import math
from typing import overload

import cv2
import numpy as np

COUNT = 256
NOTHING = COUNT
"""The cut that no pixel reaches: the frame is called empty."""


def quantise(probability: np.ndarray) -> np.ndarray:
    """Levels, uint8, of a float32 map with values from 0 to 1."""
    return cv2.convertScaleAbs(probability, alpha=COUNT - 1)


def cut(threshold: float) -> int:
    """The lowest level that reaches a probability; at least 1, for no rule takes the whole frame."""
    # Rounded first: 0.6 * 255 is 153.00000000000003 for a computer's 0.6.
    return max(1, math.ceil(round(threshold * (COUNT - 1), 6)))


@overload
def probability(level: np.ndarray) -> np.ndarray: ...


@overload
def probability(level: float) -> float: ...


def probability(level):
    """The probability that a level stands for."""
    return level / (COUNT - 1)


def histogram(levels: np.ndarray) -> np.ndarray:
    """How many pixels have each level, int32 (256,)."""
    return cv2.calcHist([levels], [0], None, [COUNT], [0, COUNT]).reshape(-1).astype(np.int32)


def at_least(histograms: np.ndarray) -> np.ndarray:
    """From histograms (..., 256) how many pixels reach each cut 0 to 256, int32 (..., 257)."""
    reached = np.zeros((*histograms.shape[:-1], COUNT + 1), np.int32)
    reached[..., :COUNT] = np.cumsum(histograms[..., ::-1], axis=-1)[..., ::-1]
    return reached
''')

write("kaggle_nerve/maps/matching.py", r'''"""The ensemble's probabilities brought to the scale of a single fold's, on which the decision is learned.

A mean over folds is less extreme than each of them: pixels over 0.95 get rare, and thresholds, areas
and calibrations learned on out-of-fold predictions, which are a single model's, then find too few
masks. So the ensemble keeps its order of pixels and of frames, and takes over the distribution of the
single folds on the same frames: quantile matching, which looks at no label.
"""

from dataclasses import dataclass

import numpy as np

from kaggle_nerve.maps import levels


def curve(ensemble: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """For each level of the ensemble the probability that stands at the same quantile of the folds, (256,).

    ``ensemble``, ``folds``: how many pixels have each level, (256,) each.
    """
    edges = np.clip(levels.probability(np.arange(levels.COUNT + 1) - 0.5), 0, 1)
    reached = np.concatenate([[0], np.cumsum(folds)]) / max(folds.sum(), 1)
    middle = (np.cumsum(ensemble) - ensemble / 2) / max(ensemble.sum(), 1)
    return np.interp(middle, reached, edges)


def match_values(ensemble: np.ndarray, folds: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """The values (n,) of the ensemble with the distribution of the folds' (n, folds), in their own order.

    ``values`` (m,): those of other frames by the same ensemble, placed between its own.
    """
    known, times = np.unique(ensemble, return_counts=True)
    middle = (np.cumsum(times) - times / 2) / len(ensemble)
    return np.quantile(folds, np.interp(ensemble if values is None else values, known, middle))


@dataclass(frozen=True)
class Scale:
    """What brings an ensemble to the scale of its folds: a `curve` for maps (256,), and for presences those
    of the frames it was measured on, the ensemble's (n,) and the folds' (n, folds)."""

    curve: np.ndarray
    ensemble: np.ndarray
    folds: np.ndarray

    def presences(self, values: np.ndarray) -> np.ndarray:
        """The presences (m,) of any frames by the same ensemble, matched."""
        return match_values(self.ensemble, self.folds, values)

    def maps(self, maps: np.ndarray) -> "MatchedMaps":
        """The maps (m, height, width), float16, of any frames by the same ensemble, matched."""
        return MatchedMaps(maps, self.curve)


class MatchedMaps:
    """Maps (n, height, width) of float16, read row by row with each pixel moved along a `curve`."""

    def __init__(self, maps: np.ndarray, matched: np.ndarray):
        self._maps = maps
        # One entry for each number that float16 has: a look-up costs a tenth of an interpolation.
        every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
        number = np.isfinite(every)
        place = np.where(number, every, 0) * (levels.COUNT - 1)
        found = np.interp(place, np.arange(levels.COUNT), matched).astype(np.float32)
        self._table = np.where(number, found, np.float32(np.nan))

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, row: int) -> np.ndarray:
        return self._table[np.ascontiguousarray(self._maps[row]).view(np.uint16)]
''')

write("kaggle_nerve/data/__init__.py", r'''"""From the competition's files to arrays: frames, cache, folds, batches, and the synthetic phantom."""
''')

write("kaggle_nerve/data/cache.py", r'''"""Frames and masks at the working size, as memory-mapped uint8 arrays built once.

A cache is a folder: ``frames.npy`` (n, height, width), for training frames ``masks.npy`` of the same
shape (255 times the share of a working pixel that the mask covers), ``index.csv`` and
``manifest.json``. Its name holds the size and a digest of the files it was made from, so that other
data, or changed data, is another cache.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from filelock import FileLock

from kaggle_nerve.arrays import GrowingArrays
from kaggle_nerve.competition import facts, rle
from kaggle_nerve.data.frames import Layout, test_frames, training_frames
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.storage import completed, digest_text, mark_complete, write_json, write_text

FOLDER_VARIABLE = "KAGGLE_NERVE_CACHE"
"""Names the folder of caches, which else lie beside the data."""

FORMAT = "1"
CHUNK = 128
"""Frames between two notes of how far a build has come; a killed build loses at most these."""


@dataclass(frozen=True)
class Cache:
    """The arrays of one part of the data, opened read-only.

    ``source``: digest of the data, the same wherever it was unpacked. ``frames``: uint8 (n, height,
    width). ``masks``: the same shape, or None for test frames. ``table``: the rows' frames as
    `training_frames` or `test_frames` gives them.
    """

    folder: Path
    source: str
    frames: np.ndarray
    masks: np.ndarray | None
    table: pd.DataFrame


def open_training(
    layout: Layout, size: tuple[int, int], *, reporter: Reporter = SILENT, workers: int = 2
) -> Cache:
    """The cache of the training frames at ``size`` (height, width), built if need be."""
    return _open(training_frames(layout), layout, size, facts.TRAIN_FOLDER, reporter, workers)


def open_test(
    layout: Layout, size: tuple[int, int], *, reporter: Reporter = SILENT, workers: int = 2
) -> Cache:
    """The cache of the test frames at ``size`` (height, width), built if need be."""
    return _open(test_frames(layout), layout, size, facts.TEST_FOLDER, reporter, workers)


def training_source(layout: Layout) -> str:
    """The ``source`` that a cache of the training frames would have, without building one."""
    return _source(training_frames(layout), facts.TRAIN_FOLDER)


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``image`` (uint8) at ``size`` (height, width), each pixel the mean of those it stands for."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def _open(
    table: pd.DataFrame,
    layout: Layout,
    size: tuple[int, int],
    part: str,
    reporter: Reporter,
    workers: int,
) -> Cache:
    source = _source(table, part)
    digest = _digest(table, size, source)
    folder = _root(layout) / f"{size[0]}x{size[1]}-{digest[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with_masks = part == facts.TRAIN_FOLDER
    # The lock makes a second process wait for the first one's arrays instead of writing beside it.
    with FileLock(folder / ".lock"):
        if not completed(folder):
            _build(folder, table, size, with_masks, digest, reporter, workers)
            _describe(folder, table, size, part, source)
    masks = np.load(folder / "masks.npy", mmap_mode="r") if with_masks else None
    return Cache(folder, source, np.load(folder / "frames.npy", mmap_mode="r"), masks, table)


def _build(
    folder: Path,
    table: pd.DataFrame,
    size: tuple[int, int],
    with_masks: bool,
    digest: str,
    reporter: Reporter,
    workers: int,
) -> None:
    names = ["frames", "masks"] if with_masks else ["frames"]
    shape = (len(table), *size)
    growing = GrowingArrays(folder, dict.fromkeys(names, (shape, np.uint8)), digest)
    rows = list(table.itertuples(index=False))
    label = f"Caching at {size[0]}x{size[1]}"
    with ThreadPoolExecutor(workers) as pool, reporter.bar(label, len(rows)) as bar:
        bar.update(growing.done)
        for start in range(growing.done, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            for place, values in enumerate(pool.map(lambda row: _read(row, size, with_masks), chunk), start):
                for array, value in zip(growing.arrays.values(), values, strict=True):
                    array[place] = value
                bar.update()
            growing.note(start + len(chunk))
    growing.finish()


def _read(row: Any, size: tuple[int, int], with_mask: bool) -> list[np.ndarray]:
    values = [shrink(read_grey(row.path), size)]
    if with_mask:
        values.append(shrink(rle.decode(row.pixels, facts.SIZE) * np.uint8(255), size))
    return values


def _describe(folder: Path, table: pd.DataFrame, size: tuple[int, int], part: str, source: str) -> None:
    columns = [name for name in ("subject", "img", "area") if name in table]
    write_text(folder / "index.csv", table[columns].to_csv(index=False))
    facts_of_it = {"format": FORMAT, "part": part, "size": list(size), "frames": len(table), "source": source}
    write_json(folder / "manifest.json", facts_of_it)
    mark_complete(folder, facts_of_it)


def _source(table: pd.DataFrame, part: str) -> str:
    files = [f"{path.name} {path.stat().st_size}" for path in table.path]
    return digest_text(part, *files, *(table.pixels if "pixels" in table else ()))


def _digest(table: pd.DataFrame, size: tuple[int, int], source: str) -> str:
    # A file that was changed in place may keep its size, so its time counts here.
    times = [str(path.stat().st_mtime_ns) for path in table.path]
    return digest_text(FORMAT, str(tuple(size)), source, *times)


def _root(layout: Layout) -> Path:
    """The folder that KAGGLE_NERVE_CACHE names; else beside the data, or in the user's where that is read-only."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    beside = layout.root / ".cache"
    try:
        beside.mkdir(exist_ok=True)
        if os.access(beside, os.W_OK):
            return beside
    except OSError:
        pass
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaggle-nerve"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise NerveError(f"Neither {beside} nor {home} can be written; set XDG_CACHE_HOME.") from fault
    return home
''')

write("kaggle_nerve/data/folds.py", r'''"""Which subjects are held out when. Frames of one patient leak, so a subject is never on both sides."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings.schema import ALL, AND_ALL, FoldName
from kaggle_nerve.storage import write_text

ALWAYS_TRAIN = -1
"""The fold of subjects that a plain hold-out never holds out."""

COLUMNS = ["subject", "fold", "frames", "with_mask"]


def assign(frames: pd.DataFrame, folds: str, seed: int) -> pd.DataFrame:
    """One row per subject: subject, fold, frames, with_mask.

    ``frames`` has subject and has_mask; ``folds`` is a number K, or TRAIN/HELD for one hold-out
    (scaled where the data has another number of subjects); `AND_ALL` at its end changes nothing here. Both
    are stratified by the subject's positive rate: subjects are ranked by it, and each group of neighbours
    is dealt over the folds.
    """
    per_subject = frames.groupby("subject").has_mask.agg(["size", "sum"]).reset_index()
    per_subject.columns = ["subject", "frames", "with_mask"]
    rates = (per_subject.with_mask / per_subject.frames).to_numpy()
    folds = folds.removesuffix(AND_ALL)
    fold = _hold_out(rates, folds, seed) if "/" in folds else _k_folds(rates, int(folds), seed)
    return per_subject.assign(fold=fold)[COLUMNS]


def count(folds: pd.DataFrame) -> int:
    """How many folds are held out (1 for a plain hold-out)."""
    return int(folds.fold.max()) + 1


def split(frames: pd.DataFrame, folds: pd.DataFrame, fold: FoldName) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training and of the held-out frames of ``fold``, both rising; of `ALL` none is held out.

    Raises NerveError where a subject stands on both sides, or has no fold.
    """
    if fold == ALL:
        return np.arange(len(frames)), np.empty(0, int)
    if not 0 <= fold < count(folds):
        raise NerveError(f"There is no fold {fold}: the folds are 0 to {count(folds) - 1}.")
    unknown = set(frames.subject) - set(folds.subject)
    if unknown:
        raise NerveError(f"Subject {min(unknown)} has no fold in folds.csv; the data is not the run's own.")
    held = set(folds.subject[folds.fold == fold])
    trained = set(folds.subject[folds.fold != fold])
    if held & trained:
        raise NerveError(
            f"Subject {min(held & trained)} is in fold {fold} and outside it: a leak; mend folds.csv."
        )
    inside = frames.subject.isin(held).to_numpy()
    if inside.all() or not inside.any():
        raise NerveError(f"Fold {fold} leaves no frames to train on or none to validate on; use other folds.")
    return np.flatnonzero(~inside), np.flatnonzero(inside)


def save(folds: pd.DataFrame, path: Path) -> None:
    """Write folds.csv, atomically."""
    write_text(path, folds.to_csv(index=False))


def load(path: Path) -> pd.DataFrame:
    """Read folds.csv. NerveError for a wrong header, a subject with two folds, or a gap in the folds."""
    try:
        folds = pd.read_csv(path)
    except (OSError, ValueError) as fault:
        raise NerveError(f"{path} cannot be read ({fault}); restore it or start another run.") from fault
    if list(folds.columns) != COLUMNS:
        raise NerveError(f"{path} must have the columns {','.join(COLUMNS)}.")
    twice = folds.subject[folds.subject.duplicated()]
    if len(twice):
        raise NerveError(f"{path} puts subject {twice.iloc[0]} into two folds: a leak; keep one row each.")
    numbers = set(folds.fold) - {ALWAYS_TRAIN}
    if not numbers or numbers != set(range(max(numbers) + 1)):
        raise NerveError(f"{path} must number its folds from 0 without a gap.")
    return folds


def _k_folds(rates: np.ndarray, folds: int, seed: int) -> np.ndarray:
    if folds > len(rates):
        raise NerveError(
            f"{folds} folds need {folds} subjects or more; the data has {len(rates)}: lower --folds."
        )
    strata = _strata(rates, folds)
    fold = np.empty(len(rates), int)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(splitter.split(strata, strata)):
        fold[held] = number
    return fold


def _hold_out(rates: np.ndarray, folds: str, seed: int) -> np.ndarray:
    train, held = map(int, folds.split("/"))
    wanted = max(1, round(len(rates) * held / (train + held)))
    if wanted >= len(rates):
        raise NerveError(f"A hold-out {folds} of {len(rates)} subjects leaves none to train on.")
    strata = _strata(rates, len(rates) // wanted) if wanted > 1 else None
    strata = strata if strata is not None and strata.max() < wanted else None
    _, rows = train_test_split(np.arange(len(rates)), test_size=wanted, stratify=strata, random_state=seed)
    fold = np.full(len(rates), ALWAYS_TRAIN)
    fold[rows] = 0
    return fold


def _strata(rates: np.ndarray, width: int) -> np.ndarray:
    """Subjects of like positive rate share a stratum of ``width`` members (the last one may be wider)."""
    ranks = np.argsort(np.argsort(rates, kind="stable"), kind="stable")
    return np.minimum(ranks // width, max(len(rates) // width - 1, 0))
''')

write("kaggle_nerve/data/frames.py", r'''"""The competition's frames as tables: what lies in a data directory, and what the CSV says of it."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kaggle_nerve.competition import facts, rle
from kaggle_nerve.errors import NerveError


@dataclass(frozen=True)
class Layout:
    """Where the parts of a data directory lie. ``train_csv`` and ``sample_csv`` may be missing files."""

    root: Path
    train: Path
    test: Path
    train_csv: Path
    sample_csv: Path


def locate(data_dir: Path) -> Layout:
    """The layout of ``data_dir``; old unpackings with ``train/train/`` inside are understood.

    Raises NerveError where there is no such directory or no training folder in it.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise NerveError(
            f"There is no data directory {root}; run `kaggle-nerve fetch` or name it with --data."
        )
    train, test = (_unnested(root / name) for name in (facts.TRAIN_FOLDER, facts.TEST_FOLDER))
    if not train.is_dir():
        raise NerveError(
            f"{root} has no folder {facts.TRAIN_FOLDER}/; run `kaggle-nerve fetch` or mend --data."
        )
    return Layout(root, train, test, root / facts.TRAIN_CSV, root / facts.SAMPLE_CSV)


def read_train_csv(path: Path) -> pd.DataFrame:
    """``train_masks.csv`` as subject, img (int) and pixels (str, empty where there is no mask)."""
    if not path.is_file():
        raise NerveError(f"{path} is missing; run `kaggle-nerve fetch` again.")
    try:
        table = pd.read_csv(path, dtype={"pixels": str}, keep_default_na=False, encoding="utf-8")
        if tuple(table.columns) != facts.TRAIN_HEADER:
            raise ValueError(f"its header is {','.join(map(str, table.columns))}")
        table = table.astype({"subject": int, "img": int})
    except (ValueError, UnicodeDecodeError) as fault:
        raise NerveError(
            f"{path} is not the competition's training table: {fault}; fetch it again."
        ) from fault
    if table.empty:
        raise NerveError(f"{path} has no rows; fetch it again.")
    twice = table[table.duplicated(["subject", "img"])]
    if len(twice):
        row = twice.iloc[0]
        raise NerveError(f"{path} has frame {row.subject}_{row.img} twice; fetch it again.")
    return table


def training_frames(layout: Layout) -> pd.DataFrame:
    """One row per row of the CSV: subject, img, path, mask_path, pixels, has_mask, area (pixels).

    Sorted by subject and img. Raises NerveError where a frame of the CSV has no file.
    """
    table = read_train_csv(layout.train_csv).sort_values(["subject", "img"], ignore_index=True)
    stems = table.subject.astype(str) + "_" + table.img.astype(str)
    present = {path.name for path in layout.train.iterdir()}
    missing = [stem for stem in stems if f"{stem}.tif" not in present]
    if missing:
        raise NerveError(
            f"{layout.train} lacks {len(missing)} of {len(table)} frames of {layout.train_csv.name}, the first "
            f"is {missing[0]}.tif; run `kaggle-nerve fetch` again."
        )
    return table.assign(
        path=[layout.train / f"{stem}.tif" for stem in stems],
        mask_path=[layout.train / f"{stem}_mask.tif" for stem in stems],
        has_mask=table.pixels != "",
        area=[rle.area(text) for text in table.pixels],
    )


def test_frames(layout: Layout) -> pd.DataFrame:
    """One row per test frame: img, path; in rising order of img, whatever the names' text order."""
    if not layout.test.is_dir():
        raise NerveError(f"{layout.root} has no folder {facts.TEST_FOLDER}/; run `kaggle-nerve fetch` again.")
    found = [(int(match["img"]), path) for path in layout.test.iterdir() if (match := _test_name(path))]
    if not found:
        raise NerveError(f"{layout.test} has no test frames; run `kaggle-nerve fetch` again.")
    found.sort()
    return pd.DataFrame({"img": [img for img, _ in found], "path": [path for _, path in found]})


def _test_name(path: Path) -> re.Match[str] | None:
    return facts.TEST_FRAME.match(path.name)


def _unnested(folder: Path) -> Path:
    inner = folder / folder.name
    return inner if inner.is_dir() else folder
''')

write("kaggle_nerve/data/tiff.py", r'''"""Reading a frame or a mask from its TIFF file, refusing by name whatever is not one."""

import os
from pathlib import Path

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # a damaged file is our sentence, not OpenCV's lines

import cv2
import numpy as np

from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.errors import NerveError

AGAIN = "delete it and run `kaggle-nerve fetch` again"


def read_grey(path: Path, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The pixels of an 8-bit grey TIFF as uint8 of ``size`` (height, width).

    Raises NerveError, naming the file, where it is missing, truncated or damaged, 16-bit, coloured,
    or of another size.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NerveError(f"{path} is missing; run `kaggle-nerve fetch` again.") from None
    except OSError as fault:
        raise NerveError(
            f"{path} cannot be read ({fault.strerror}); check the disk and its rights."
        ) from fault
    if data[:4] not in (b"II*\0", b"MM\0*"):
        raise NerveError(f"{path} is not a TIFF file; {AGAIN}.")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise NerveError(f"{path} is truncated or damaged; {AGAIN}.")
    if image.ndim != 2:
        raise NerveError(f"{path} has {image.shape[2]} colour channels instead of one grey; {AGAIN}.")
    if image.dtype != np.uint8:
        raise NerveError(f"{path} has {image.dtype.itemsize * 8} bits a pixel instead of 8; {AGAIN}.")
    if image.shape != tuple(size):
        raise NerveError(
            f"{path} is {image.shape[1]}x{image.shape[0]} pixels instead of {size[1]}x{size[0]}; {AGAIN}."
        )
    return image
''')

write("kaggle_nerve/runs/__init__.py", r'''"""A run's folder: where each stage leaves its work, and finds that of the stage before.

`Run` and `Fold` know every file name in it; `create` and `open_run` give a Run; `adopting` takes in runs that were
trained elsewhere.
"""

from kaggle_nerve.runs.facts import FoldFacts, FoldResult, OofFacts, TestFacts
from kaggle_nerve.runs.opening import create, decision_file, in_order, joined_name, open_run
from kaggle_nerve.runs.run import Fold, Run

__all__ = [
    "Fold",
    "FoldFacts",
    "FoldResult",
    "OofFacts",
    "Run",
    "TestFacts",
    "create",
    "decision_file",
    "in_order",
    "joined_name",
    "open_run",
]
''')

write("kaggle_nerve/runs/adopting.py", r'''"""Runs brought from elsewhere: what a Kaggle notebook made goes on on a laptop, and the other way round."""

import shutil
from contextlib import nullcontext
from pathlib import Path

from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs.run import LOCK, SETTINGS, Run, is_begun, is_run
from kaggle_nerve.settings import load_settings
from kaggle_nerve.storage import completed, locked


def adopt(found: Path, runs_dir: Path) -> list[str]:
    """Copy what ``found``, a run's folder or a folder of runs, has and ``runs_dir`` has not.

    Returns a line for each run. Finished folds take the place of unfinished ones, begun ones of none; what is
    finished in ``runs_dir`` stays. Each folder is copied aside and renamed, so that a kill leaves no half of it.

    Raises NerveError, before anything is copied, where a run of the same name has other settings or data, or where
    what has its name is no run; OSError where the disk does not take the copy.
    """
    return [_take(folder, runs_dir / folder.name) for folder in check(found, runs_dir)]


def check(found: Path, runs_dir: Path) -> list[Path]:
    """The folders of the runs in ``found``. NerveError where ``runs_dir`` has another run, or something that is no
    run, of the same name."""
    folders = [found] if is_run(found) else sorted(folder for folder in found.glob("*") if is_run(folder))
    for folder in folders:
        target = runs_dir / folder.name
        if not is_run(target):
            _refuse_replacing(target)
        elif difference := _difference(folder, target):
            raise NerveError(
                f"{folder} and {target} are two runs of one name, with {difference}: rename the folder of one of "
                "them, or use another folder of runs."
            )
    return folders


def _refuse_replacing(target: Path) -> None:
    """NerveError unless ``target`` is free: what lies there would be gone."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise NerveError(
            f"{target} is in the way of a run of that name, and is no run itself, since it has no {SETTINGS}: "
            "move it away, or use another folder of runs."
        )


def _difference(source: Path, target: Path) -> str:
    """What makes two folders two runs; "" where they are one: settings, data, or who is held out where."""
    theirs, mine = _run(source), _run(target)
    if difference := theirs.settings.difference(mine.settings):
        key, value, other = difference
        return f"{key} = {value!r} and {other!r}"
    data = theirs.session().get("source"), mine.session().get("source")
    if None not in data and data[0] != data[1]:
        return "other training data"
    folds = [run.folds_csv.read_text(encoding="utf-8") for run in (theirs, mine) if run.folds_csv.is_file()]
    return f"other {mine.folds_csv.name}" if len(set(folds)) > 1 else ""


def _take(source: Path, target: Path) -> str:
    if not is_run(target):
        _copy(source, target)
        return f"run {target.name} with {len(_run(target).finished_folds())} finished folds"
    taken = [folder for folder in sorted(source.iterdir()) if folder.is_dir() and _is_ahead(folder, target)]
    for folder in taken:
        told = f"Another process works on {target / folder.name}: wait until it has ended, and run again."
        with locked(target / folder.name / LOCK, told) if (target / folder.name).exists() else nullcontext():
            _copy(folder, target / folder.name)
    names = ", ".join(folder.name for folder in taken) or "nothing new"
    return f"run {target.name}: {names}"


def _is_ahead(folder: Path, target: Path) -> bool:
    """Whether a folder of a run has come further than its namesake in ``target``."""
    mine = target / folder.name
    if completed(mine):
        return False
    return bool(completed(folder)) or (is_begun(folder) and not is_begun(mine)) or not mine.exists()


def _run(folder: Path) -> Run:
    return Run(folder, load_settings(folder / SETTINGS))


def _copy(source: Path, target: Path) -> None:
    """Put a copy of folder ``source`` in ``target``'s place, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".adopting-{target.name}"
    shutil.rmtree(aside, ignore_errors=True)  # what a kill left
    copied = aside / "new"
    try:
        _copy_files(source, copied)
        if target.exists():
            target.rename(aside / "old")
        copied.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _copy_files(source: Path, target: Path) -> None:
    """As shutil.copytree, but a full disk is the OSError that it is, and what was read-only can be written to."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            _copy_files(path, target / path.name)
        elif path.name != LOCK:
            shutil.copyfile(path, target / path.name)
''')

write("kaggle_nerve/runs/facts.py", r'''"""What a run's folder says of its work, as values: the contents of complete.json and state.json."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Protocol, TypeVar

from kaggle_nerve.settings.schema import ALL, FoldName

FIGURES = ("dice", "pixel_dice", "iou", "pixel_accuracy")
"""The score of a finished fold: fields of an epoch's score."""


@dataclass(frozen=True)
class OofFacts:
    """What a fold's out-of-fold predictions were made from: digests of the training data, settings and model file.

    Folds that an early version finished have no digest of the model.
    """

    source: str = ""
    settings: str = ""
    model: str = ""


@dataclass(frozen=True)
class FoldFacts:
    """What a finished fold was made from (see `OofFacts`), and how its training ended.

    ``dice`` and what follows are the final model's score on the held-out subjects; None where it is not known, as
    for the fold that holds nobody out. ``best_dice`` was the best epoch's.
    """

    source: str = ""
    settings: str = ""
    model: str = ""
    epochs: int = 0
    best_epoch: int = 0
    best_dice: float = -1.0
    average: str = "best"
    dice: float | None = None
    pixel_dice: float | None = None
    iou: float | None = None
    pixel_accuracy: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class TestFacts:
    """What the test predictions were made from. ``key``: digest of everything; ``folds``: whose models; ``models``:
    these models, as `Run.models` identifies them; ``frames``: how many.
    """

    __test__ = False  # pytest takes a class of this name for tests

    key: str
    source: str
    folds: list[FoldName]
    models: list[str]
    frames: int = 0


@dataclass(frozen=True)
class Progress:
    """How far an unfinished fold's checkpoint is. ``precision``: the dtype policy that its network was built under."""

    epoch: int = 0
    best_epoch: int = 0
    best_dice: float = -1.0
    precision: str = "float32"


@dataclass(frozen=True)
class FoldResult:
    """How far a fold is: finished, or stopped after ``epochs`` epochs. ``fold``: its number, or `ALL`.

    The figures are those of `FoldFacts`; all are None while the fold is unfinished.
    """

    fold: FoldName
    finished: bool
    epochs: int
    best_epoch: int
    best_dice: float
    average: str
    dice: float | None = None
    pixel_dice: float | None = None
    iou: float | None = None
    pixel_accuracy: float | None = None

    @property
    def sentence(self) -> str:
        """The same in a sentence."""
        if not self.finished:
            best = f"; the best so far has {self.best_dice:.4f}" if self.best_epoch else ""
            return f"Fold {self.fold} stopped after {self.epochs} epochs{best}"
        if self.fold == ALL:
            return f"Fold {ALL} finished after {self.epochs} epochs; it holds nobody out, so it has no score of its own"
        best = self.average == "best"
        weights = f"epoch {self.best_epoch}" if best else self.average
        return (
            f"Fold {self.fold} finished after {self.epochs} epochs: {'best ' * best}mean Dice on its held-out "
            f"subjects {self.dice:.4f} ({weights}); over all pixels Dice {self.pixel_dice:.4f}, IoU {self.iou:.4f}, "
            f"accuracy {self.pixel_accuracy:.4f}"
        )


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Facts = TypeVar("Facts", bound=_Dataclass)


def read_facts(kind: type[Facts], stored: dict[str, Any]) -> Facts:
    """``stored`` as a ``kind``; keys of other versions are ignored, and a missing key leaves the default."""
    return kind(**{item.name: stored[item.name] for item in fields(kind) if item.name in stored})


def stored_facts(facts: _Dataclass) -> dict[str, Any]:
    """What `read_facts` reads, ready for JSON: without what is None or no finite number."""
    return {
        key: value
        for key, value in asdict(facts).items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
''')

write("kaggle_nerve/runs/opening.py", r'''"""Making a run, and opening one by its name."""

import dataclasses
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs.run import DECISION, SETTINGS, Run, is_run
from kaggle_nerve.settings import Settings, load_settings, save_settings
from kaggle_nerve.settings.schema import COMBINE, TTA
from kaggle_nerve.storage import digest_text, write_json

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,80}$")


def create(runs_dir: Path, name: str, settings: Settings, environment: dict[str, Any], source: str) -> Run:
    """The run ``name``, made or found again.

    ``source`` is the digest of the training data. A run that was made with other settings or from
    other data is left alone: NerveError names the first difference.
    """
    if not NAME.match(name):
        raise NerveError(f"--run {name!r} must be a plain name of letters, digits, '.', '_', '+' and '-'.")
    run = Run(runs_dir / name, settings)
    if run.settings_file.is_file():
        _refuse_difference(run, source)
    else:
        save_settings(settings, run.settings_file)
    # Written anew at each start: it tells of the latest session, and carries the data's digest along.
    write_json(run.environment, {"source": source, **environment})
    return run


def open_run(runs_dir: Path, name: str) -> Run:
    """The existing run ``name``; NerveError names those there are.

    ``small@flips`` is run ``small`` predicting with other views (`PredictionSettings.tta`), and
    ``small@flips-logits`` with these combined in another way; NerveError names the known ones. Where this
    is what the run does anyway, it is the run itself.
    """
    plain, at, views = name.partition("@")
    folder = runs_dir / plain
    if not NAME.match(plain) or not is_run(folder):
        there = sorted(path.name for path in runs_dir.glob("*") if is_run(path))
        hint = f"there are {', '.join(there)}" if there else "there are none yet: `kaggle-nerve train-folds`"
        raise NerveError(f"No run is called {plain!r} in {runs_dir}; {hint}.")
    run = Run(folder, load_settings(folder / SETTINGS))
    return _with_views(run, views) if at else run


def in_order(runs: list[Run]) -> list[Run]:
    """Runs by name, whatever the order in which they were given: a blend's weights follow that order.

    NerveError where one is given twice.
    """
    ordered = sorted(runs, key=lambda run: run.name)
    for one, other in pairwise(ordered):
        if one.name == other.name:
            raise NerveError(f"Run {one.name} is named twice; name each run once.")
    return ordered


def decision_file(runs: list[Run]) -> Path:
    """The decision of these runs: in the run's folder, or in a folder of the blend."""
    if len(runs) == 1:
        return runs[0].decision_file
    names = [run.name for run in in_order(runs)]
    return runs[0].folder.parent / f"blend-{digest_text(*names)[:12]}" / DECISION


def joined_name(runs: list[Run]) -> str:
    """The runs' names in one, for files and messages."""
    return "+".join(run.name for run in runs)


def _with_views(run: Run, views: str) -> Run:
    own = run.settings.prediction
    tta, dash, combine = views.partition("-")
    combine = combine if dash else own.combine
    if tta not in TTA or combine not in COMBINE:
        raise NerveError(
            f"There are no views {views!r} for run {run.name}@{views}: known are {', '.join(TTA)}, each alone or "
            f"followed by one of -{', -'.join(COMBINE)}."
        )
    prediction = dataclasses.replace(own, tta=tta, combine=combine)
    if prediction == own:
        return run
    # One spelling for one thing, or it would be predicted twice.
    views = tta if combine == own.combine else f"{tta}-{combine}"
    return Run(run.folder, dataclasses.replace(run.settings, prediction=prediction), views)


def _refuse_difference(run: Run, source: str) -> None:
    if found := run.settings.difference(load_settings(run.settings_file)):
        key, wanted, stored = found
        raise NerveError(
            f"Run {run.name} was made with {key} = {stored!r}, not {wanted!r}; "
            f"use the same settings to go on with it, or another --run for another run."
        )
    if run.environment.is_file() and run.session().get("source") != source:
        raise NerveError(
            f"Run {run.name} was made from other training data; use another --run for this data."
        )
''')

write("kaggle_nerve/runs/run.py", r'''"""A run and its folds as folders: the only place that knows the names of their files."""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs.facts import (
    FIGURES,
    FoldFacts,
    FoldResult,
    OofFacts,
    Progress,
    TestFacts,
    read_facts,
    stored_facts,
)
from kaggle_nerve.settings import Settings
from kaggle_nerve.settings.schema import ALL, FoldName
from kaggle_nerve.storage import completed, locked, mark_complete, read_json, reopen

SETTINGS = "settings.toml"
"""The file that makes a folder a run's."""

ENVIRONMENT = "environment.json"
DECISION = "decision.json"
LOCK = ".lock"
HISTORY = "history.csv"
"""A stage's epochs: in the fold's folder, and in its sub-folder `WARM`."""

WARM = "warm"
CHECKPOINT = "checkpoint"
_STATE = "state.json"


@dataclass(frozen=True)
class Run:
    """A run: its folder and settings. `create` makes it, `open_run` opens it.

    ``views``: empty, or what stands after the ``@`` of a name such as ``small@flips``: the same models predict
    with other views. Then ``settings.prediction`` says how, and the predictions lie apart from the run's own.
    """

    folder: Path
    settings: Settings
    views: str = ""

    @property
    def name(self) -> str:
        """The folder's name, and after an ``@`` the views."""
        return f"{self.folder.name}@{self.views}" if self.views else self.folder.name

    @property
    def settings_file(self) -> Path:
        """The settings that the run was made with."""
        return self.folder / SETTINGS

    @property
    def folds_csv(self) -> Path:
        """Which subject is held out in which fold."""
        return self.folder / "folds.csv"

    @property
    def environment(self) -> Path:
        """What the latest session ran on, and the digest of the training data, as JSON."""
        return self.folder / ENVIRONMENT

    @property
    def test_folder(self) -> Path:
        """The test probabilities."""
        return self.views_folder / "test"

    @property
    def test_table(self) -> Path:
        """The test frames, with their presence."""
        return self.test_folder / "index.csv"

    def test_array(self, name: str) -> Path:
        """An array of the test predictions, with a row for each frame: ``probabilities``, ``levels`` and others."""
        return self.test_folder / f"{name}.npy"

    @property
    def decision_file(self) -> Path:
        """The learned rule and the figures it was chosen on."""
        return self.views_folder / DECISION

    @property
    def report_file(self) -> Path:
        """The run's page."""
        return self.views_folder / "report.html"

    @property
    def views_folder(self) -> Path:
        """What depends on the views: the run's folder, or one inside it."""
        return self.folder / f"tta-{self.views}" if self.views else self.folder

    def session(self) -> dict[str, Any]:
        """What the latest session ran on: versions, devices, ``source`` (the data's digest). Empty if unknown."""
        return read_json(self.environment) if self.environment.is_file() else {}

    def fold(self, number: FoldName) -> "Fold":
        """The fold ``number``, finished or not."""
        return Fold(self, number)

    def begun_folds(self) -> list["Fold"]:
        """The folds that have a folder, by number, the fold of all subjects last."""
        matches = (re.fullmatch(r"fold-(\d+)", path.name) for path in self.folder.iterdir())
        folds = [self.fold(number) for number in sorted(int(match[1]) for match in matches if match)]
        every = self.fold(ALL)
        return [*folds, *([every] if every.folder.is_dir() else [])]

    def finished_folds(self) -> list["Fold"]:
        """The finished folds that hold somebody out, by number."""
        return [fold for fold in self.begun_folds() if fold.number != ALL and fold.facts()]

    def needs_finished_folds(self) -> list["Fold"]:
        """As `finished_folds`; NerveError where there is none."""
        folds = self.finished_folds()
        if not folds:
            raise NerveError(f"Run {self.name} has no finished fold; run `kaggle-nerve train-folds` first.")
        return folds

    def test_folds(self) -> list["Fold"]:
        """The folds whose models predict test frames: `finished_folds`, then the fold of all subjects if finished."""
        every = self.fold(ALL)
        return [*self.finished_folds(), *([every] if every.facts() else [])]

    def models(self) -> list[str]:
        """Identify the model of each of `test_folds`: fold number and file digest.

        The digest is left out where an earlier version finished the fold.
        """
        return [f"{fold.number} {fold.needs_facts().model}".strip() for fold in self.test_folds()]

    def test_facts(self) -> TestFacts | None:
        """What the test predictions were made from; None while they are unfinished."""
        stored = completed(self.test_folder)
        if not stored:
            return None
        # An early version did not say which models; it knew the folds' numbers alone.
        return read_facts(TestFacts, {"models": [str(fold) for fold in stored["folds"]], **stored})

    def finish_test(self, facts: TestFacts) -> None:
        """Mark the test predictions as finished."""
        mark_complete(self.test_folder, stored_facts(facts))

    def reopen_test(self) -> None:
        """Mark the test predictions as unfinished."""
        reopen(self.test_folder)


@dataclass(frozen=True)
class Fold:
    """A fold of a run: its files, and how far it is. ``number`` is `ALL` for the fold that holds nobody out."""

    run: Run
    number: FoldName

    @property
    def label(self) -> str:
        """What bars and messages call it."""
        return f"Fold {self.number}"

    @property
    def folder(self) -> Path:
        """The fold's folder."""
        return self.run.folder / f"fold-{self.number}"

    @property
    def model(self) -> Path:
        """The trained network."""
        return self.folder / "model.keras"

    @property
    def history(self) -> Path:
        """A row for each epoch."""
        return self.folder / HISTORY

    @property
    def environment(self) -> Path:
        """What the latest session of this fold ran on, as JSON."""
        return self.folder / ENVIRONMENT

    @property
    def log(self) -> Path:
        """What the process wrote that trained the fold, if it had one of its own."""
        return self.folder / "worker.log"

    @property
    def oof_folder(self) -> Path:
        """The out-of-fold predictions: beside the model, or with other views apart."""
        return self.run.views_folder / self.folder.name

    @property
    def oof_maps(self) -> Path:
        """The out-of-fold maps, float16 (n, height, width)."""
        return self.oof_folder / "oof.npy"

    @property
    def oof_table(self) -> Path:
        """The frames of the out-of-fold maps, with their presence."""
        return self.oof_folder / "oof.csv"

    def facts(self) -> FoldFacts | None:
        """The facts of the finished fold; None while it is unfinished."""
        facts = completed(self.folder)
        return read_facts(FoldFacts, facts) if facts else None

    def needs_facts(self) -> FoldFacts:
        """As `facts`; NerveError for an unfinished fold."""
        facts = self.facts()
        if facts is None:
            raise NerveError(
                f"Fold {self.number} of run {self.run.name} is not finished; `kaggle-nerve train-folds` goes on."
            )
        return facts

    def finish(self, facts: FoldFacts) -> None:
        """Mark the fold as finished."""
        mark_complete(self.folder, stored_facts(facts))

    def progress(self) -> Progress | None:
        """How far the fold's checkpoint is; None without a checkpoint."""
        state = stored_state(self.folder)
        return read_facts(Progress, state) if state else None

    def result(self) -> FoldResult:
        """How far the fold is, finished or not."""
        if facts := self.facts():
            figures = {name: getattr(facts, name) for name in FIGURES}
            best = facts.best_epoch, facts.best_dice
            return FoldResult(self.number, True, facts.epochs, *best, facts.average, **figures)
        state, average = self.progress() or Progress(), self.run.settings.training.average
        return FoldResult(
            self.number, False, state.epoch, state.best_epoch, max(0.0, state.best_dice), average
        )

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from training the fold; NerveError where one does so already."""
        who = f"fold {self.number} of run {self.run.name}"
        return locked(
            self.folder / LOCK, f"Another process trains {who}; wait for it, or name another --fold."
        )

    def oof_facts(self) -> OofFacts | None:
        """What the out-of-fold predictions were made from; None while they are unfinished."""
        facts = completed(self.oof_folder)
        return read_facts(OofFacts, facts) if facts else None

    def needs_oof_facts(self) -> OofFacts:
        """As `oof_facts`; NerveError where the predictions are unfinished."""
        facts = self.oof_facts()
        if facts is None:
            raise NerveError(
                f"Run {self.run.name} has no out-of-fold predictions of fold {self.number}; run `kaggle-nerve "
                f"predict --run {self.run.name}`."
            )
        return facts

    def finish_oof(self, facts: OofFacts) -> None:
        """Mark predictions with other views as finished."""
        mark_complete(self.oof_folder, stored_facts(facts))

    def reopen_oof(self) -> None:
        """Mark predictions with other views as unfinished."""
        reopen(self.oof_folder)


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is a run's."""
    return (folder / SETTINGS).is_file()


def state_file(folder: Path) -> Path:
    """The pointer of the checkpoint of a stage that is trained in ``folder``."""
    return folder / CHECKPOINT / _STATE


def stored_state(folder: Path) -> dict[str, Any] | None:
    """The checkpoint's state of the stage that is trained in ``folder``; None without a checkpoint.

    ValueError where the file is damaged.
    """
    path = state_file(folder)
    return read_json(path) if path.is_file() else None


def is_begun(folder: Path) -> bool:
    """Whether the fold in ``folder`` has a checkpoint, or a finished first stage."""
    stages = folder, folder / WARM
    return any(state_file(stage).is_file() for stage in stages) or completed(folder / WARM) is not None
''')

write("kaggle_nerve/prediction/__init__.py", r'''"""From models to probabilities: the folds' ensemble on the test frames, and reading what was stored."""
''')

write("kaggle_nerve/prediction/ensemble.py", r'''"""The test frames through every finished fold of a run: their combined probabilities, streamed to disk."""

from pathlib import Path

import keras
import numpy as np

from kaggle_nerve.arrays import GrowingArrays
from kaggle_nerve.data.cache import Cache, open_test
from kaggle_nerve.data.frames import locate
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.blending import Mixer
from kaggle_nerve.prediction.forward import Predicted, probabilities
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Fold, Run, TestFacts
from kaggle_nerve.runs.run import LOCK
from kaggle_nerve.storage import digest_text, locked, write_text

FORMAT = "2"
"""Changes where what is stored changes: older predictions are made anew."""

CHUNK = 4
"""Batches between two notes of how far the prediction has come."""


def predict_test(
    run: Run, data_dir: Path, *, force: bool = False, reporter: Reporter = SILENT, workers: int = 2
) -> Path:
    """Write the run's test probabilities and return their folder; finished work is not redone.

    Uses the folds that are complete, and the model of all subjects where there is one; when more have been
    finished since, or one was trained again, all is predicted anew.
    """
    told = f"Another process predicts with run {run.name}; wait for it."
    with locked(run.test_folder / LOCK, told):
        return _predict(run, data_dir, force, reporter, workers)


def _predict(run: Run, data_dir: Path, force: bool, reporter: Reporter, workers: int) -> Path:
    run.needs_finished_folds()
    folds = run.test_folds()
    cache = open_test(locate(data_dir), run.settings.size, reporter=reporter, workers=workers)
    models = run.models()
    key = digest_text(FORMAT, cache.source, run.settings.digest(), *models)
    done = run.test_facts()
    if done and done.key == key and not force:
        reporter.say(f"The test probabilities of run {run.name} are there already (folds {_listed(folds)}).")
        return run.test_folder
    run.reopen_test()
    reporter.say(f"Predicting with folds {_listed(folds)} of run {run.name}")
    figures = _stream(run, cache, [load_fold(fold) for fold in folds], key, reporter)
    table = cache.table[["img"]].assign(**figures).round({"agreement": 6, "spread": 6})
    write_text(run.test_table, table.to_csv(index=False))
    run.finish_test(TestFacts(key, cache.source, [fold.number for fold in folds], models, len(table)))
    return run.test_folder


def load_fold(fold: Fold) -> keras.Model:
    """The model of a finished fold; NerveError where its file cannot be loaded."""
    try:
        model = keras.saving.load_model(fold.model, compile=False)
    except (OSError, ValueError) as fault:
        raise NerveError(
            f"{fold.model} cannot be loaded ({str(fault).splitlines()[0]}); delete {fold.folder} and train the fold "
            "again."
        ) from fault
    model.compile(jit_compile=fold.run.settings.training.jit_compile)
    return model


def _stream(
    run: Run, cache: Cache, models: list[keras.Model], key: str, reporter: Reporter
) -> dict[str, np.ndarray]:
    """Fill the arrays of the test folder; returns the presence, agreement and spread of each frame."""
    settings, count = run.settings.prediction, len(cache.frames)
    folds = len(run.finished_folds())
    growing = GrowingArrays(run.test_folder, _shapes(count, run.settings.size, folds), key)
    step = CHUNK * settings.batch
    options = {"batch": settings.batch, "tta": settings.tta, "combine": settings.combine}
    with reporter.bar("Predicting", count) as bar:
        bar.update(growing.done)
        for start in range(growing.done, count, step):
            frames = cache.frames[start : start + step]
            streams = [probabilities(model, frames, **options) for model in models]
            row = start
            while row < start + len(frames):
                said = together([next(stream) for stream in streams], folds, settings.combine)
                place = slice(row, row + len(said["presence"]))
                for name, values in said.items():
                    growing.arrays[name][place] = values
                row = place.stop
            growing.note(row)
            bar.update(len(frames))
    figures = {name: np.array(growing.arrays[name]) for name in ("presence", "agreement", "spread")}
    growing.finish()
    return figures


def _shapes(count: int, size: tuple[int, int], folds: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Name -> (shape, type) of all that is stored, a frame a row: see `together`."""
    shapes = {"probabilities": ((count, *size), np.float16), "fold_presences": ((count, folds), np.float32)}
    shapes |= dict.fromkeys(("presence", "agreement", "spread"), ((count,), np.float32))
    return shapes | dict.fromkeys(("levels", "fold_levels"), ((count, levels.COUNT), np.int32))


def together(models: list[Predicted], folds: int, combine: str) -> dict[str, np.ndarray]:
    """What the models say about a batch, combined; agreement and spread are means of what each has by itself.

    The first ``folds`` models are those of folds; one of all subjects may follow.

    How far the folds differ is left out: an out-of-fold frame has one fold's model alone, so that nothing
    can be learned there from it. ``levels`` and ``fold_levels`` count how many pixels of a frame have each
    level, in the combined map and in those of all folds: `matching` needs them, and ``fold_presences``. The
    model of all subjects is in neither: rules are learned on what folds say.
    """
    mixer = Mixer(combine)
    for one in models:
        mixer.add(one.masks, one.presence)
    masks, presence = mixer.result()
    return {
        "probabilities": masks,
        "presence": presence,
        "agreement": np.mean([one.agreement for one in models], axis=0),
        "spread": np.mean([one.spread for one in models], axis=0),
        "fold_presences": np.stack([one.presence for one in models[:folds]], axis=1),
        "levels": _histograms(masks),
        "fold_levels": np.sum([_histograms(one.masks) for one in models[:folds]], axis=0),
    }


def _histograms(masks: np.ndarray) -> np.ndarray:
    return np.stack([levels.histogram(levels.quantise(mask)) for mask in masks])


def _listed(folds: list[Fold]) -> str:
    return ", ".join(map(str, folds))
''')

write("kaggle_nerve/prediction/forward.py", r'''"""Forward passes with test-time augmentation: frames in, probabilities out, a batch at a time."""

from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import keras
import numpy as np

from kaggle_nerve.maps.blending import Mixer, mean_agreement
from kaggle_nerve.prediction.views import VIEWS, View, brought_back, seen

PREDICTED = ("mask", "presence")
_short: WeakKeyDictionary[keras.Model, keras.Model] = WeakKeyDictionary()


class Predicted(NamedTuple):
    """What is said about some frames, float32, all from 0 to 1.

    ``masks`` (n, height, width) and ``presence`` (n,) are the views' together. ``agreement`` (n,): the mean
    Dice over pairs of the views' masks at 0.5, 1 for a single view or where all are empty. ``spread`` (n,):
    the standard deviation of the views' presences. Both compare views of one model, never folds: an
    out-of-fold frame is seen by one model alone, and what is learned there about these figures has to
    meet the same figures on test frames.
    """

    masks: np.ndarray
    presence: np.ndarray
    agreement: np.ndarray
    spread: np.ndarray


def probabilities(
    model: keras.Model, frames: np.ndarray, *, batch: int, tta: str, combine: str = "mean"
) -> Iterator[Predicted]:
    """Yield what ``model`` says about consecutive batches of ``frames`` (uint8, n x height x width).

    The views are those that `VIEWS` names for ``tta``, combined as `blending.combine` does by
    ``combine``. A network without a presence head gets the largest probability of its mask as presence.
    Masks of deep supervision are not computed.
    """
    model = _without_deep_masks(model)
    for start in range(0, len(frames), batch):
        chunk = np.asarray(frames[start : start + batch], np.float32)
        yield _predicted(model, chunk, batch, VIEWS[tta], combine)


def _predicted(
    model: keras.Model, chunk: np.ndarray, batch: int, views: tuple[View, ...], combine: str
) -> Predicted:
    mixer, inside, presences = Mixer(combine), [], []
    for view in views:
        masks, presence = _pass(model, seen(chunk, view)[..., None], batch)
        masks = brought_back(masks, view)
        mixer.add(masks, presence)
        inside.append(masks >= np.float32(0.5))
        presences.append(presence)
    agreement = [mean_agreement(np.stack([each[row] for each in inside])) for row in range(len(chunk))]
    return Predicted(*mixer.result(), np.array(agreement, np.float32), np.std(presences, axis=0))


def _pass(model: keras.Model, chunk: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    count = len(chunk)
    if count < batch:
        # One shape means one compilation; the rows added here are cut off again below.
        chunk = np.concatenate([chunk, np.zeros((batch - count, *chunk.shape[1:]), chunk.dtype)])
    outputs = model.predict_on_batch(chunk)
    masks = outputs["mask"][:count, ..., 0].astype(np.float32)
    if "presence" not in outputs:
        return masks, masks.max(axis=(1, 2))
    return masks, outputs["presence"][:count, 0].astype(np.float32)


def _without_deep_masks(model: keras.Model) -> keras.Model:
    """``model``, or the part of it, sharing its weights, that yields no masks which only training looks at."""
    outputs = getattr(model, "output", {})  # whatever predicts will do, a Keras model or not
    if set(outputs) <= set(PREDICTED):
        return model
    if model not in _short:
        _short[model] = keras.Model(
            model.input, {name: outputs[name] for name in PREDICTED if name in outputs}
        )
        _short[model].compile(jit_compile=model.jit_compile)
    return _short[model]
''')

write("kaggle_nerve/prediction/held_out.py", r'''"""What a fold's model says about the frames that it was not trained on: at the end of training, or with other views."""

from pathlib import Path

import keras
import numpy as np

from kaggle_nerve.data import folds as folding
from kaggle_nerve.data.cache import Cache, open_training
from kaggle_nerve.data.frames import locate
from kaggle_nerve.errors import NerveError
from kaggle_nerve.prediction.ensemble import load_fold
from kaggle_nerve.prediction.forward import probabilities
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Fold, OofFacts, Run
from kaggle_nerve.runs.run import LOCK
from kaggle_nerve.storage import atomic_path, digest_file, locked, write_text


def predict_oof(
    run: Run, data_dir: Path, *, force: bool = False, reporter: Reporter = SILENT, workers: int = 2
) -> None:
    """Write the out-of-fold predictions of every finished fold of a run such as ``small@flips``.

    A run with its own views has them since training, so that nothing is done. Folds that are predicted
    already, from the model that is there now, are not predicted again. NerveError where ``data_dir`` holds
    other training data than the folds were trained on.
    """
    if not run.views:
        return
    told = f"Another process predicts the held-out frames of run {run.name}; wait for it."
    with locked(run.views_folder / LOCK, told):
        inputs = {fold: _inputs(fold) for fold in run.needs_finished_folds()}
        missing = [fold for fold in inputs if force or fold.oof_facts() != inputs[fold]]
        if not missing:
            reporter.say(f"The out-of-fold predictions of run {run.name} are there already.")
            return
        cache = open_training(locate(data_dir), run.settings.size, reporter=reporter, workers=workers)
        for fold in missing:
            if cache.source != inputs[fold].source:
                raise NerveError(
                    f"Fold {fold.number} of run {run.name} was trained on other data than that in {data_dir}; "
                    f"name its own with --data."
                )
        folds = folding.load(run.folds_csv)
        for fold in missing:
            fold.reopen_oof()
            _, held = folding.split(cache.table, folds, fold.number)
            predict_held_out(fold, load_fold(fold), cache, held, reporter)
            fold.finish_oof(inputs[fold])


def predict_held_out(
    fold: Fold, model: keras.Model, cache: Cache, rows: np.ndarray, reporter: Reporter
) -> None:
    """Write the out-of-fold maps and table of ``fold``, for ``rows`` of the cache.

    The table has the columns subject, img, fold, presence, agreement and spread (see `Predicted`).
    """
    settings = fold.run.settings.prediction
    frames = cache.frames[rows]
    masks = np.empty(frames.shape, np.float16)
    figures = {name: np.empty(len(frames)) for name in ("presence", "agreement", "spread")}
    options = {"batch": settings.batch, "tta": settings.tta, "combine": settings.combine}
    row = 0
    with reporter.bar(f"{fold.label} out-of-fold", len(frames)) as bar:
        for part in probabilities(model, frames, **options):
            place = slice(row, row + len(part.masks))
            masks[place] = part.masks
            for name, values in figures.items():
                values[place] = getattr(part, name)
            row = place.stop
            bar.update(len(part.masks))
    with atomic_path(fold.oof_maps) as path:
        np.save(path, masks)
    table = cache.table.iloc[rows][["subject", "img"]].assign(fold=fold.number, **figures)
    write_text(fold.oof_table, table.round({"agreement": 6, "spread": 6}).to_csv(index=False))


def _inputs(fold: Fold) -> OofFacts:
    """What the predictions of a fold are made from."""
    if not fold.model.is_file():
        raise NerveError(f"{fold.model} is missing; delete {fold.folder} and train the fold again.")
    return OofFacts(fold.needs_facts().source, fold.run.settings.digest(), digest_file(fold.model))
''')

write("kaggle_nerve/prediction/stored.py", r'''"""Probabilities on disk, out-of-fold or test, read frame by frame. Knows no deep-learning framework."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import matching
from kaggle_nerve.maps.blending import combine
from kaggle_nerve.maps.fullsize import enlarge
from kaggle_nerve.maps.matching import Scale
from kaggle_nerve.runs import Fold, Run, TestFacts
from kaggle_nerve.storage import digest_text

LEAST_PRESENCE = 0.1
"""A presence below this one is taken for it where a map is divided by it: the frame will be called empty anyway."""

VIEWS = {"agreement": 1.0, "spread": 0.0}
"""How far the views of a frame agree on its mask, and how their presences differ; what a single view has."""


@dataclass(frozen=True)
class Blend:
    """How the maps of several runs become one. ``method``: ``mean``, ``logits`` or ``agreement`` (see
    `blending.combine`), or ``vote``: the share of the runs whose pixel reaches the run's own threshold.

    ``weights`` and ``thresholds`` have one entry a run; no weights mean equal ones.
    """

    method: str = "mean"
    weights: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Stored:
    """Probabilities of some frames by one or several runs.

    ``table``: img and, for out-of-fold frames, subject and fold; agreement and spread of the views; one
    row a frame. ``presences``: P(mask not empty), float (n, runs). ``parts``: for each run memory-mapped
    float16 maps (n, height, width), and for each row of the table its place ``rows[part]`` in them. Runs
    may differ in working size, so they are combined at full resolution, by ``blend``. ``source`` is a
    digest of all inputs, ``names`` are those of the runs.

    ``conditional``: of each run, whether its maps say P(pixel | there is a mask) (`LossSettings.empty_frames`).
    """

    table: pd.DataFrame
    presences: np.ndarray
    parts: tuple[Any, ...]
    rows: tuple[np.ndarray, ...]
    source: str
    names: tuple[str, ...] = ("run",)
    blend: Blend = Blend()
    conditional: tuple[bool, ...] = (False,)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def presence(self) -> np.ndarray:
        """P(mask not empty) of each frame, (n,): the weighted mean over the runs."""
        return np.average(self.presences, axis=1, weights=self.blend.weights or None)

    @property
    def is_conditional(self) -> bool:
        """Whether `members` and `full` say P(pixel | there is a mask): where one run's maps do, all are made to."""
        return any(self.conditional)

    def members(self, row: int) -> np.ndarray:
        """The map of each run for a row at the competition's size, float32 (runs, height, width).

        All of one kind: P(pixel) / P(there is a mask) is P(pixel | there is a mask), since no pixel is in a mask
        that is not there.
        """
        maps = np.stack([enlarge(self._working(part, row)) for part in range(len(self.parts))])
        if self.is_conditional:
            for part, conditional in enumerate(self.conditional):
                if not conditional:
                    there = max(float(self.presences[row, part]), LEAST_PRESENCE)
                    np.minimum(maps[part] / np.float32(there), 1, out=maps[part])
        return maps

    def full(self, row: int) -> np.ndarray:
        """The probability map of a row at the competition's size, float32 (height, width)."""
        return self.mixed(self.members(row), self.blend)

    def mixed(self, members: np.ndarray, blend: Blend) -> np.ndarray:
        """One map of the runs' maps."""
        if len(members) == 1:
            return members[0]
        weights = np.array(blend.weights) if blend.weights else None
        if blend.method == "vote":
            reached = members >= np.array(blend.thresholds, np.float32)[:, None, None]
            return combine(reached, "mean", weights)
        return combine(members, blend.method, weights)

    def _working(self, part: int, row: int) -> np.ndarray:
        probability = self.parts[part][self.rows[part][row]]
        # Not a number compares as false, too.
        if not (probability.min() >= 0 and probability.max() <= 1):
            raise NerveError(
                f"Frame {self.table.img.iloc[row]} has a probability that is no number from 0 to 1 in a stored "
                "prediction; predict it again with `kaggle-nerve predict --force`, or train its fold again."
            )
        return probability


def open_oof(run: Run) -> Stored:
    """The out-of-fold probabilities of a run's finished folds, sorted by subject and img."""
    folds = run.needs_finished_folds()
    return _joined([_open_fold(fold) for fold in folds], _identity(folds))


def open_test(run: Run) -> Stored:
    """The test probabilities of a run, at the scale of a single fold's (see `matching`).

    NerveError where `predict` has not finished.
    """
    done = run.test_facts()
    if done is None:
        raise NerveError(
            f"Run {run.name} has no test probabilities; run `kaggle-nerve predict --run {run.name}`."
        )
    stored = _open_test(run, done)
    return scaled(stored, _scale(run, stored)) if len(done.folds) > 1 else stored


def scale_of(run: Run) -> Scale | None:
    """How the run's ensemble is brought to the scale of a single fold's, as measured on its test frames.

    None where these were not predicted, or not by the models that are there now.
    """
    done = run.test_facts()
    return _scale(run, _open_test(run, done)) if done and is_current(run, done) else None


def is_current(run: Run, done: TestFacts) -> bool:
    """Whether finished test predictions are by the models that are there now."""
    return done.models == run.models()


def scaled(stored: Stored, scale: Scale) -> Stored:
    """The ensemble's predictions of one run at the scale of a single fold's."""
    presences = scale.presences(stored.presences[:, 0])
    return replace(stored, presences=presences[:, None], parts=(scale.maps(stored.parts[0]),))


def blend(stored: list[Stored]) -> Stored:
    """Several runs side by side, over the frames that all of them have, combined by their mean."""
    if len(stored) == 1:
        return stored[0]
    keys = [name for name in ("subject", "img") if name in stored[0].table]
    table = stored[0].table.assign(row0=range(len(stored[0])))
    for number, other in enumerate(stored[1:], 1):
        columns = {f"row{number}": range(len(other)), **{name: other.table[name] for name in VIEWS}}
        table = table.merge(
            other.table[keys].assign(**columns), on=keys, suffixes=("", f"_{number}"), validate="one_to_one"
        )
    if table.empty:
        raise NerveError("The runs to blend have no frame in common; name runs of the same data.")
    parts, rows, presences = [], [], []
    for number, other in enumerate(stored):
        mine = table[f"row{number}"].to_numpy()
        parts += other.parts
        rows += [places[mine] for places in other.rows]
        presences.append(other.presences[mine])
    for name in VIEWS:
        columns = [name, *(f"{name}_{number}" for number in range(1, len(stored)))]
        table[name] = table[columns].mean(axis=1)
    source = "+".join(other.source for other in stored)
    table = table[[*stored[0].table.columns]]
    return Stored(
        table,
        np.concatenate(presences, axis=1),
        tuple(parts),
        tuple(rows),
        source,
        names=tuple(name for other in stored for name in other.names),
        conditional=tuple(kind for other in stored for kind in other.conditional),
    )


def _open_fold(fold: Fold) -> Stored:
    fold.needs_oof_facts()
    command = "predict" if fold.run.views else "train-folds"
    again = f"delete {fold.oof_folder} and run `kaggle-nerve {command}` again"
    return _open(fold.oof_table, fold.oof_maps, fold.run, "", again, ("subject", "img"))


def _open(index: Path, maps: Path, run: Run, source: str, again: str, keys: tuple[str, ...]) -> Stored:
    """Predictions of ``run`` on disk; ``again`` says how to get them anew, ``keys`` name the columns of a frame."""
    table = _read_index(index, keys, again)
    array = _read_array(maps, 3, len(table), again)
    presences = table.presence.to_numpy(float)[:, None]
    # Predictions made before the views were compared: as from a single view.
    views = {name: table.get(name, alone) for name, alone in VIEWS.items()}
    table = table.drop(columns="presence").assign(**views)
    rows, kind = np.arange(len(table)), run.settings.loss.is_conditional
    return Stored(table, presences, (array,), (rows,), source, (run.name,), conditional=(kind,))


def _open_test(run: Run, done: TestFacts) -> Stored:
    return _open(
        run.test_table, run.test_array("probabilities"), run, done.source, _predict_again(run), ("img",)
    )


def _scale(run: Run, stored: Stored) -> Scale:
    """The scale of a run from its test predictions as they lie there."""
    arrays = {
        name: _read_array(run.test_array(name), 2, len(stored), _predict_again(run))
        for name in ("levels", "fold_levels", "fold_presences")
    }
    curve = matching.curve(arrays["levels"].sum(axis=0), arrays["fold_levels"].sum(axis=0))
    return Scale(curve, stored.presences[:, 0], arrays["fold_presences"])


def _predict_again(run: Run) -> str:
    return f"run `kaggle-nerve predict --run {run.name} --force`"


def _identity(folds: list[Fold]) -> str:
    """What out-of-fold predictions were made from: data, settings and the models of the finished folds."""
    facts = [fold.needs_oof_facts() for fold in folds]
    models = [f"{fold.number} {fact.model}" for fold, fact in zip(folds, facts, strict=True)]
    return digest_text(facts[0].source, facts[0].settings, *models)


def _joined(folds: list[Stored], source: str) -> Stored:
    """Folds one after the other, as one: their maps stay where they are."""
    table = pd.concat([fold.table for fold in folds], ignore_index=True)
    maps = _Chained([fold.parts[0] for fold in folds])
    order = np.lexsort((table.img, table.subject))
    presences = np.concatenate([fold.presences for fold in folds])[order]
    table = table.iloc[order].reset_index(drop=True)
    return replace(folds[0], table=table, presences=presences, parts=(maps,), rows=(order,), source=source)


class _Chained:
    """Several arrays read by one row number."""

    def __init__(self, arrays: list[np.ndarray]):
        self.arrays = arrays
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])

    def __getitem__(self, row: int) -> np.ndarray:
        which = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.arrays[which][row - self.starts[which]]


def _read_index(path: Path, keys: tuple[str, ...], again: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as fault:
        raise NerveError(f"{path} cannot be read ({fault}); {again}.") from fault
    missing = [name for name in (*keys, "presence") if name not in table]
    if missing:
        raise NerveError(f"{path} has no column {missing[0]}; {again}.")
    for name in ("presence", *VIEWS):
        if name in table and not pd.to_numeric(table[name], errors="coerce").between(0, 1).all():
            raise NerveError(f"{path} has a {name} that is no number from 0 to 1; {again}.")
    return table


def _read_array(path: Path, axes: int, count: int, again: str) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as fault:
        raise NerveError(f"{path} cannot be read ({fault}); {again}.") from fault
    if array.ndim != axes or array.dtype.kind not in "fi":
        raise NerveError(f"{path} holds an array of {array.dtype} {array.shape}, no predictions; {again}.")
    if len(array) != count:
        raise NerveError(f"{path} holds {len(array)} frames and its index {count}; {again}.")
    return array
''')

write("kaggle_nerve/prediction/views.py", r'''"""Views of a frame for test-time augmentation: mirrored and zoomed there, and their masks brought back."""

from typing import NamedTuple

import cv2
import numpy as np


class View(NamedTuple):
    """A frame seen differently: mirrored along ``axes`` of (n, height, width), enlarged ``zoom`` times."""

    axes: tuple[int, ...] = ()
    zoom: float = 1.0


VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(),),
    "hflip": (View(), View((2,))),
    "flips": (View(), View((2,)), View((1,)), View((1, 2))),
    "scales": tuple(View(axes, zoom) for zoom in (0.9, 1.0, 1.1) for axes in ((), (2,))),
}
"""The views of each kind of test-time augmentation."""


def seen(frames: np.ndarray, view: View) -> np.ndarray:
    """``frames`` (float32, n x height x width) as ``view`` shows them, in the same shape."""
    return _zoomed(np.flip(frames, view.axes), view.zoom, cv2.BORDER_REPLICATE)


def brought_back(masks: np.ndarray, view: View) -> np.ndarray:
    """The masks (float32, n x height x width) of a view's frames, where they lie in the frames themselves.

    What the view did not show, at the rim of a frame that it enlarged, is 0.
    """
    return np.flip(_zoomed(masks, 1 / view.zoom, cv2.BORDER_CONSTANT), view.axes)


def _zoomed(images: np.ndarray, factor: float, border: int) -> np.ndarray:
    """``images`` enlarged about the centre of the frame, which keeps its height and width."""
    if factor == 1:
        return images
    height, width = images.shape[1:]
    across, down = (1 - factor) * (width - 1) / 2, (1 - factor) * (height - 1) / 2
    matrix = np.array([[factor, 0, across], [0, factor, down]])
    result = np.empty(images.shape, np.float32)
    for image, target in zip(images, result, strict=True):
        cv2.warpAffine(
            np.ascontiguousarray(image), matrix, (width, height), target, cv2.INTER_LINEAR, border, 0
        )
    return result
''')

write("kaggle_nerve/decision/__init__.py", r'''"""From probabilities to masks: rules learned on out-of-fold predictions. Knows no deep-learning framework."""
''')

write("kaggle_nerve/decision/blends.py", r'''"""Ways to combine several runs, some of them learned on out-of-fold predictions."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision.candidates import THRESHOLDS
from kaggle_nerve.decision.evidence import Way
from kaggle_nerve.decision.presence import parts
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Blend, Stored
from kaggle_nerve.progress import SILENT, Reporter


@dataclass(frozen=True)
class BlendWay:
    """One way. ``final`` is learned on all frames; ``way`` gives each frame what was learned without its
    subject (the same where nothing ``is_learned``). ``rank``: the lower, the simpler.
    """

    name: str
    meaning: str
    final: Blend
    way: Way
    rank: int = 0
    is_learned: bool = False


ALONE = BlendWay("alone", "a single run", Blend(), lambda row: Blend())
MEANINGS = {
    "mean": "mean of the probabilities",
    "logits": "mean of the log-odds",
    "agreement": "on each frame, runs weigh by how far they agree",
    "weights": "weights by non-negative least squares on the pixels",
    "vote": "each run votes for pixels from a threshold of its own",
}
"""The ways that combine, from the simplest on."""

BASELINE = "mean"
"""The way that the others are compared with."""


def ways(stored: Stored, truths: Truths, *, reporter: Reporter = SILENT, workers: int = 2) -> list[BlendWay]:
    """All ways to combine the runs of ``stored``; NerveError where a run has the name of one of them.

    Each run alone is as simple as another.
    """
    for name in {*MEANINGS} & {*stored.names}:
        raise NerveError(f"Run {name} has the name of a way to blend; rename its folder.")
    count = len(stored.parts)
    found = []
    for number, name in enumerate(stored.names):
        alone = Blend(weights=tuple(float(number == other) for other in range(count)))
        found.append(BlendWay(name, "this run alone", alone, lambda row, alone=alone: alone))
    seen = _Members(stored, truths, reporter, workers)
    return [
        *found,
        *(_same(method) for method in ("mean", "logits", "agreement")),
        _fitted("weights", seen.weights, stored),
        _fitted("vote", seen.votes, stored),
    ]


def _same(method: str) -> BlendWay:
    blend = Blend(method)
    return BlendWay(method, MEANINGS[method], blend, lambda row: blend, _rank(method))


def _rank(name: str) -> int:
    return 1 + [*MEANINGS].index(name)


def _fitted(name: str, fit: Callable[[np.ndarray], Blend], stored: Stored) -> BlendWay:
    by_row: list[Blend] = [Blend()] * len(stored)
    for seen, unseen in parts(stored.table.subject.to_numpy()):
        blend = fit(seen)
        for row in unseen:
            by_row[row] = blend
    final = fit(np.arange(len(stored)))
    return BlendWay(name, MEANINGS[name], final, by_row.__getitem__, _rank(name), is_learned=True)


class _Members:
    """What the fits need of every frame, from one pass over the runs' maps.

    ``products`` (n, runs, runs) and ``hits`` (n, runs): sums over the pixels of p_i p_j and of p_i where
    the truth is 1; ``dice`` (n, runs, thresholds): of each run's own mask, no frame dropped.
    """

    def __init__(self, stored: Stored, truths: Truths, reporter: Reporter, workers: int):
        runs = len(stored.parts)
        self.products = np.zeros((len(stored), runs, runs))
        self.hits = np.zeros((len(stored), runs))
        self.dice = np.zeros((len(stored), runs, len(THRESHOLDS)))
        self.present, self.conditional = truths.areas > 0, stored.is_conditional
        cuts = [levels.cut(threshold) for threshold in THRESHOLDS]

        def see(row: int) -> None:
            members = stored.members(row)
            flat = members.reshape(runs, -1)
            self.products[row] = flat @ flat.T
            for run, member in enumerate(members):
                self.hits[row, run] = truths.inside(row, member).sum()
                seen = levels.quantise(member)
                inside = np.bincount(truths.inside(row, seen), minlength=levels.COUNT)
                area, shared = (levels.at_least(h)[cuts] for h in (levels.histogram(seen), inside))
                self.dice[row, run] = dice_of_counts(shared, truths.areas[row], area)

        with ThreadPoolExecutor(workers) as pool, reporter.bar("Comparing runs", len(stored)) as bar:
            for _ in pool.map(see, range(len(stored))):
                bar.update()

    def weights(self, rows: np.ndarray) -> Blend:
        """The non-negative weights whose sum of the maps lies nearest to the truth, over the pixels of ``rows``.

        Of maps that say P(pixel | there is a mask) only over frames with a mask.
        """
        if self.conditional:
            rows = rows[self.present[rows]]
        # Of the normal equations a factor L with L L' = products: |L' w - L^-1 hits| is the same distance.
        # A trace of a ridge, for a run may be named twice.
        products, runs = self.products[rows].sum(axis=0), len(self.hits[0])
        factor = np.linalg.cholesky(products + (1e-6 * np.trace(products) + 1e-9) * np.eye(runs))
        found, _ = nnls(factor.T, np.linalg.solve(factor, self.hits[rows].sum(axis=0)))
        if not found.any():
            return Blend()
        return Blend(weights=tuple(np.round(found / found.sum(), 4).tolist()))

    def votes(self, rows: np.ndarray) -> Blend:
        """Each run's threshold with the best mean Dice over the frames of ``rows`` that have a mask."""
        rows = rows[self.present[rows]]
        if not len(rows):
            return Blend("vote", thresholds=(0.5,) * len(self.hits[0]))
        best = self.dice[rows].mean(axis=0).argmax(axis=1)
        return Blend("vote", thresholds=tuple(THRESHOLDS[place] for place in best))
''')

write("kaggle_nerve/decision/calibration.py", r'''"""Calibration: probabilities that come true as often as they say, and how far they do.

Three ways, all fitted on counts: how many times each probability was given, and how many times it came
true. So a fit over a billion pixels costs what one over 256 numbers costs.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from kaggle_nerve.maps.blending import log_odds

METHODS = ("temperature", "platt", "isotonic")
BINS = 10
"""Bins of equal width in a reliability table."""


@dataclass(frozen=True)
class Calibration:
    """A rising curve through points: ``given`` and ``meant``, probabilities (points,), straight between them."""

    given: tuple[float, ...]
    meant: tuple[float, ...]

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, of the same shape."""
        return np.interp(probability, self.given, self.meant)


def fit(method: str, given: np.ndarray, came_true: np.ndarray, times: np.ndarray) -> Calibration:
    """Calibrate ``given`` probabilities (n,), of which ``came_true`` (n,) of ``times`` (n,) were true.

    ``temperature`` divides the log-odds by one number (Guo et al., arXiv:1706.04599), ``platt`` also
    shifts them (Platt 1999), ``isotonic`` takes any rising curve (Zadrozny & Elkan 2002).
    """
    seen = times > 0
    given, came_true, times = given[seen], came_true[seen].astype(float), times[seen].astype(float)
    order = np.argsort(given, kind="stable")
    given, came_true, times = given[order], came_true[order], times[order]
    if method == "isotonic":
        curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        meant = curve.fit(given, came_true / times, sample_weight=times).predict(given)
        return Calibration(tuple(given.tolist()), tuple(meant.tolist()))
    if not 0 < came_true.sum() < times.sum():
        # Nothing to tell apart: no finite slope fits.
        share = float(came_true.sum() / times.sum())
        return Calibration((0.0, 1.0), (share, share))
    shape = LogisticRegression(C=1e6, fit_intercept=method == "platt", max_iter=1000)
    odds = np.tile(log_odds(given), 2)[:, None]
    labels = np.repeat([1, 0], len(given))
    # The weights' scale changes the penalty alone, and large sums stop the solver early.
    weights = np.concatenate([came_true, times - came_true]) / times.sum() * len(given)
    shape.fit(odds, labels, sample_weight=weights)
    points = np.linspace(0, 1, 257)
    return Calibration(
        tuple(points.tolist()), tuple(shape.predict_proba(log_odds(points)[:, None])[:, 1].tolist())
    )


@dataclass(frozen=True)
class Reliability:
    """How well probabilities come true. ``table``: for each tenth of the range that occurs the mean given
    probability, the share that came true, and how many there were.

    ``error``: expected calibration error, the mean distance of the two, 0 to 1; ``brier``: mean squared
    distance from the truth; ``log_loss``: mean of -log(probability of what came true).
    """

    table: tuple[tuple[float, float, int], ...]
    error: float
    brier: float
    log_loss: float


def reliability(given: np.ndarray, came_true: np.ndarray, times: np.ndarray) -> Reliability:
    """The reliability of probabilities given ``times`` (n,) each, of which ``came_true`` (n,)."""
    times, came_true = times.astype(float), came_true.astype(float)
    total = times.sum()
    bins = np.minimum((given * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, times, BINS)
    said, was = np.bincount(bins, given * times, BINS), np.bincount(bins, came_true, BINS)
    rows = [
        (float(said[at] / count[at]), float(was[at] / count[at]), int(count[at]))
        for at in np.flatnonzero(count)
    ]
    clipped = np.clip(given, 1e-7, 1 - 1e-7)
    surprise = -(came_true * np.log(clipped) + (times - came_true) * np.log1p(-clipped))
    squares = came_true * (1 - given) ** 2 + (times - came_true) * given**2
    return Reliability(
        tuple(rows),
        float(np.abs(said - was).sum() / total),
        float(squares.sum() / total),
        float(surprise.sum() / total),
    )
''')

write("kaggle_nerve/decision/candidates.py", r'''"""The decisions that `tune` compares, from the simplest to the most elaborate, and how each is learned."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision import calibration, presence
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.decision.presence import Classifier
from kaggle_nerve.decision.rule import ExpectedDice, Rule, Thresholds, best_cuts
from kaggle_nerve.maps import levels

THRESHOLDS = tuple(np.round(np.arange(0.2, 0.71, 0.05), 2).tolist())
CONFIDENT = tuple(np.round(np.arange(0.5, 0.96, 0.05), 2).tolist())
AREAS = (0, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000)
"""Pixels at full resolution; the smallest training mask has 2684."""
PRESENCES = tuple(np.round(np.arange(0.0, 0.96, 0.05), 2).tolist())
FINE_PRESENCES = tuple(np.round(np.arange(0.3, 0.81, 0.02), 2).tolist())
"""For the classifier, whose probabilities are calibrated: around 1 / (1 + d), for d from 0.25 to 2."""


@dataclass(frozen=True)
class Learned:
    """A rule, and the classifier that tells it the presence (None: the networks' heads do)."""

    rule: Rule
    classifier: Classifier | None = None

    def presence(self, evidence: Evidence) -> np.ndarray:
        """P(mask not empty), (n,)."""
        return evidence.presence if self.classifier is None else self.classifier(evidence)

    def cuts(self, evidence: Evidence) -> np.ndarray:
        """The level from which each frame's pixels are in its mask, int (n,); `levels.NOTHING`: empty."""
        kept = self.rule.kept(evidence, self.presence(evidence))
        return np.where(kept, self.rule.outlines(evidence), levels.NOTHING)


@dataclass(frozen=True)
class Candidate:
    """One way to decide. ``learn`` is given frames whose truth is known."""

    name: str
    meaning: str
    learn: Callable[[Evidence], Learned]


def dice(evidence: Evidence, cuts: np.ndarray) -> np.ndarray:
    """The competition's Dice of each frame for the cuts (n,), float (n,)."""
    rows = np.arange(len(cuts))
    return dice_of_counts(evidence.shared[rows, cuts], evidence.truth, evidence.reached[rows, cuts])


def search(
    evidence: Evidence,
    there: np.ndarray,
    thresholds: tuple[float, ...],
    areas: tuple[int, ...],
    presences: tuple[float, ...],
    confident: tuple[float, ...] | None = None,
) -> Thresholds:
    """The `Thresholds` with the largest mean Dice; of equal ones the first in the order of the arguments.

    ``there``: P(mask not empty) of the frames. Without ``confident`` it equals the threshold.
    """
    # A rule scores what an empty mask would, plus what its outline gains on the frames that it keeps.
    empty = np.where(evidence.present, 0.0, 1.0)
    gains = {t: dice(evidence, np.full(len(evidence), levels.cut(t))) - empty for t in thresholds}
    keep_by = np.stack([there >= value for value in presences]).astype(float)
    best, found = -np.inf, Thresholds()
    for sure, outlines in _pairs(thresholds, confident):
        area = evidence.reached[:, levels.cut(sure)]
        big = np.stack([area >= max(value, 1) for value in areas])
        for threshold in outlines:
            sums = (big * gains[threshold]) @ keep_by.T
            at = np.unravel_index(sums.argmax(), sums.shape)
            # Sums of the same terms in another order differ in their last digits.
            if sums[at] > best + 1e-9:
                best = sums[at]
                where = None if sure == threshold else sure
                found = Thresholds(threshold, areas[at[0]], presences[at[1]], where)
    return found


def _pairs(
    thresholds: tuple[float, ...], confident: tuple[float, ...] | None
) -> list[tuple[float, tuple[float, ...]]]:
    if confident is None:
        return [(threshold, (threshold,)) for threshold in thresholds]
    return [(sure, tuple(t for t in thresholds if t <= sure)) for sure in confident]


def _fixed(evidence: Evidence) -> Learned:
    return Learned(Thresholds(0.5))


def _area(evidence: Evidence) -> Learned:
    return Learned(search(evidence, evidence.presence, (0.5,), AREAS, (0.0,)))


def _head(evidence: Evidence) -> Learned:
    return Learned(search(evidence, evidence.presence, THRESHOLDS, AREAS, PRESENCES))


def _triplet(evidence: Evidence) -> Learned:
    return Learned(search(evidence, evidence.presence, THRESHOLDS, AREAS, PRESENCES, CONFIDENT))


def _classifier(evidence: Evidence, names: tuple[str, ...] = presence.ALL_NAMES) -> Learned:
    # The thresholds are chosen on verdicts about unseen patients, as they will be used.
    there = presence.cross_fitted(evidence, names)
    rule = search(evidence, there, THRESHOLDS, AREAS, FINE_PRESENCES)
    return Learned(rule, presence.fit(evidence, names))


def _expected(evidence: Evidence, names: tuple[str, ...] = presence.ALL_NAMES) -> Learned:
    return Learned(learn_expected(evidence), presence.fit(evidence, names))


def learn_expected(evidence: Evidence, method: str = "isotonic") -> ExpectedDice:
    """Calibrate pixels and the expected Dice on the frames that have a mask."""
    there = evidence.take(evidence.present)
    given = levels.probability(np.arange(levels.COUNT))
    if not len(there):
        nothing = calibration.Calibration((0.0, 1.0), (0.0, 0.0))
        return ExpectedDice(nothing, nothing)
    times = (there.reached[:, :-1] - there.reached[:, 1:]).sum(axis=0, dtype=np.int64)
    true = (there.shared[:, :-1] - there.shared[:, 1:]).sum(axis=0, dtype=np.int64)
    pixels = calibration.fit(method, given, true, times)
    cuts, ratio = best_cuts(there.reached, pixels)
    quality = calibration.fit("isotonic", ratio, dice(there, cuts), np.ones(len(there)))
    return ExpectedDice(pixels, quality)


CANDIDATES = (
    Candidate("fixed", "pixels from probability 0.5", _fixed),
    Candidate("area", "and a least area", _area),
    Candidate("thresholds", "pixel, area and presence thresholds, presence by the networks' heads", _head),
    Candidate("triplet", "area counted on confident pixels, outline at a lower threshold", _triplet),
    Candidate("classifier", "thresholds, presence by the classifier", _classifier),
    Candidate("expected", "mask and keep-or-empty by expected Dice, presence by the classifier", _expected),
)
"""From the simplest to the most elaborate."""

CONDITIONAL = (
    *(one for one in CANDIDATES if one.name in ("thresholds", "triplet")),
    Candidate(
        "classifier",
        "thresholds, the heads' presence calibrated",
        partial(_classifier, names=presence.HEAD_ALONE),
    ),
    Candidate(
        "expected",
        "mask and keep-or-empty by expected Dice, the heads' presence calibrated",
        partial(_expected, names=presence.HEAD_ALONE),
    ),
)
"""Those for maps that say P(pixel | there is a mask): without a presence they draw a mask on every frame."""

BASELINE = "thresholds"
"""What the others are compared with, pair by pair: the rule of the first version."""


def offered(conditional: bool) -> tuple[Candidate, ...]:
    """The candidates that make sense for maps that are ``conditional`` on a mask being there, or are not."""
    return CONDITIONAL if conditional else CANDIDATES
''')

write("kaggle_nerve/decision/crf.py", r'''"""Probabilities drawn to the edges of the image: a fully connected conditional random field.

P. Krähenbühl and V. Koltun, Efficient inference in fully connected CRFs with Gaussian edge potentials,
2011 (arXiv:1210.5644), for two labels and a grey image. Every pair of pixels i, j is joined by

    appearance_weight * exp(-|pi - pj|^2 / 2 position_deviation^2 - (Ii - Ij)^2 / 2 intensity_deviation^2)
    + smoothness_weight * exp(-|pi - pj|^2 / 2 smoothness_deviation^2)

where p is the place and I the grey level, and pays that much where the labels differ (Potts). Each
kernel K is normalised to D^-1/2 K D^-1/2 with D its row sums, so a weight is what a neighbourhood that
agrees adds to a pixel's log-odds. With two labels the mean field in terms of m = 2 * probability - 1 is
m = tanh((log-odds + sum of weight * K m) / 2). A pixel counts among its own neighbours, unlike in the
paper: one part in hundreds, except where nothing near has its grey level.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np

from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps.blending import from_log_odds, log_odds

SPACING, REACH = 0.8, 1.5
"""Places of the filter's grid, and how far it goes on beyond the values, in deviations."""


@dataclass(frozen=True)
class CrfSettings:
    """Deviations of ``position`` and ``smoothness`` in pixels of the full image, of ``intensity`` in grey
    levels; weights in log-odds. The work is done at 1 / ``shrink`` of the size.

    Raises NerveError for deviations that are not above 0, negative weights or iterations, or a shrink
    below 1.
    """

    position_deviation: float = 20.0
    intensity_deviation: float = 20.0
    appearance_weight: float = 1.0
    smoothness_deviation: float = 4.0
    smoothness_weight: float = 1.0
    iterations: int = 5
    shrink: int = 2

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("deviation"):
                fits, rule = 0 < value < np.inf, "above 0"
            elif field.name == "shrink":
                fits, rule = value >= 1, "at least 1"
            else:
                fits, rule = 0 <= value < np.inf, "not negative"
            if not fits:
                raise NerveError(f"The CRF's {field.name} is {value!r}; it has to be {rule}.")


def refine(
    probability: np.ndarray,
    image: np.ndarray,
    settings: CrfSettings = CrfSettings(),
) -> np.ndarray:
    """The marginal probabilities of the field, float32 (height, width), above 0 and below 1.

    ``probability``: float (height, width) from 0 to 1. ``image``: uint8 (height, width). With a shrink
    the neighbours' votes are found at the smaller size, enlarged, and added to the full-size log-odds, so
    detail of ``probability`` outlives it. No iterations: ``probability``, kept off 0 and 1.

    Raises NerveError where the two sizes differ.
    """
    if probability.shape != image.shape or image.ndim != 2:
        raise NerveError(
            f"The CRF needs a probability map and a grey image of one size, got {probability.shape} and "
            f"{image.shape}."
        )
    odds = log_odds(np.asarray(probability, np.float32))
    if not settings.iterations:
        return from_log_odds(odds)
    height, width = image.shape
    small = max(1, round(height / settings.shrink)), max(1, round(width / settings.shrink))
    scale = small[0] / height, small[1] / width
    shrunk = _resized(np.asarray(probability, np.float32), small, cv2.INTER_AREA)
    kernels = _kernels(_resized(image.astype(np.float32), small, cv2.INTER_AREA), scale, settings)
    own = log_odds(shrunk)
    field = np.tanh(own / 2)
    votes = np.zeros_like(own)
    for iteration in range(settings.iterations):
        if iteration:
            field = np.tanh((own + votes) / 2)
        votes = np.zeros_like(own)
        for weight, kernel in kernels:
            votes += weight * kernel(field)
    return from_log_odds(odds + _resized(votes, image.shape, cv2.INTER_LINEAR))


class _Appearance:
    """The filter by the appearance kernel, for one grey image: a bilateral grid with Gaussian corners.

    exp(-(a - b)^2 / 2 d^2) is, but for a factor, the integral over g of exp(-(a - g)^2 / d^2) *
    exp(-(b - g)^2 / d^2). Taken as the sum over g ``SPACING`` * d apart it is exact to one part in a
    thousand, so spreading to a grid and gathering from it by these bells is the whole filter: there is
    nothing left to blur. Each of the three axes has its own grid.
    """

    def __init__(self, image: np.ndarray, deviations: tuple[float, float], intensity_deviation: float):
        self._down, self._across = (
            _bells(np.arange(length, dtype=np.float32), deviation)
            for length, deviation in zip(image.shape, deviations, strict=True)
        )
        self._shares = _bells(image.reshape(-1), intensity_deviation).reshape(-1, *image.shape)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        result = np.zeros_like(values)
        # One bin at a time stays in the processor's cache.
        for share in self._shares:
            cells = self._down @ (share * values) @ self._across.T
            result += share * (self._down.T @ (cells @ self._across))
        return result


class _Smoothness:
    """The filter by the smoothness kernel: OpenCV's Gaussian, out to four deviations."""

    def __init__(self, deviations: tuple[float, float]):
        self._down, self._across = deviations

    def __call__(self, values: np.ndarray) -> np.ndarray:
        size = [2 * int(np.ceil(4 * deviation)) + 1 for deviation in (self._across, self._down)]
        return cv2.GaussianBlur(
            values, size, sigmaX=self._across, sigmaY=self._down, borderType=cv2.BORDER_CONSTANT
        )


class _Normalised:
    def __init__(self, kernel: "_Appearance | _Smoothness", size: tuple[int, int]):
        self._kernel = kernel
        self._root = 1 / np.sqrt(kernel(np.ones(size, np.float32)))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return self._root * self._kernel(self._root * values)


def _kernels(
    image: np.ndarray, scale: tuple[float, float], settings: CrfSettings
) -> list[tuple[float, _Normalised]]:
    """The kernels that have a weight, with it, for the shrunk image; ``scale``: its size, of the full one's."""
    kernels = []
    if settings.appearance_weight:
        near = scale[0] * settings.position_deviation, scale[1] * settings.position_deviation
        appearance = _Appearance(image, near, settings.intensity_deviation)
        kernels.append((settings.appearance_weight, _Normalised(appearance, image.shape)))
    if settings.smoothness_weight:
        near = scale[0] * settings.smoothness_deviation, scale[1] * settings.smoothness_deviation
        kernels.append((settings.smoothness_weight, _Normalised(_Smoothness(near), image.shape)))
    return kernels


def _bells(values: np.ndarray, deviation: float) -> np.ndarray:
    """How far each value (n,) belongs to each place of a grid, float32 (places, n)."""
    low, high = float(values.min()), float(values.max())
    places = np.arange(low - REACH * deviation, high + (REACH + SPACING) * deviation, SPACING * deviation)
    apart = values - places.astype(np.float32)[:, None]
    apart *= apart
    apart *= -1 / deviation**2
    # Several times as fast as NumPy's.
    return cv2.exp(apart)


def _resized(values: np.ndarray, size: tuple[int, int], how: int) -> np.ndarray:
    return values if values.shape == size else cv2.resize(values, size[::-1], interpolation=how)
''')

write("kaggle_nerve/decision/decision.py", r'''"""A learned decision: what `tune` leaves on disk and `submit` applies."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition.facts import SMALLEST_MASK
from kaggle_nerve.decision import shape_prior
from kaggle_nerve.decision.calibration import Calibration, Reliability
from kaggle_nerve.decision.candidates import Learned
from kaggle_nerve.decision.figures import Figures, Row
from kaggle_nerve.decision.presence import Classifier
from kaggle_nerve.decision.review import Review, Surface
from kaggle_nerve.decision.rule import ExpectedDice, Rule, Thresholds
from kaggle_nerve.decision.shape_prior import ShapePrior
from kaggle_nerve.decision.shaping import PRIOR, SHAPES
from kaggle_nerve.errors import NerveError
from kaggle_nerve.prediction.stored import Blend
from kaggle_nerve.storage import digest_file, read_json, write_json, write_text

VERSION = 2


class UnreadableDecisionError(NerveError):
    """A decision.json that is damaged, or of another version."""


@dataclass(frozen=True)
class Decision:
    """How probabilities become masks, and what it was chosen on.

    ``blend`` combines the runs, ``learned`` decides, ``shape`` (of `SHAPES`) finishes the mask.
    ``comparison``: the rows of `figures.Row` for rules, shapes and blends. ``reliability``: for pixels
    and for presence, raw and by each calibration. ``source``: digest of the predictions that it was
    learned on. ``prior``: where the shape asks for one. ``taken``: the choices that the user made, as in `tune`.
    ``review``: what it makes of the frames that it was learned on; None of a decision that an earlier version made.
    """

    rule: str
    learned: Learned
    shape: str
    blend: Blend
    figures: Figures
    comparison: dict[str, tuple[Row, ...]]
    reliability: dict[str, dict[str, Reliability]]
    source: str
    prior: ShapePrior | None = None
    taken: dict[str, str] = field(default_factory=dict)
    review: Review | None = field(default=None, repr=False, compare=False)

    def save(self, path: Path) -> None:
        """Write the decision as JSON and, before it and beside it, its review and its shape prior, atomically."""
        if self.prior is not None:
            self.prior.save(_prior_file(path))
        stored = self.as_dict()
        if self.review is not None:
            table = self.review.frames.round({"presence": 6, "dice": 6}).to_csv(index=False)
            write_text(_review_file(path), table)
            stored["review"] = {"sha256": digest_file(_review_file(path)), **self.review.surface.as_dict()}
        write_json(path, stored)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the shape prior and the review, ready for JSON."""
        rule = self.learned.rule
        kind = next(name for name, known in RULES.items() if isinstance(rule, known))
        return {
            "version": VERSION,
            "name": self.rule,
            "rule": {"kind": kind, **asdict(rule)},
            "shape": self.shape,
            "blend": asdict(self.blend),
            "figures": asdict(self.figures),
            "comparison": {what: [asdict(row) for row in rows] for what, rows in self.comparison.items()},
            "reliability": {
                what: {how: asdict(found) for how, found in ways.items()}
                for what, ways in self.reliability.items()
            },
            "source": self.source,
            "taken": self.taken,
            "classifier": self.learned.classifier and asdict(self.learned.classifier),
        }


@dataclass(frozen=True)
class Untaught:
    """What decides where nothing could be learned: see `untaught`."""

    learned: Learned
    rule: str = "default"
    shape: str = "none"
    blend: Blend = field(default_factory=Blend)
    prior: ShapePrior | None = None
    taken: dict[str, str] = field(default_factory=dict)


def untaught(conditional: bool) -> Untaught:
    """Pixels from probability 0.5, and no mask smaller than the smallest of the training data.

    ``conditional``: the maps say P(pixel | there is a mask), so that a mask also needs a presence of 0.5.
    """
    return Untaught(Learned(Thresholds(0.5, SMALLEST_MASK, 0.5 if conditional else 0.0)))


RULES: dict[str, type] = {"thresholds": Thresholds, "expected": ExpectedDice}


def load(path: Path) -> Decision:
    """Read decision.json; raises UnreadableDecisionError where it is none of this version."""
    try:
        return _read(read_json(path), path)
    except (KeyError, TypeError, ValueError, AttributeError, NerveError) as fault:
        raise UnreadableDecisionError(
            f"{path} is not a decision of this version ({str(fault).rstrip('.')})."
        ) from fault


def _read(stored: dict[str, Any], path: Path) -> Decision:
    if stored["version"] != VERSION:
        raise ValueError(f"version {stored['version']}")
    classifier = stored["classifier"] and Classifier(**_tuples(stored["classifier"]))
    steps = SHAPES[stored["shape"]]
    return Decision(
        stored["name"],
        Learned(_rule(stored["rule"]), classifier),
        stored["shape"],
        Blend(**_tuples(stored["blend"])),
        Figures(**stored["figures"]),
        {what: tuple(Row(**row) for row in rows) for what, rows in stored["comparison"].items()},
        {
            what: {how: Reliability(**_tuples(found)) for how, found in ways.items()}
            for what, ways in stored["reliability"].items()
        },
        stored["source"],
        shape_prior.load(_prior_file(path)) if PRIOR in steps else None,
        stored.get("taken", {}),
        _read_review(stored.get("review"), _review_file(path)),
    )


def _read_review(stored: dict[str, Any] | None, path: Path) -> Review | None:
    """None where the table is not the decision's own: another decision was about to take its place."""
    if stored is None or not path.is_file() or digest_file(path) != stored["sha256"]:
        return None
    surface = Surface(np.array(stored["dice"]), tuple(stored["columns"]), stored["label"])
    return Review(pd.read_csv(path), surface)


def _rule(stored: dict[str, Any]) -> Rule:
    values = dict(stored)
    rule = RULES[values.pop("kind")]
    for item in fields(rule):
        if isinstance(values[item.name], dict):
            values[item.name] = Calibration(**_tuples(values[item.name]))
    return rule(**values)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Lists at any depth as tuples: JSON has only lists, and what is frozen holds tuples."""

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return {name: frozen(value) for name, value in values.items()}


def _review_file(path: Path) -> Path:
    return path.with_name("frames.csv")


def _prior_file(path: Path) -> Path:
    return path.with_name("shape-prior.npz")
''')

write("kaggle_nerve/decision/evidence.py", r'''"""One pass over stored probabilities: everything that rules and classifiers look at, frame by frame."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import cv2
import numpy as np

from kaggle_nerve.decision import features
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.blending import mean_agreement
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import VIEWS, Blend, Stored
from kaggle_nerve.progress import SILENT, Reporter


@dataclass(frozen=True)
class Evidence:
    """What is known of n frames; the first axis of every array is the frame.

    ``reached``: int32 (n, 257), pixels at full size whose level reaches each cut (`levels.at_least`).
    ``features``: float32 (n, len(features.NAMES)). ``maps``: uint8 (n, height / 20, width / 20).
    ``presence``: P(mask not empty) by the networks' heads, (n,). For frames whose truth is known also
    ``shared``: as ``reached``, of the pixels inside the true mask; ``truth``: true area (n,);
    ``true_maps``: the true masks as maps; ``subjects``: (n,). Elsewhere these are empty arrays.
    """

    reached: np.ndarray
    features: np.ndarray
    maps: np.ndarray
    presence: np.ndarray
    shared: np.ndarray
    truth: np.ndarray
    true_maps: np.ndarray
    subjects: np.ndarray

    def __len__(self) -> int:
        return len(self.reached)

    def take(self, rows: np.ndarray) -> "Evidence":
        """The evidence of some frames: row numbers, or a mask of booleans."""
        return Evidence(*(getattr(self, item.name)[rows] for item in fields(self)))

    @property
    def present(self) -> np.ndarray:
        """Which frames truly have a mask, bool (n,)."""
        return self.truth > 0


@dataclass(frozen=True)
class Look:
    """What was measured on one frame: a row of `Evidence`."""

    reached: np.ndarray
    features: np.ndarray
    map: np.ndarray
    presence: float


def look(stored: Stored, row: int, blend: Blend | None = None) -> tuple[np.ndarray, Look]:
    """The map of a frame in levels at full size, uint8, and what is measured on it without its truth.

    ``blend`` combines the runs in place of the stored way.
    """
    return next(_looks(stored, row, [blend or stored.blend]))


def map_levels(stored: Stored, row: int, blend: Blend | None = None) -> np.ndarray:
    """The map of a frame in levels at full size, uint8, as `look` gives it, but nothing is measured on it."""
    return levels.quantise(stored.mixed(stored.members(row), blend or stored.blend))


def _looks(stored: Stored, row: int, blends: Sequence[Blend]) -> Iterator[tuple[np.ndarray, Look]]:
    """`look` for several ways to combine the runs, which are read once."""
    members = stored.members(row)
    views = [float(stored.table[name].iat[row]) for name in VIEWS]
    runs = [_agreement(members), float(stored.presences[row].std())]
    for blend in blends:
        seen = levels.quantise(stored.mixed(members, blend))
        reached = levels.at_least(levels.histogram(seen))
        presence = float(np.average(stored.presences[row], weights=blend.weights or None))
        values = features.measure(seen, reached, presence, (*views, *runs))
        yield seen, Look(reached, values, features.coarse(seen), presence)


def of_looks(looks: Sequence[Look]) -> Evidence:
    """The evidence of frames whose truth is not known."""
    nothing = np.zeros((len(looks), 0))
    return Evidence(
        np.stack([seen.reached for seen in looks]),
        np.stack([seen.features for seen in looks]),
        np.stack([seen.map for seen in looks]),
        np.array([seen.presence for seen in looks]),
        *[nothing] * 4,
    )


Way = Callable[[int], Blend]
"""How the runs are combined on the frame of a row."""


def measure(
    stored: Stored,
    truths: Truths,
    ways: Sequence[Way] = (),
    *,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> list[Evidence]:
    """Look at every out-of-fold frame: the evidence for each of ``ways`` (none: the stored way alone)."""
    ways = ways or [lambda row: stored.blend]

    def see(row: int) -> list[tuple[Look, np.ndarray]]:
        # The full maps are let go at once: 4436 of them would take a gigabyte.
        found = []
        for seen, one in _looks(stored, row, [way(row) for way in ways]):
            inside = np.bincount(truths.inside(row, seen), minlength=levels.COUNT)
            found.append((one, levels.at_least(inside.astype(np.int32))))
        return found

    with ThreadPoolExecutor(workers) as pool, reporter.bar("Measuring", len(stored)) as bar:
        rows = []
        for found in pool.map(see, range(len(stored))):
            rows.append(found)
            bar.update()
    known = {
        "truth": truths.areas,
        "true_maps": np.stack([_true_map(truths, row) for row in range(len(stored))]),
        "subjects": stored.table.subject.to_numpy(),
    }
    return [
        dataclasses.replace(
            of_looks([found[way][0] for found in rows]),
            shared=np.stack([found[way][1] for found in rows]),
            **known,
        )
        for way in range(len(ways))
    ]


def _true_map(truths: Truths, row: int) -> np.ndarray:
    return features.coarse(truths.mask(row).astype(np.uint8) * (levels.COUNT - 1))


def _agreement(members: np.ndarray) -> float:
    """Mean pairwise Dice of the runs' masks, on maps of a quarter of the size."""
    if len(members) == 1:
        return 1.0
    height, width = (max(side // features.SHRINK, 1) for side in members.shape[1:])
    small = [cv2.resize(member, (width, height), interpolation=cv2.INTER_AREA) for member in members]
    return mean_agreement(np.stack(small))
''')

write("kaggle_nerve/decision/features.py", r'''"""What a frame's probability map says about whether there is a nerve, in numbers for a classifier."""

from collections.abc import Sequence

import cv2
import numpy as np

from kaggle_nerve.maps import levels
from kaggle_nerve.maps.blending import log_odds

SHRINK = 4
"""Blobs are looked at on maps of a quarter of the height and width: 105x145 for a full frame."""

COARSE = 20
"""The place of a blob is compared with that of true masks on maps of a twentieth: 21x29."""

TOP = 2000
"""Pixels, fewer than the smallest true mask has (2684)."""

AREAS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Probabilities from which areas are counted."""

NAMES = (
    "head",
    "maximum",
    "top",
    *(f"area{round(100 * value)}" for value in AREAS),
    "sharpness",
    "inside",
    "compactness",
    "largest",
    "agreement",
    "spread",
    "runs_agreement",
    "runs_spread",
)
"""The columns of `measure`: log-odds of the head's presence, of the largest pixel and of the mean of the
top pixels; square roots of areas as shares of the median mask; share of the area at 0.3 that is also
there at 0.7; mean probability inside the mask at 0.5; 4 pi area / perimeter^2 of its largest blob and
that blob's share of it; how far views and runs agree on the mask, and how their presences differ. The
place, against the mean of the training masks, is added by the classifier, which knows these masks."""

MEDIAN_AREA = 6976


def measure(
    map_levels: np.ndarray,
    reached: np.ndarray,
    presence: float,
    agreements: Sequence[float],
) -> np.ndarray:
    """The features (len(NAMES),) of one frame, float32.

    ``map_levels``: uint8 (height, width); ``reached``: pixels that reach each cut (257,); ``agreements``:
    agreement and spread of the views, then of the runs.
    """
    areas = {value: int(reached[levels.cut(value)]) for value in AREAS}
    top_level = int(np.flatnonzero(reached)[-1])
    return np.array(
        [
            log_odds(presence),
            log_odds(levels.probability(top_level)),
            log_odds(_top_mean(reached)),
            *(np.sqrt(area / MEDIAN_AREA) for area in areas.values()),
            areas[0.7] / max(areas[0.3], 1),
            _inside(reached, levels.cut(0.5)),
            *_blob(map_levels),
            *agreements,
        ],
        np.float32,
    )


def coarse(map_levels: np.ndarray) -> np.ndarray:
    """The map at a twentieth of its height and width, uint8."""
    return _shrunk(map_levels, COARSE)


def _top_mean(reached: np.ndarray) -> float:
    """Mean probability of the `TOP` largest pixels."""
    # The sum of the top k levels is the sum over cuts of how many of the k reach each.
    return float(np.minimum(reached[1:], TOP).sum() / TOP / (levels.COUNT - 1))


def _inside(reached: np.ndarray, cut: int) -> float:
    area = int(reached[cut])
    if not area:
        return 0.0
    return float((cut * area + reached[cut + 1 :].sum()) / area / (levels.COUNT - 1))


def _blob(map_levels: np.ndarray) -> tuple[float, float]:
    """Compactness of the largest blob, and its share of all blobs' area."""
    mask = (_shrunk(map_levels, SHRINK) >= levels.cut(0.5)).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return 0.0, 0.0
    areas = [cv2.contourArea(contour) for contour in contours]
    largest = int(np.argmax(areas))
    length = cv2.arcLength(contours[largest], closed=True)
    compactness = 4 * np.pi * areas[largest] / length**2 if length else 0.0
    return compactness, areas[largest] / max(sum(areas), 1e-9)


def _shrunk(map_levels: np.ndarray, factor: int) -> np.ndarray:
    height, width = map_levels.shape
    size = (max(width // factor, 1), max(height // factor, 1))
    return cv2.resize(map_levels, size, interpolation=cv2.INTER_AREA)
''')

write("kaggle_nerve/decision/figures.py", r'''"""What was measured on out-of-fold frames: the figures of a decision, and the table of what it was chosen from."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from kaggle_nerve.decision import calibration
from kaggle_nerve.decision.calibration import METHODS, Reliability
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.decision.nested import Nested, by_subject, interval
from kaggle_nerve.decision.presence import cross_fitted, parts
from kaggle_nerve.maps import levels

FAR = 0.1
"""How far the share of frames with a mask may lie from the training frames' before it is worth a warning."""

RAW, CLASSIFIER = "raw", "classifier"


@dataclass(frozen=True)
class Figures:
    """What was measured on out-of-fold frames, each share from 0 to 1.

    ``dice`` is the nested figure: each subject is scored by what was chosen and learned on the others.
    ``low`` and ``high`` are its 95 % interval over a bootstrap of subjects. ``in_sample`` is what the
    decision scores on the very frames it was learned on. ``present_dice`` is the nested Dice over
    frames with a mask; ``kept_present_dice`` the same if no frame had been dropped, and
    ``perfect_presence`` the mean Dice of all frames if every frame's presence were known.
    """

    frames: int
    subjects: int
    dice: float
    low: float
    high: float
    in_sample: float
    all_empty: float
    perfect_presence: float
    present_dice: float
    kept_present_dice: float
    presence_auc: float | None
    presence_error: float
    false_positive_rate: float | None
    false_negative_rate: float | None
    predicted_share: float
    true_share: float


@dataclass(frozen=True)
class Row:
    """One way to decide, as compared by `tune`: nested figures as in `Figures`, and the mean of the paired
    difference from the baseline with its 95 % interval over a bootstrap of subjects.
    """

    name: str
    meaning: str
    dice: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    present_dice: float
    false_positive_rate: float | None
    false_negative_rate: float | None
    chosen: bool


def compared(
    name: str,
    meaning: str,
    nested: Nested,
    baseline: np.ndarray,
    evidence: Evidence,
    seed: int,
    *,
    chosen: bool = False,
) -> Row:
    """The row of one way; ``baseline``: the Dice (n,) of the way that it is compared with."""
    low, high = interval(*by_subject(nested.dice, evidence.subjects), seed)
    worse, better = interval(*by_subject(nested.dice - baseline, evidence.subjects), seed)
    there = evidence.present
    return Row(
        name,
        meaning,
        float(nested.dice.mean()),
        low,
        high,
        float((nested.dice - baseline).mean()),
        worse,
        better,
        _mean(nested.dice[there]) or 0.0,
        _mean(nested.kept[~there]),
        _mean(~nested.kept[there]),
        chosen,
    )


def figures(evidence: Evidence, nested: Nested, in_sample: float, seed: int) -> Figures:
    """The figures of a decision whose nested verdicts are ``nested``."""
    there, kept = evidence.present, nested.kept
    low, high = interval(*by_subject(nested.dice, evidence.subjects), seed)
    mixed = 0 < there.sum() < len(there)
    found = presence_reliability(evidence, nested)
    return Figures(
        frames=len(there),
        subjects=len(np.unique(evidence.subjects)),
        dice=float(nested.dice.mean()),
        low=low,
        high=high,
        in_sample=in_sample,
        all_empty=float((~there).mean()),
        perfect_presence=float(np.where(there, nested.open_dice, 1).mean()),
        present_dice=_mean(nested.dice[there]) or 0.0,
        kept_present_dice=_mean(nested.open_dice[there]) or 0.0,
        presence_auc=float(roc_auc_score(there, nested.presence)) if mixed else None,
        presence_error=found.error,
        false_positive_rate=_mean(kept[~there]),
        false_negative_rate=_mean(~kept[there]),
        predicted_share=float(kept.mean()),
        true_share=float(there.mean()),
    )


def presence_reliability(evidence: Evidence, nested: Nested) -> calibration.Reliability:
    """How often frames with a given presence truly have a mask."""
    return calibration.reliability(nested.presence, evidence.present, np.ones(len(evidence)))


def far_share(predicted: float, trained: float) -> str | None:
    """The end of a warning where ``predicted``, a share of frames with a mask, lies far from the training frames'."""
    if abs(predicted - trained) <= FAR:
        return None
    return (
        f"masks are predicted on {predicted:.1%} of the frames, but {trained:.1%} of the training frames have "
        "one: see whether the predictions are of the right frames and the network has learned enough."
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def reliability_of_pixels(evidence: Evidence) -> dict[str, Reliability]:
    """How far the probabilities of all pixels of all frames come true, raw and calibrated on other subjects."""
    times = (evidence.reached[:, :-1] - evidence.reached[:, 1:]).astype(np.int64)
    true = (evidence.shared[:, :-1] - evidence.shared[:, 1:]).astype(np.int64)
    given = levels.probability(np.arange(levels.COUNT))
    found = {RAW: calibration.reliability(given, true.sum(axis=0), times.sum(axis=0))}
    for method in METHODS:
        rows = []
        for seen, unseen in parts(evidence.subjects):
            curve = calibration.fit(method, given, true[seen].sum(axis=0), times[seen].sum(axis=0))
            rows.append((curve(given), true[unseen].sum(axis=0), times[unseen].sum(axis=0)))
        found[method] = calibration.reliability(
            *(np.concatenate(column) for column in zip(*rows, strict=True))
        )
    return found


def reliability_of_presence(evidence: Evidence, names: tuple[str, ...]) -> dict[str, Reliability]:
    """As `reliability_of_pixels`, of the heads' presence, and of the classifier's by the features ``names``."""
    once, true = np.ones(len(evidence)), evidence.present
    found = {RAW: calibration.reliability(evidence.presence, true, once)}
    for method in METHODS:
        given = np.zeros(len(evidence))
        for seen, unseen in parts(evidence.subjects):
            curve = calibration.fit(method, evidence.presence[seen], true[seen], once[seen])
            given[unseen] = curve(evidence.presence[unseen])
        found[method] = calibration.reliability(given, true, once)
    found[CLASSIFIER] = calibration.reliability(cross_fitted(evidence, names), true, once)
    return found
''')

write("kaggle_nerve/decision/masks.py", r'''"""A decision applied to stored probabilities: a submission's rows, a few frames in memory at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from kaggle_nerve.competition import rle
from kaggle_nerve.decision.decision import Decision, Untaught
from kaggle_nerve.decision.evidence import look, of_looks
from kaggle_nerve.decision.shaping import SHAPES, Images, Shaper
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.prediction.stored import Stored
from kaggle_nerve.progress import SILENT, Reporter


def encoded_masks(
    stored: Stored,
    decision: Decision | Untaught,
    *,
    images: Images | None = None,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> Iterator[tuple[int, str]]:
    """Yield (img, run-length encoding) for each frame of ``stored``, in its order; '' for an empty mask.

    ``stored`` holds the runs that the decision was learned on, in the same order. ``images`` is needed
    where the decision's shape is the CRF.
    """
    weights = decision.blend.weights or decision.blend.thresholds
    if weights and len(weights) != len(stored.parts):
        raise NerveError(
            f"The decision combines {len(weights)} runs, not {len(stored.parts)}; run `kaggle-nerve tune --force`."
        )
    stored = replace(stored, blend=decision.blend)
    finish = Shaper(SHAPES[decision.shape], decision.prior, images)

    def decide(row: int) -> str:
        seen, found = look(stored, row)
        cut = int(decision.learned.cuts(of_looks([found]))[0])
        return "" if cut == levels.NOTHING else rle.encode(finish(seen, cut, row))

    imgs = stored.table.img.to_list()
    with ThreadPoolExecutor(workers) as pool, reporter.bar("Writing masks", len(imgs)) as bar:
        for img, text in zip(imgs, pool.map(decide, range(len(imgs))), strict=True):
            yield int(img), text
            bar.update()
''')

write("kaggle_nerve/decision/nested.py", r'''"""What a decision may be expected to score on new patients: each patient is decided by what the others taught."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kaggle_nerve.decision.candidates import Candidate, dice
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.maps import levels
from kaggle_nerve.progress import Bar

DRAWS = 2000
"""Bootstrap draws of subjects."""

LEAST = 0.001
"""Mean Dice below which a gain is not worth a more elaborate way, however certain it is."""


@dataclass(frozen=True)
class Nested:
    """For each frame, by rules learned without its subject: ``cuts`` int (n,), `levels.NOTHING` where it is
    called empty; ``outlines`` (n,), the cuts if none were; ``presence`` (n,); ``dice`` (n,) of the cuts,
    and ``open_dice`` (n,) of the outlines.
    """

    cuts: np.ndarray
    outlines: np.ndarray
    presence: np.ndarray
    dice: np.ndarray
    open_dice: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Which frames keep a mask, bool (n,)."""
        return self.cuts < levels.NOTHING


def splits(subjects: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(others, mine) as bool (n,) for each subject; a single subject is judged by itself."""
    names = np.unique(subjects)
    for name in names:
        mine = subjects == name
        yield (~mine if len(names) > 1 else mine), mine


def judge(candidate: Candidate, evidence: Evidence, *, bar: Bar | None = None, workers: int = 2) -> Nested:
    """Decide every subject by what the others teach; ``bar`` counts subjects."""
    held = list(splits(evidence.subjects))

    def one(split: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
        others, mine = split
        learned, unseen = candidate.learn(evidence.take(others)), evidence.take(mine)
        return learned.cuts(unseen), learned.rule.outlines(unseen), learned.presence(unseen)

    cuts, outlines = np.zeros(len(evidence), int), np.zeros(len(evidence), int)
    presence = np.zeros(len(evidence))
    with ThreadPoolExecutor(workers) as pool:
        for (_, mine), found in zip(held, pool.map(one, held), strict=True):
            cuts[mine], outlines[mine], presence[mine] = found
            if bar:
                bar.update()
    return Nested(cuts, outlines, presence, dice(evidence, cuts), dice(evidence, outlines))


def by_subject(values: np.ndarray, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the frames' ``values`` (n,) and numbers of frames, both (subjects,)."""
    _, groups = np.unique(subjects, return_inverse=True)
    return np.bincount(groups, values), np.bincount(groups)


def interval(sums: np.ndarray, sizes: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over frames, subjects drawn with replacement.

    ``sums``: (subjects,) sum of the frames' values of each subject; ``sizes``: its number of frames.
    """
    low, high = np.percentile(_means(sums, sizes, seed), [2.5, 97.5])
    return float(low), float(high)


def deviation(sums: np.ndarray, sizes: np.ndarray, seed: int) -> float:
    """The standard error of the same mean."""
    return float(_means(sums, sizes, seed).std())


def _means(sums: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed).integers(0, len(sums), (DRAWS, len(sums)))
    return sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)


def simplest_within_noise(sums: np.ndarray, sizes: np.ndarray, ranks: Sequence[int], seed: int) -> int:
    """Which candidate to take: the simplest whose mean is within one standard error, or `LEAST`, of the best
    one's; among equally simple ones the best.

    ``sums``: (candidates, subjects); ``ranks``: (candidates,), the lower the simpler. The error is that of
    the paired difference over a bootstrap of subjects: the one-standard-error rule of Breiman et al.,
    "Classification and Regression Trees" (1984).
    """
    totals = sums.sum(axis=1)
    best = int(totals.argmax())

    def near(place: int) -> bool:
        lead = sums[best] - sums[place]
        return place == best or lead.sum() / sizes.sum() <= max(deviation(lead, sizes, seed), LEAST)

    simpler = [place for place in range(len(sums)) if ranks[place] <= ranks[best]]
    return min(filter(near, simpler), key=lambda place: (ranks[place], -totals[place]))


@dataclass(frozen=True)
class Choice:
    """One of several ways. ``place`` is the one taken on all subjects; ``picks`` (n,) is for each frame the
    one that is taken by the Dice of the other subjects' frames.
    """

    place: int
    picks: np.ndarray


def choose(dices: list[np.ndarray], subjects: np.ndarray, ranks: Sequence[int], seed: int) -> Choice:
    """The simplest way within noise of the best, by the Dice (n,) of the frames with each way; see
    `simplest_within_noise` for ``ranks``.
    """
    names, groups = np.unique(subjects, return_inverse=True)
    sums = np.stack([by_subject(values, subjects)[0] for values in dices])
    sizes = np.bincount(groups)
    place = simplest_within_noise(sums, sizes, ranks, seed)
    if len(names) == 1:
        return Choice(place, np.full(len(subjects), place))
    without = [
        simplest_within_noise(np.delete(sums, one, axis=1), np.delete(sizes, one), ranks, seed)
        for one in range(len(names))
    ]
    return Choice(place, np.array(without)[groups])
''')

write("kaggle_nerve/decision/presence.py", r'''"""The empty-mask classifier: P(mask not empty) from what the probability maps look like.

A logistic regression (scikit-learn) over `features.NAMES` and over how well the map lies where the
training masks lie. With some forty patients a model of more freedom learns the patients. Maps that say
P(pixel | there is a mask) look alike with and without one, so that of them only the head's presence counts:
every other feature was measured to add nothing, or to take something.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from kaggle_nerve.decision import features
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.maps.blending import from_log_odds

PENALTY = 0.1
"""C of the regression: the inverse of the weight of its L2 penalty."""

PLACE = "place"
"""The feature that the classifier adds: the mean of the training masks under the map."""

ALL_NAMES = (*features.NAMES, PLACE)
HEAD_ALONE = ("head",)
"""What conditional maps are judged by: the head's presence, calibrated."""

CROSS = 5
"""Parts into which subjects are dealt to get a classifier's verdict on frames that it has not seen."""


@dataclass(frozen=True)
class Classifier:
    """A fitted classifier. Numbers are for the features in the order of ``names``, of `ALL_NAMES`.

    ``prior``: the mean true mask in a coarse grid.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    prior: tuple[tuple[float, ...], ...]

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """P(mask not empty), float (n,)."""
        values = (_columns(evidence, np.array(self.prior), self.names) - self.mean) / self.scale
        return from_log_odds((values * self.weights).sum(axis=1) + self.intercept)


def fit(evidence: Evidence, names: tuple[str, ...] = ALL_NAMES) -> Classifier:
    """Learn from frames whose truth is known, by the features ``names``."""
    prior = _prior(evidence)
    values = _columns(evidence, prior, names)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    # A feature that never changes here gets no weight, whatever it is elsewhere.
    scale[scale < 1e-6] = 1
    if evidence.present.all() or not evidence.present.any():
        sure = 20.0 if evidence.present.all() else -20.0
        weights, intercept = np.zeros(len(names)), sure
    else:
        model = LogisticRegression(C=PENALTY, max_iter=2000).fit((values - mean) / scale, evidence.present)
        weights, intercept = model.coef_[0], float(model.intercept_[0])
    return Classifier(
        names,
        tuple(mean.tolist()),
        tuple(scale.tolist()),
        tuple(weights.tolist()),
        intercept,
        tuple(map(tuple, prior.tolist())),
    )


def cross_fitted(evidence: Evidence, names: tuple[str, ...] = ALL_NAMES) -> np.ndarray:
    """P(mask not empty) of each frame by a classifier that saw none of its subject, (n,)."""
    result = np.zeros(len(evidence))
    for seen, unseen in parts(evidence.subjects):
        result[unseen] = fit(evidence.take(seen), names)(evidence.take(unseen))
    return result


def parts(subjects: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(seen, unseen) row numbers of up to `CROSS` splits by subject; a single subject is split by frame."""
    count = len(np.unique(subjects))
    groups = subjects if count > 1 else np.arange(len(subjects))
    splitter = GroupKFold(min(CROSS, len(np.unique(groups))))
    return list(splitter.split(groups, groups=groups))


def _prior(evidence: Evidence) -> np.ndarray:
    """The mean true mask, 0 to 1, (height, width) of the coarse maps."""
    masks = evidence.true_maps[evidence.present]
    shape = evidence.true_maps.shape[1:]
    return np.round(masks.mean(axis=0) / 255, 4) if len(masks) else np.zeros(shape)


def _columns(evidence: Evidence, prior: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    maps = evidence.maps.reshape(len(evidence), -1).astype(np.float32)
    # Summed row by row, so that a frame gets the same number alone as among thousands.
    place = np.einsum("np,p->n", maps, prior.reshape(-1).astype(np.float32))
    values = np.column_stack([evidence.features, place / np.maximum(maps.sum(axis=1), 1)]).astype(float)
    # Contiguous rows are summed in one order, whatever the number of rows.
    return np.ascontiguousarray(values[:, [ALL_NAMES.index(name) for name in names]])
''')

write("kaggle_nerve/decision/review.py", r'''"""What a decision makes of the out-of-fold frames, one by one. It is kept beside the decision, so that nobody has to
measure the frames again to look at them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision import shaping
from kaggle_nerve.decision.candidates import AREAS, THRESHOLDS, Learned, dice
from kaggle_nerve.decision.evidence import Evidence, measure
from kaggle_nerve.decision.shaping import Shaper
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Stored
from kaggle_nerve.progress import SILENT, Reporter

LEAST_PRESENCES = tuple(np.round(np.arange(0.1, 0.95, 0.1), 1).tolist())
"""The least presences of a `Surface` of conditional maps."""

COLUMNS = ["subject", "img", "area", "predicted_area", "presence", "dice"]


@dataclass(frozen=True)
class Surface:
    """Mean Dice (thresholds, columns) by pixel threshold (`THRESHOLDS`) and by what ``label`` says of ``columns``."""

    dice: np.ndarray
    columns: tuple[float, ...]
    label: str

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"dice": self.dice.round(6).tolist(), "columns": list(self.columns), "label": self.label}


@dataclass(frozen=True)
class Review:
    """``frames``: a row for each out-of-fold frame, by subject and img, with `COLUMNS`: the pixels of the true mask
    and of the predicted one, P(mask not empty), and the Dice. The decision was learned on these very frames, so their
    mean Dice is the in-sample figure.

    ``surface``: what thresholds alone score on these frames.
    """

    frames: pd.DataFrame
    surface: Surface


def review(
    stored: Stored,
    truths: Truths,
    learned: Learned,
    shaper: Shaper,
    *,
    evidence: Evidence | None = None,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> Review:
    """Decide every frame of ``stored``. ``evidence``: what `measure` found on them, measured here if it is None."""
    how: dict[str, Any] = {"reporter": reporter, "workers": workers}
    evidence = evidence or measure(stored, truths, **how)[0]
    cuts, rows = learned.cuts(evidence), np.arange(len(evidence))
    areas, shared = evidence.reached[rows, cuts], evidence.shared[rows, cuts]
    if shaper.steps:
        areas, shared = (
            counts[0] for counts in shaping.counts(stored, truths, cuts, lambda row: [shaper], **how)
        )
    presence = learned.presence(evidence)
    frames = stored.table[["subject", "img"]].assign(
        area=truths.areas,
        predicted_area=areas,
        presence=presence,
        dice=dice_of_counts(shared, truths.areas, areas),
    )
    return Review(frames, _surface(evidence, presence if stored.is_conditional else None))


def some(stored: Stored, rows: np.ndarray) -> Stored:
    """The predictions of some rows."""
    return replace(
        stored,
        table=stored.table.iloc[rows],
        presences=stored.presences[rows],
        rows=tuple(places[rows] for places in stored.rows),
    )


def _surface(evidence: Evidence, presence: np.ndarray | None) -> Surface:
    """By least area, or where ``presence`` (n,) is given by the least presence."""
    empty = np.where(evidence.present, 0.0, 1.0)
    columns = AREAS if presence is None else LEAST_PRESENCES
    rows = []
    for threshold in THRESHOLDS:
        cut = levels.cut(threshold)
        drawn = dice(evidence, np.full(len(evidence), cut))
        kept_by = evidence.reached[:, cut] if presence is None else presence
        rows.append([np.where(kept_by >= least, drawn, empty).mean() for least in columns])
    return Surface(np.array(rows), columns, "least area (pixels)" if presence is None else "least presence")
''')

write("kaggle_nerve/decision/rule.py", r'''"""Rules that turn what was measured on frames into a cut per frame: the level from which pixels are masked."""

from dataclasses import dataclass

import numpy as np

from kaggle_nerve.decision.calibration import Calibration
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.maps import levels


@dataclass(frozen=True)
class Thresholds:
    """Fixed thresholds: the triplet rule of the SIIM-ACR pneumothorax winners, and the plain one.

    A frame keeps its mask where its presence is at least ``presence`` and at least ``area`` pixels reach
    the probability ``confident``; its mask are then the pixels that reach ``threshold``. The plain rule
    has ``confident`` equal to ``threshold``.
    """

    threshold: float = 0.5
    area: int = 0
    presence: float = 0.0
    confident: float | None = None

    def outlines(self, evidence: Evidence) -> np.ndarray:
        """The cut of each frame if none were empty, int (n,)."""
        return np.full(len(evidence), levels.cut(self.threshold))

    def kept(self, evidence: Evidence, presence: np.ndarray) -> np.ndarray:
        """Which frames keep their mask, bool (n,); ``presence``: P(mask not empty) (n,)."""
        confident = self.threshold if self.confident is None else self.confident
        area = evidence.reached[:, levels.cut(confident)]
        return (area >= max(self.area, 1)) & (presence >= self.presence)


@dataclass(frozen=True)
class ExpectedDice:
    """The mask with the largest expected Dice, kept where the expected score of keeping it is the larger.

    ``pixels`` calibrates a pixel's probability given that there is a mask. Of all masks of k pixels the
    one of the k likeliest has the largest expected overlap, and k is where 2 sum(p[:k]) / (k + sum(p))
    is largest: one cumulative sum (the plug-in rule of Dembczynski et al., ICML 2013, "Optimizing the
    F-measure in multi-label classification"). ``quality`` turns that ratio into the Dice d to be
    expected, since pixels are far from independent. An empty mask scores P(empty), the mask
    d P(present): it is kept where presence > 1 / (1 + d).
    """

    pixels: Calibration
    quality: Calibration

    def outlines(self, evidence: Evidence) -> np.ndarray:
        """The cut of each frame if none were empty, int (n,)."""
        return best_cuts(evidence.reached, self.pixels)[0]

    def kept(self, evidence: Evidence, presence: np.ndarray) -> np.ndarray:
        """Which frames keep their mask, bool (n,); ``presence``: P(mask not empty) (n,)."""
        cuts, ratio = best_cuts(evidence.reached, self.pixels)
        area = np.take_along_axis(evidence.reached, cuts[:, None], axis=1)[:, 0]
        return (area > 0) & (presence * (1 + self.quality(ratio)) > 1)


Rule = Thresholds | ExpectedDice


def best_cuts(reached: np.ndarray, pixels: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """The cut (n,) with the largest expected Dice of each frame, and that Dice (n,) for independent pixels.

    ``reached``: pixels that reach each cut, (n, 257).
    """
    meant = pixels(levels.probability(np.arange(levels.COUNT)))
    counts = reached[:, :-1] - reached[:, 1:]
    # Level 0 can hold most of the frame: it counts in the sum, and is never taken into a mask.
    expected = np.cumsum((counts * meant)[:, ::-1], axis=1)[:, ::-1]
    ratios = 2 * expected[:, 1:] / np.maximum(reached[:, 1:-1] + expected[:, :1], 1e-9)
    # Of equal ones the highest cut: the smallest mask.
    cuts = ratios.shape[1] - ratios[:, ::-1].argmax(axis=1)
    return cuts, ratios[np.arange(len(cuts)), cuts - 1]
''')

write("kaggle_nerve/decision/shape.py", r'''"""Named refinements of one mask: what is known of a nerve's outline, as operations on pixels.

Each takes a mask, bool (height, width), and returns one of the same size; the array given is never
changed and may be returned as it is. An empty mask stays empty and a non-empty one never becomes
empty. All but ``ellipse`` act as if the frame went on, empty, beyond its border. Only the mask's
bounding box and a margin are looked at: a fraction of a millisecond for a nerve in a full-size frame.
"""

from collections.abc import Callable, Sequence
from functools import wraps

import cv2
import numpy as np

from kaggle_nerve.errors import NerveError

Operation = Callable[[np.ndarray], np.ndarray]

CLOSING = 21
"""Diameter of the closing's kernel in pixels, a fifth of a nerve's. True masks keep a Dice of 0.9992 with
their closing by it (0.995 at worst, 367 masks): notches and gaps this narrow are not in them."""

SMOOTHING = 31
"""Width of the smoothing's Gaussian kernel in pixels: a deviation of 5, a tenth of a nerve's diameter."""


def _near_the_mask(margin: int) -> Callable[[Operation], Operation]:
    """Let an operation on uint8 0/1 see the bounding box with ``margin`` empty pixels around it only."""

    def decorate(operation: Operation) -> Operation:
        @wraps(operation)
        def whole(mask: np.ndarray) -> np.ndarray:
            pixels = _pixels(mask)
            left, top, width, height = cv2.boundingRect(pixels)
            if not width:
                return mask
            box = pixels[top : top + height, left : left + width]
            # Padding, not a wider cut: near the frame's border there is nothing to cut.
            padded = cv2.copyMakeBorder(box, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
            found = operation(padded)[margin : margin + height, margin : margin + width]
            if not found.any():
                return mask
            result = np.zeros(mask.shape, bool)
            result[top : top + height, left : left + width] = found
            return result

        return whole

    return decorate


@_near_the_mask(1)
def fill(mask: np.ndarray) -> np.ndarray:
    """The mask and its holes: background that no path of side-by-side pixels joins to the outside."""
    outside = mask.copy()
    cv2.floodFill(outside, None, (0, 0), 2, flags=4)
    return outside != 2


@_near_the_mask(0)
def largest(mask: np.ndarray) -> np.ndarray:
    """The component with the most pixels; pixels that touch at a corner are joined.

    Of equally large ones, that which comes first when the frame is read row by row.
    """
    count, labels, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count == 2:
        return mask
    areas = facts[1:, cv2.CC_STAT_AREA]
    chosen = 1 + np.flatnonzero(areas == areas.max())
    if len(chosen) > 1:
        # OpenCV leaves open in which order it numbers components.
        chosen = labels.flat[np.isin(labels, chosen).argmax()]
    return labels == chosen


@_near_the_mask(CLOSING // 2 + 1)
def close(mask: np.ndarray) -> np.ndarray:
    """The morphological closing by a disc of ``CLOSING`` pixels: gaps that do not hold the disc fill up."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (CLOSING, CLOSING))
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel)


@_near_the_mask(SMOOTHING // 2)
def smooth(mask: np.ndarray) -> np.ndarray:
    """The mask blurred by a Gaussian kernel ``SMOOTHING`` pixels wide and cut at one half.

    A mask too small to reach one half anywhere is returned as it is.
    """
    return cv2.GaussianBlur(mask * np.uint8(255), (SMOOTHING, SMOOTHING), 0) > 127


def ellipse(mask: np.ndarray) -> np.ndarray:
    """The filled ellipse through the outline of the mask's largest component, in the least-squares sense.

    The fit is OpenCV's: A. W. Fitzgibbon and R. B. Fisher, A buyer's guide to conic fitting, 1995. The
    mask is returned as it is where the outline has fewer than 5 points or gives no ellipse of this frame:
    centred outside it, or longer than twice its diagonal.
    """
    pixels = largest(mask).view(np.uint8) if mask.any() else _pixels(mask)
    outlines, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines or len(outlines[0]) < 5:
        return mask
    centre, axes, angle = cv2.fitEllipse(outlines[0])
    height, width = mask.shape
    # Comparisons that a NaN fails, as the fit to points on one line has them.
    within = -0.5 <= centre[0] <= width - 0.5 and -0.5 <= centre[1] <= height - 0.5
    if not (within and 0 < max(axes) <= 2 * np.hypot(height, width) and min(axes) >= 0):
        return mask
    drawn = np.zeros(mask.shape, np.uint8)
    cv2.ellipse(drawn, (centre, axes, angle), 1, cv2.FILLED)
    return drawn.view(bool) if drawn.any() else mask


@_near_the_mask(0)
def hull(mask: np.ndarray) -> np.ndarray:
    """The convex hull of all pixels, components together: every pixel whose centre lies in the hull."""
    height, width = mask.shape
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = width - 1 - mask[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([first, rows], axis=1), np.stack([last, rows], axis=1)])
    corners = cv2.convexHull(ends.astype(np.int32)).reshape(-1, 2)
    # OpenCV's own filling draws the outline too, which bulges by rounding: the hull of a hull would grow.
    (x, y), (dx, dy) = corners.T, (np.roll(corners, -1, axis=0) - corners).T
    steps = np.arange(height)[:, None] - y
    on_edge = (steps * np.sign(dy) >= 0) & (abs(steps) <= abs(dy))
    crossing = x + dx * steps / np.where(dy, dy, 1)
    # A crossing is a whole number or at least 1/height away from one.
    left = np.where(on_edge, np.ceil(crossing - 1e-6), width).min(axis=1)
    right = np.where(on_edge, np.floor(crossing + 1e-6), -1).max(axis=1)
    columns = np.arange(width)
    return (columns >= left[:, None]) & (columns <= right[:, None])


OPERATIONS: dict[str, Operation] = {
    "fill": fill,
    "largest": largest,
    "close": close,
    "smooth": smooth,
    "ellipse": ellipse,
    "hull": hull,
}
"""Every refinement by its name."""


def refine(mask: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The mask after the refinements ``names``, one after the other; no names, no change.

    Raises NerveError for a name that ``OPERATIONS`` does not have, before anything is done.
    """
    for name in names:
        if name not in OPERATIONS:
            raise NerveError(f"There is no mask refinement {name!r}; there are {', '.join(OPERATIONS)}.")
    for name in names:
        mask = OPERATIONS[name](mask)
    return mask


def _pixels(mask: np.ndarray) -> np.ndarray:
    """A boolean mask as OpenCV reads it: uint8 0/1, row by row in memory, without a copy where it can."""
    return np.ascontiguousarray(mask, bool).view(np.uint8)
''')

write("kaggle_nerve/decision/shape_prior.py", r'''"""What nerve masks look like and where they lie: a linear model of true masks.

Principal components of masks shrunk to a small grid (T. F. Cootes et al., Active shape models, 1995,
there of outline points). Few components allow only shapes that are mixtures of true masks. On
patients that the components have not seen, true masks keep a Dice with their own reconstruction of
about .92 with 20 components, .95 with 40 and .97 with 80: what a prediction cannot exceed by it.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.decomposition import PCA

from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.errors import NerveError
from kaggle_nerve.storage import atomic_path

GRID = (105, 145)
"""(height, width) of the grid: a quarter of a frame's size, 4 x 4 pixels a cell."""


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """``mean``: float32 (rows, columns), the share of true masks that cover each cell of the grid.

    ``components``: float32 (k, rows, columns), orthonormal, largest variance first, every value one
    that float16 holds. ``size``: (height, width) of the masks in pixels.
    """

    mean: np.ndarray
    components: np.ndarray
    size: tuple[int, int]

    def apply(self, mask: np.ndarray) -> np.ndarray:
        """The mixture of components nearest to ``mask``, bool ``size``, cut at one half.

        ``mask``: bool ``size``; it is returned as it is where the result would be empty, and where it
        is empty itself. Raises NerveError for a mask of another size.
        """
        if mask.shape != self.size:
            raise NerveError(f"This shape prior is for masks of {self.size}, got one of {mask.shape}.")
        if not mask.any():
            return mask
        basis = self.components.reshape(-1, self.mean.size)
        offset = _shrunk(mask, self.mean.shape) - self.mean
        soft = self.mean + ((basis @ offset.reshape(-1)) @ basis).reshape(self.mean.shape)
        found = cv2.resize(soft, self.size[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5
        return found if found.any() else mask

    def save(self, path: Path) -> None:
        """Write an .npz file, atomically: 30 kB a component at most, as float16."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, mean=self.mean, components=self.components.astype(np.float16), size=self.size
            )


def fit(
    texts: Sequence[str],
    components: int,
    *,
    grid: tuple[int, int] = GRID,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
) -> ShapePrior:
    """Learn the prior from the run-length texts of true masks of ``size``; empty ones are left out.

    ``components``: how many are wanted; n masks have no more than n - 1. The same masks and seed give
    the same prior, signs included. Holds n * rows * columns float32 in memory: 141 MB for all 2323
    true masks of the competition.

    Raises NerveError where no mask is left, and RunLengthError for a damaged text.
    """
    texts = [text for text in texts if text]
    if not texts:
        raise NerveError("A shape prior needs at least one true mask that is not empty; there is none.")
    shrunk = np.empty((len(texts), grid[0] * grid[1]), np.float32)
    for row, text in enumerate(texts):
        shrunk[row] = _shrunk(rle.decode(text, size), grid).reshape(-1)
    mean = shrunk.mean(axis=0)
    count = min(components, len(texts) - 1, mean.size)
    basis = np.empty((0, mean.size), np.float32)
    # Masks that are all alike have a mean and no variance to divide by.
    if count > 0 and (shrunk != shrunk[0]).any():
        basis = PCA(count, svd_solver="randomized", random_state=seed).fit(shrunk).components_
    # Rounded now, so that the prior that was saved and read back is this one to the last bit.
    rounded = basis.astype(np.float16).astype(np.float32).reshape(-1, *grid)
    return ShapePrior(mean.reshape(grid), rounded, size)


def load(path: Path) -> ShapePrior:
    """Read what ``ShapePrior.save`` wrote; NerveError where the file is missing or damaged."""
    if not path.is_file():
        raise NerveError(f"There is no shape prior at {path}.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            mean, components = stored["mean"], stored["components"].astype(np.float32)
            height, width = stored["size"].tolist()
        if mean.ndim != 2 or components.shape[1:] != mean.shape:
            raise ValueError(f"a mean of {mean.shape} with components of {components.shape}")
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as fault:
        raise NerveError(f"{path} is not a shape prior ({fault}).") from fault
    return ShapePrior(mean, components, (height, width))


def _shrunk(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The share of each cell of ``grid`` that a mask of 0/1 covers, float32 from 0 to 1."""
    return cv2.resize(np.asarray(mask, np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
''')

write("kaggle_nerve/decision/shaping.py", r'''"""The last step of a mask: shape operations, the shape prior, or the CRF, and what each would have scored."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision import crf, presence, shape, shape_prior
from kaggle_nerve.decision.evidence import Way, map_levels
from kaggle_nerve.decision.shape_prior import ShapePrior
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.blending import from_log_odds, log_odds
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Stored
from kaggle_nerve.progress import SILENT, Reporter

Images = Callable[[int], np.ndarray]
"""Gives the frame of a row of the predictions, uint8 (height, width)."""

PRIOR, CRF = "prior", "crf"
COMPONENTS = 40
"""Of the shape prior: with 20, true masks of unseen patients lose 0.08 Dice to their own reconstruction."""

SHAPES: dict[str, tuple[str, ...]] = {
    "none": (),
    "largest": ("fill", "largest"),
    "close": ("fill", "largest", "close"),
    "smooth": ("fill", "largest", "smooth"),
    "hull": ("largest", "hull"),
    "ellipse": ("largest", "ellipse"),
    PRIOR: ("fill", "largest", PRIOR),
    CRF: (CRF, "fill", "largest"),
}
"""What may be done to a mask, from the simplest on."""


@dataclass(frozen=True)
class Shaper:
    """Finishes masks. ``steps``: the names of `shape.OPERATIONS`, `PRIOR` or `CRF`, in their order. Without a
    ``prior``, for there was no mask to learn one from, the step `PRIOR` changes nothing.
    """

    steps: tuple[str, ...] = ()
    prior: ShapePrior | None = None
    images: Images | None = None

    def __call__(self, seen: np.ndarray, cut: int, row: int) -> np.ndarray:
        """The mask, bool (height, width), of levels ``seen`` that reach ``cut``."""
        mask = seen >= cut
        for step in self.steps:
            if step == CRF:
                mask = self._refined(seen, cut, row)
            elif step == PRIOR:
                mask = self.prior.apply(mask) if self.prior else mask
            else:
                mask = shape.refine(mask, (step,))
        return mask

    def _refined(self, seen: np.ndarray, cut: int, row: int) -> np.ndarray:
        if self.images is None:
            raise NerveError("The CRF looks at the frames themselves; name their --data.")
        # Seen from the cut: a pixel at it is as likely inside as outside.
        odds = log_odds(levels.probability(seen)) - log_odds(levels.probability(cut - 0.5))
        probability = from_log_odds(odds).astype(np.float32)
        mask = crf.refine(probability, self.images(row)) >= 0.5
        return mask if mask.any() else seen >= cut


Shapers = Callable[[int], list[Shaper]]
"""The ways to finish the mask of the frame of a row."""


def counts(
    stored: Stored,
    truths: Truths,
    cuts: np.ndarray,
    shapers: Shapers,
    *,
    way: Way | None = None,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (shapers, n) of the frames' masks, and how many of them are in the true masks.

    Each frame is masked from its cut (n,) on and finished by each shaper. A frame that is called empty stays so,
    whatever the shape. ``way``: how the runs are combined.
    """

    def count(row: int) -> list[tuple[int, int]]:
        seen = map_levels(stored, row, way and way(row))
        masks = [shaper(seen, int(cuts[row]), row) for shaper in shapers(row)]
        return [(int(mask.sum()), int(np.count_nonzero(truths.inside(row, mask)))) for mask in masks]

    kept = np.flatnonzero(cuts < levels.NOTHING)
    areas, shared = np.zeros((2, len(shapers(0)), len(cuts)), int)
    with ThreadPoolExecutor(workers) as pool, reporter.bar("Shaping masks", len(kept)) as bar:
        for row, pairs in zip(kept, pool.map(count, kept), strict=True):
            areas[:, row], shared[:, row] = zip(*pairs, strict=True)
            bar.update()
    return areas, shared


def score(stored: Stored, truths: Truths, cuts: np.ndarray, shapers: Shapers, **how: Any) -> np.ndarray:
    """Dice (shapers, n) of the frames' masks, see `counts`."""
    areas, shared = counts(stored, truths, cuts, shapers, **how)
    return dice_of_counts(shared, truths.areas, areas)


def cross_fitted_priors(texts: list[str], subjects: np.ndarray) -> list[ShapePrior | None]:
    """For each frame a shape prior that has seen no true mask of its subject, None where none of the other
    subjects has a mask. ``texts``: the true masks.
    """
    found: list[ShapePrior | None] = [None] * len(texts)
    for seen, unseen in presence.parts(subjects):
        masks = [texts[row] for row in seen if texts[row]]
        prior = learn_prior(masks) if masks else None
        for row in unseen:
            found[row] = prior
    return found


def learn_prior(texts: list[str]) -> ShapePrior:
    """The shape prior of true masks, given as run-length texts."""
    return shape_prior.fit(texts, COMPONENTS)
''')

write("kaggle_nerve/decision/text.py", r'''"""A decision in words and tables, for people."""

from kaggle_nerve.decision import blends, candidates
from kaggle_nerve.decision.decision import Decision, Untaught
from kaggle_nerve.decision.figures import Row
from kaggle_nerve.decision.rule import Thresholds

TITLES = {"blends": "Blends", "rules": "Rules", "shapes": "Shapes"}
BASELINES = {"blends": blends.BASELINE, "rules": candidates.BASELINE, "shapes": "none"}


def told(decision: Decision) -> str:
    """The rule and what it may be expected to score."""
    figures = decision.figures
    auc = "-" if figures.presence_auc is None else f"{figures.presence_auc:.3f}"
    return (
        f"{rule(decision)}\n"
        f"Out-of-fold mean Dice {figures.dice:.4f} (95 % interval over patients {figures.low:.4f} to "
        f"{figures.high:.4f}), all-empty {figures.all_empty:.4f}, perfect presence {figures.perfect_presence:.4f}\n"
        f"On {figures.frames} frames of {figures.subjects} subjects; frames with a mask {figures.present_dice:.4f}, "
        f"presence AUC {auc}; masks on {figures.predicted_share:.1%} of frames, truly {figures.true_share:.1%}"
    )


def comparison(decision: Decision) -> str:
    """What the decision was chosen from, as tables."""
    tables = [
        f"{_heading(TITLES[what])}\n" + "\n".join(_row(row, BASELINES[what]) for row in rows) + "\n"
        for what, rows in decision.comparison.items()
    ]
    ways = decision.reliability["presence"]
    said = ", ".join(f"{how} {found.error:.3f}" for how, found in ways.items())
    return "\n".join(
        [
            *tables,
            f"Calibration error of presence: {said}",
            f"{_taken(decision)} Differences are paired, from the row without one.\n",
        ]
    )


def by_hand(decision: Decision) -> str:
    """The choices that the user made, such as ``rule expected, shape none``."""
    return ", ".join(f"{what} {name}" for what, name in decision.taken.items())


def _taken(decision: Decision) -> str:
    if not decision.taken:
        return "* taken: the simplest within noise of the best."
    return (
        f"* taken: {by_hand(decision)} by hand (`kaggle-nerve tune --force` compares all again), else the simplest "
        "within noise of the best."
    )


def rule(decision: Decision | Untaught) -> str:
    """How frames get their masks."""
    learned = decision.learned.rule
    if isinstance(learned, Thresholds):
        confident = "" if learned.confident is None else f" of probability {learned.confident:g}"
        text = (
            f"pixels from probability {learned.threshold:g}, masks from {learned.area} pixels{confident}, "
            f"frames from presence {learned.presence:g}"
        )
    else:
        text = "the mask with the largest expected Dice, where it is worth more than an empty one"
    said = f"Rule {decision.rule}: {text}"
    if decision.learned.classifier is not None:
        said += "; presence by the classifier"
    if decision.blend.method != "mean" or decision.blend.weights:
        said += f"; runs combined by {_blend(decision)}"
    if decision.shape != "none":
        said += f"; shape {decision.shape}"
    return f"{said}; {', '.join(decision.taken)} chosen by hand" if decision.taken else said


def _blend(decision: Decision | Untaught) -> str:
    blend = decision.blend
    numbers = blend.weights or blend.thresholds
    return f"{blend.method} {', '.join(f'{number:g}' for number in numbers)}".rstrip()


def _heading(title: str) -> str:
    return f"{title:<22} {'mean Dice (95 %)':^24} {'difference (95 %)':^28} {'with mask':>9} {'FPR':>6} {'FNR':>6}"


def _row(row: Row, baseline: str) -> str:
    mark = "*" if row.chosen else " "
    difference = (
        ""
        if row.name == baseline
        else f"{row.difference:+.4f} ({row.difference_low:+.4f} to {row.difference_high:+.4f})"
    )
    rates = " ".join(f"{_share(rate):>6}" for rate in (row.false_positive_rate, row.false_negative_rate))
    return (
        f"{mark} {row.name[:20]:<20} {row.dice:.4f} ({row.low:.4f} to {row.high:.4f}) {difference:<28} "
        f"{row.present_dice:>9.4f} {rates}"
    )


def _share(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"
''')

write("kaggle_nerve/decision/tune.py", r'''"""Learning a decision on out-of-fold predictions, and what it may be expected to score on new patients.

Three choices, one after the other: how to combine the runs (where there are several), by which rule
to decide, and how to finish the mask. Each takes the simplest way within noise of the best. What is
reported leaves all three choices, and all learning, to the patients that are not scored by them; for what
of a patient is left in them nonetheless, see docs/decision.md.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision import blends, shaping
from kaggle_nerve.decision.blends import BlendWay
from kaggle_nerve.decision.candidates import BASELINE, CANDIDATES, Candidate, offered
from kaggle_nerve.decision.decision import Decision
from kaggle_nerve.decision.evidence import Evidence, measure
from kaggle_nerve.decision.figures import (
    Row,
    compared,
    figures,
    reliability_of_pixels,
    reliability_of_presence,
)
from kaggle_nerve.decision.nested import Choice, Nested, choose, judge
from kaggle_nerve.decision.presence import ALL_NAMES, HEAD_ALONE
from kaggle_nerve.decision.review import review
from kaggle_nerve.decision.shaping import CRF, PRIOR, SHAPES, Images, Shaper
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Stored
from kaggle_nerve.progress import SILENT, Reporter


@dataclass(frozen=True)
class _Task:
    """What all steps share. ``texts`` and ``truths``: the true masks of the rows of ``stored``; ``take``:
    choices that the user has made.
    """

    stored: Stored
    texts: list[str]
    truths: Truths
    images: Images | None
    take: dict[str, str]
    seed: int
    how: dict[str, Any]


@dataclass(frozen=True)
class _Chosen:
    """The outcome of one choice: what every way scores, nested, and the rows to tell of it."""

    choice: Choice
    options: list[Nested]
    rows: tuple[Row, ...]

    def verdicts(self, refined: Nested) -> Nested:
        """The verdicts with the choice left to the other subjects; ``refined`` are those of the way taken
        after the later choices, too.
        """
        options = [*self.options]
        options[self.choice.place] = refined
        picks, frames = self.choice.picks, np.arange(len(refined.cuts))
        names = [item.name for item in dataclasses.fields(Nested)]
        stacks = {name: np.stack([getattr(option, name) for option in options]) for name in names}
        return Nested(**{name: stack[picks, frames] for name, stack in stacks.items()})


def tune(
    stored: Stored,
    frames: pd.DataFrame,
    *,
    images: Images | None = None,
    take: dict[str, str] | None = None,
    seed: int = 0,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> Decision:
    """Choose and learn the decision with the best mean Dice over the out-of-fold frames of ``stored``.

    ``frames`` has subject, img and pixels (the true masks). Every frame counts, contradictory ones too.
    With ``images`` the CRF, which looks at the frames, is compared too. ``take`` names a ``blend``, a
    ``rule`` or a ``shape`` to take whatever the others score.

    Raises NerveError for frames without a row in ``frames``, and an unknown name in ``take``.
    """
    # The work is spread over frames and subjects; threads inside each piece would only get in its way.
    with threadpool_limits(1, "blas"):
        texts = true_masks(stored, frames)
        how = {"reporter": reporter, "workers": workers}
        task = _Task(stored, texts, Truths(texts), images, take or {}, seed, how)
        way, evidence, blended = _blend(task)
        ruled = _rule(task, evidence)
        shaped = _shape(task, way, evidence, ruled.options[ruled.choice.place])
        verdicts = ruled.verdicts(shaped.verdicts(shaped.options[shaped.choice.place]))
        if blended:
            verdicts = blended.verdicts(verdicts)
        chosen = {"rules": ruled, "shapes": shaped}
        if blended:
            chosen = {"blends": blended, **chosen}
        return _learned(task, way, evidence, verdicts, chosen)


def _learned(
    task: _Task, way: BlendWay, evidence: Evidence, verdicts: Nested, chosen: dict[str, _Chosen]
) -> Decision:
    """What was chosen, learned on all frames."""
    stored = dataclasses.replace(task.stored, blend=way.final)
    # Where the blend was learned, nested evidence differs from what the learned blend gives.
    final = measure(stored, task.truths, **task.how)[0] if way.is_learned else evidence
    candidate = offered(stored.is_conditional)[chosen["rules"].choice.place]
    learned = candidate.learn(final)
    shape = _shapes(task)[chosen["shapes"].choice.place]
    prior = shaping.learn_prior(task.texts) if PRIOR in SHAPES[shape] else None
    shaper = Shaper(SHAPES[shape], prior, task.images)
    reviewed = review(stored, task.truths, learned, shaper, evidence=final, **task.how)
    presence = reliability_of_presence(evidence, HEAD_ALONE if stored.is_conditional else ALL_NAMES)
    return Decision(
        candidate.name,
        learned,
        shape,
        way.final,
        figures(evidence, verdicts, float(reviewed.frames.dice.mean()), task.seed),
        {what: found.rows for what, found in chosen.items()},
        {"pixels": reliability_of_pixels(evidence), "presence": presence},
        stored.source,
        prior,
        task.take,
        reviewed,
    )


def _blend(task: _Task) -> tuple[BlendWay, Evidence, _Chosen | None]:
    """How to combine the runs, judged by the baseline rule."""
    if len(task.stored.parts) == 1:
        if "blend" in task.take:
            raise NerveError(
                f"There is only run {task.stored.names[0]}, so nothing to blend; name others, too."
            )
        return blends.ALONE, measure(task.stored, task.truths, **task.how)[0], None
    ways = blends.ways(task.stored, task.truths, **task.how)
    found = measure(task.stored, task.truths, [way.way for way in ways], **task.how)
    rule = next(one for one in CANDIDATES if one.name == BASELINE)
    told = [(way.name, way.meaning, way.rank) for way in ways]
    options = _judged(task, "Comparing blends", [(rule, evidence) for evidence in found])
    chosen = _choose(task, "blend", found[0], told, options, blends.BASELINE)
    return ways[chosen.choice.place], found[chosen.choice.place], chosen


def _rule(task: _Task, evidence: Evidence) -> _Chosen:
    candidates = offered(task.stored.is_conditional)
    options = _judged(task, "Comparing rules", [(one, evidence) for one in candidates])
    told = [(one.name, one.meaning, rank) for rank, one in enumerate(candidates)]
    return _choose(task, "rule", evidence, told, options, BASELINE)


def _judged(task: _Task, label: str, pairs: list[tuple[Candidate, Evidence]]) -> list[Nested]:
    subjects = len(np.unique(pairs[0][1].subjects))
    with task.how["reporter"].bar(label, subjects * len(pairs), "subject") as bar:
        return [judge(*pair, bar=bar, workers=task.how["workers"]) for pair in pairs]


def _shape(task: _Task, way: BlendWay, evidence: Evidence, verdicts: Nested) -> _Chosen:
    names = _shapes(task)
    priors = shaping.cross_fitted_priors(task.texts, evidence.subjects)

    def shapers(row: int) -> list[Shaper]:
        return [Shaper(SHAPES[name], priors[row], task.images) for name in names]

    # Masks that were there but dropped are shaped, too: what perfect presence would give is asked of them.
    kept, dropped = verdicts.kept, dice_of_counts(0, task.truths.areas, 0)
    outlines = np.where(kept | evidence.present, verdicts.outlines, levels.NOTHING)
    scores = shaping.score(task.stored, task.truths, outlines, shapers, way=way.way, **task.how)
    options = [
        dataclasses.replace(verdicts, dice=np.where(kept, values, dropped), open_dice=values)
        for values in scores
    ]
    told = [
        (name, ", then ".join(SHAPES[name]) or "the pixels as they are", rank)
        for rank, name in enumerate(names)
    ]
    return _choose(task, "shape", evidence, told, options, names[0])


def _choose(
    task: _Task,
    what: str,
    evidence: Evidence,
    told: list[tuple[str, str, int]],
    options: list[Nested],
    baseline: str,
) -> _Chosen:
    """Choose among ``options``; ``told``: the name, meaning and rank of each."""
    names = [name for name, _, _ in told]
    if what in task.take:
        choice = _taken(what, task.take[what], names, len(evidence))
    else:
        ranks = [rank for _, _, rank in told]
        choice = choose([option.dice for option in options], evidence.subjects, ranks, task.seed)
    against = options[names.index(baseline)].dice
    rows = [
        compared(name, meaning, option, against, evidence, task.seed, chosen=place == choice.place)
        for place, ((name, meaning, _), option) in enumerate(zip(told, options, strict=True))
    ]
    return _Chosen(choice, options, tuple(rows))


def _taken(what: str, name: str, names: list[str], frames: int) -> Choice:
    """The choice that the user has made."""
    if name not in names:
        raise NerveError(f"There is no {what} {name!r} here; there are {', '.join(names)}.")
    return Choice(names.index(name), np.full(frames, names.index(name)))


def _shapes(task: _Task) -> list[str]:
    return [name for name in SHAPES if name != CRF or task.images is not None]


def true_masks(stored: Stored, frames: pd.DataFrame) -> list[str]:
    """The true masks (run-length encoding) of the rows of ``stored``; NerveError where ``frames`` lacks one."""
    keys = ["subject", "img"]
    pixels = stored.table[keys].merge(frames[[*keys, "pixels"]], on=keys, how="left").pixels
    if pixels.isna().any():
        raise NerveError("The data has no mask rows for some out-of-fold frames; name the run's own --data.")
    return list(pixels)
''')

write("kaggle_nerve/pipeline.py", r'''"""From finished folds to a valid CSV: the stages that `submit` runs where they are missing."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from kaggle_nerve.competition import submission
from kaggle_nerve.data import folds
from kaggle_nerve.data.cache import training_source
from kaggle_nerve.data.frames import Layout, locate, read_train_csv
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.decision import decision as decisions
from kaggle_nerve.decision import shaping, text
from kaggle_nerve.decision import tune as tuning
from kaggle_nerve.decision.decision import Decision, UnreadableDecisionError
from kaggle_nerve.decision.figures import far_share
from kaggle_nerve.decision.masks import encoded_masks
from kaggle_nerve.decision.review import Review, review, some
from kaggle_nerve.decision.shaping import SHAPES, Images, Shaper
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Stored, blend, open_oof, open_test
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run, decision_file, in_order, joined_name


@dataclass(frozen=True)
class Prepared:
    """A finished CSV, the decision behind it, and what `submission.check` found (no faults)."""

    csv: Path
    decision: Decision
    report: submission.Report


def learn_decision(
    runs: list[Run],
    data_dir: Path,
    *,
    take: dict[str, str] | None = None,
    force: bool = False,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> Decision:
    """The decision for a run, or for the blend of several: read back where its inputs are unchanged.

    ``take`` names choices that are the user's (see `tune.tune`), and makes the decision anew. They are added to
    earlier ones and hold for later predictions of the runs, too, until ``force`` compares everything again.
    NerveError where ``data_dir`` has other frames than the runs were trained on.
    """
    runs = in_order(runs)
    for run in runs:
        _tell_missing_folds(run, reporter)
    stored = blend([open_oof(run) for run in runs])
    path = decision_file(runs)
    earlier = None if force else _earlier(path, reporter)
    if earlier and earlier.source == stored.source and not take:
        with suppress(NerveError):  # no data there: nothing to compare with
            if fault := _other_data(runs, locate(data_dir)):
                reporter.say(f"{fault} The decision is the one that was learned there.")
        return earlier
    if earlier and earlier.taken:
        reporter.say(
            f"The decision is learned anew, with {text.by_hand(earlier)} as chosen by hand before "
            "(`kaggle-nerve tune --force` compares all again)."
        )
        take = earlier.taken | (take or {})
    layout = locate(data_dir)
    needs_own_data(runs, layout)
    crf = bool(take) and take.get("shape") == shaping.CRF
    decision = tuning.tune(
        stored,
        read_train_csv(layout.train_csv),
        images=training_images(layout, stored) if crf else None,
        take=take,
        seed=runs[0].settings.seed,
        reporter=reporter,
        workers=workers,
    )
    decision.save(path)
    figures = decision.figures
    if warning := far_share(figures.predicted_share, figures.true_share):
        reporter.say(f"Warning: out of fold, {warning}")
    return decision


def review_of(
    decision: Decision, run: Run, layout: Layout, *, reporter: Reporter = SILENT, workers: int = 2
) -> Review:
    """What the decision of ``run`` makes of its out-of-fold frames: kept since it was learned, or measured now."""
    if decision.review is not None:
        return decision.review
    stored = open_oof(run)
    images = training_images(layout, stored) if shaping.CRF in SHAPES[decision.shape] else None
    return review(
        stored,
        Truths(tuning.true_masks(stored, read_train_csv(layout.train_csv))),
        decision.learned,
        Shaper(SHAPES[decision.shape], decision.prior, images),
        reporter=reporter,
        workers=workers,
    )


def out_of_fold_masks(decision: Decision, run: Run, layout: Layout, rows: np.ndarray) -> list[str]:
    """The masks (run-length encoding) that the decision gives some out-of-fold frames: rows of `review_of`."""
    stored = some(open_oof(run), rows)
    images = training_images(layout, stored) if shaping.CRF in SHAPES[decision.shape] else None
    return [text for _, text in encoded_masks(stored, decision, images=images)]


def needs_own_data(runs: list[Run], layout: Layout) -> None:
    """NerveError where the training frames in ``layout`` are not those that ``runs`` were trained on.

    Where no frames are there, only their masks, nothing is asked.
    """
    if fault := _other_data(runs, layout):
        raise NerveError(f"{fault[:-1]}; name its own with --data.")


def _other_data(runs: list[Run], layout: Layout) -> str | None:
    """A sentence where the training frames in ``layout`` are not those that ``runs`` were trained on."""
    if any(layout.train.glob("*_*.tif")):
        source = training_source(layout)
        for run in runs:
            if run.needs_finished_folds()[0].needs_facts().source != source:
                return f"Run {run.name} was trained on other data than that in {layout.root}."
    return None


def _earlier(path: Path, reporter: Reporter) -> Decision | None:
    """The decision that lies there; None where there is none of this version."""
    if not path.is_file():
        return None
    try:
        return decisions.load(path)
    except UnreadableDecisionError as fault:
        reporter.say(f"{fault} It is learned anew.")
        return None


def prepare(
    runs: list[Run], data_dir: Path, out: Path, *, reporter: Reporter = SILENT, workers: int = 2
) -> Prepared:
    """Predict and tune where that is missing, write ``out``, and check it against the sample."""
    # Keras is imported only where a prediction may be missing.
    from kaggle_nerve.prediction.ensemble import predict_test
    from kaggle_nerve.prediction.held_out import predict_oof

    runs = in_order(runs)
    for run in runs:
        predict_oof(run, data_dir, reporter=reporter, workers=workers)
        predict_test(run, data_dir, reporter=reporter, workers=workers)
    decision = learn_decision(runs, data_dir, reporter=reporter, workers=workers)
    stored, layout = blend([open_test(run) for run in runs]), locate(data_dir)
    images = test_images(layout, stored) if shaping.CRF in SHAPES[decision.shape] else None
    masks = encoded_masks(stored, decision, images=images, reporter=reporter, workers=workers)
    submission.write(out, masks)
    report = submission.check(out, layout.sample_csv)
    report.raise_if_faulty()
    if warning := far_share(report.share, decision.figures.true_share):
        reporter.say(f"Warning: in the submission, {warning}")
    return Prepared(out, decision, report)


def _tell_missing_folds(run: Run, reporter: Reporter) -> None:
    planned, finished = folds.count(folds.load(run.folds_csv)), run.needs_finished_folds()
    if len(finished) < planned:
        reporter.say(
            f"Run {run.name} has {len(finished)} of its {planned} folds: the decision is learned on the "
            "subjects of these alone; `kaggle-nerve train-folds` trains the others."
        )


def training_images(layout: Layout, stored: Stored) -> Images:
    """The frames of out-of-fold predictions, for the CRF."""
    rows = stored.table[["subject", "img"]].to_numpy()
    return lambda row: read_grey(layout.train / "{}_{}.tif".format(*rows[row]))


def test_images(layout: Layout, stored: Stored) -> Images:
    """The frames of test predictions, for the CRF."""
    imgs = stored.table.img.to_numpy()
    return lambda row: read_grey(layout.test / f"{imgs[row]}.tif")


def new_csv(submissions_dir: Path, runs: list[Run]) -> Path:
    """``<timestamp>__<run>.csv`` in the submissions folder, the time in UTC."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return submissions_dir / f"{stamp}__{joined_name(runs)}.csv"
''')

write("kaggle_nerve/session/__init__.py", r'''"""What runs in a Kaggle notebook in the command line's place: the generated notebooks' last cells call it."""
''')

write("kaggle_nerve/session/console.py", r'''"""What a notebook's cells print: one line now and then, for its log is kept."""

from kaggle_nerve.progress import Bar, LoggedBar, Reporter


class ConsoleReporter(Reporter):
    """Lines on standard output, which a notebook shows under the cell."""

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """A new bar."""
        return LoggedBar(label, total, unit, self.say)

    def say(self, text: str) -> None:
        """One line, at once."""
        print(text, flush=True)
''')

write("kaggle_nerve/session/places.py", r'''"""Where things lie in a Kaggle notebook: attached inputs, which cannot be written to, and the working folder."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kaggle_nerve.competition import facts
from kaggle_nerve.data.cache import FOLDER_VARIABLE
from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs.adopting import adopt
from kaggle_nerve.runs.run import ENVIRONMENT, SETTINGS

KAGGLE = Path("/kaggle")


@dataclass(frozen=True)
class Places:
    """``input`` holds whatever is attached; what is written into ``working`` is the notebook's output."""

    input: Path
    working: Path

    @property
    def runs(self) -> Path:
        """The folder of runs, as `kaggle-nerve` has it on a laptop."""
        return self.working / "runs"

    @property
    def submission(self) -> Path:
        """The file that a notebook submits."""
        return self.working / "submission.csv"


def here() -> Places:
    """The places of this notebook: Kaggle's, elsewhere those beside the current folder. Caches go to neither."""
    # Inputs are read-only, and what is in the working folder counts against what Kaggle keeps.
    os.environ.setdefault(FOLDER_VARIABLE, str(Path(tempfile.gettempdir()) / "kaggle-nerve"))
    working = KAGGLE / "working"
    if not working.is_dir():
        working = Path.cwd()
    return Places(working.parent / "input", working)


def find_data(places: Places) -> Path:
    """The competition's folder: where Kaggle puts it, or wherever its training table lies.

    NerveError where it is not attached.
    """
    known = [places.input / "competitions" / facts.SLUG, places.input / facts.SLUG]
    found = [folder for folder in known if (folder / facts.TRAIN_CSV).is_file()]
    found += sorted(path.parent for path in places.input.rglob(facts.TRAIN_CSV)) if not found else []
    if not found:
        raise NerveError(
            f"The competition's data is not attached: there is no {facts.TRAIN_CSV} under {places.input}; press "
            f"'Add Input' and choose the competition {facts.SLUG} (accept its rules first)."
        )
    return found[0]


def attached_runs(places: Places, data: Path) -> list[Path]:
    """Folders of runs among the inputs but ``data``, sorted: a dataset's, or another notebook's output."""
    found = {path.parent for path in places.input.rglob(SETTINGS) if not path.is_relative_to(data)}
    return sorted(folder for folder in found if (folder / ENVIRONMENT).is_file())


def take_over(places: Places, data: Path) -> list[str]:
    """Copy what attached runs have, finished folds and begun ones, into the working folder's runs.

    Returns a line for each run.
    """
    return [line for folder in attached_runs(places, data) for line in adopt(folder, places.runs)]
''')

write("kaggle_nerve/session/submitting.py", r'''"""A notebook's last stage: predict, decide, write submission.csv."""

from collections.abc import Sequence
from pathlib import Path

from kaggle_nerve import pipeline
from kaggle_nerve.decision import text
from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs import Run, open_run
from kaggle_nerve.runs.run import SETTINGS
from kaggle_nerve.session.console import ConsoleReporter
from kaggle_nerve.session.places import Places, attached_runs, find_data, here, take_over


def submit(runs: Sequence[str] = ()) -> None:
    """Write submission.csv from attached runs: those named, such as ``small`` or ``small@flips``, or all.

    Predictions and the decision are made where the run has none; several runs are blended. Raises NerveError
    where none is attached.
    """
    places, reporter = here(), ConsoleReporter()
    data = find_data(places)
    found = {folder.name for folder in attached_runs(places, data)}
    take_over(places, data)
    names = list(runs) or sorted(found)
    if not names:
        raise NerveError(
            f"No run is attached: there is no {SETTINGS} under {places.input}; add the output of "
            "nerve-train-folds, or the dataset that `kaggle-nerve kernels dataset` made, with 'Add Input'."
        )
    write_submission([open_run(places.runs, name) for name in names], data, places, reporter)


def write_submission(runs: list[Run], data: Path, places: Places, reporter: ConsoleReporter) -> None:
    """Write the notebook's submission.csv from ``runs`` and tell what it may be expected to score."""
    prepared = pipeline.prepare(runs, data, places.submission, reporter=reporter)
    reporter.say("")
    reporter.say(text.comparison(prepared.decision))
    reporter.say(text.told(prepared.decision))
    report = prepared.report
    reporter.say(f"{places.submission}: {report.rows} rows, {report.non_empty} with a mask, valid")
''')

import hashlib

found = {path: hashlib.sha256(open(path, "rb").read()).hexdigest()[:16] for path in FILES}
changed = [path for path in FILES if found[path] != FILES[path]]
print("Changed by hand:" if changed else f"All {len(FILES)} files are as generated.", *changed)
sys.path.insert(0, os.getcwd())

# Predict, decide, write `submission.csv`
from kaggle_nerve.session.submitting import submit

submit(RUNS)
