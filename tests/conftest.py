"""No test reads anybody's credentials, and none writes outside its own folder."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

# The same examples each time, however slow the machine: a change fails by what it does, not by chance.
hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")

os.environ.update(
    {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "KAGGLE_API_TOKEN": "no-real-token",
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
)
for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_NERVE_DATA", "no_proxy", "NO_PROXY"):
    os.environ.pop(name, None)

# A suite that was started in the background ignores Ctrl-C, and so would what it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HEAVIEST = [
    f"test_{name}.py"
    for name in ("training", "encoders", "architectures", "averaging", "rehearse", "parallel", "all_subjects")
]
"""Files to begin with: a long one at the end has one core wait for the other."""

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The measuring data beside the checkout; the test skips by name where it is absent."""
    if not (SHARED / "surrogate.zip").is_file():
        pytest.skip(f"no measuring data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """The tiny competition of `rehearsal_support`, packed for a rehearsal."""
    from rehearsal_support import make_competition

    from kaggle_nerve.rehearsal.competitions.served import pack

    folder = tmp_path_factory.mktemp("served")
    return pack(*make_competition(folder / "data"), folder / "packed")


@pytest.fixture
def server(served, tmp_path):
    """A rehearsal's server for this test alone."""
    from kaggle_nerve.rehearsal.server import RehearsalServer

    with RehearsalServer(served, tmp_path / "state") as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The client's home; not there yet."""
    return tmp_path / "home"


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(HEAVIEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_addoption(parser):
    parser.addoption(
        "--regenerate", action="store_true", help="write generated files instead of comparing them"
    )
    parser.addoption("--kernel-python", help="run notebooks with this Python's packages, not this one's")
    parser.addoption("--kernel-data", help="run notebooks on this data instead of a phantom")
