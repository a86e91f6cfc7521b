"""Runs as datasets through the real client: made, given versions, and what is lost on the way."""

import http.client
import os
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from kaggle_support import LIMITS, Notes, assert_only_loopback, calls, client_of, everything_under, guarded

from kaggle_nerve.cli.kernels import kernels as commands
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import client as clients
from kaggle_nerve.kaggle_api import datasets
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.datasets import DatasetVersion, dataset_state, ship
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.slugs import slug_of
from kaggle_nerve.rehearsal.server import RehearsalServer
from kaggle_nerve.settings import load_preset, save_settings

REF = "rehearsal/nerve-run-small"
URL = f"https://www.kaggle.com/datasets/{REF}"


@pytest.fixture
def client(server: RehearsalServer, tmp_path: Path) -> Client:
    return client_of(server, tmp_path / "home")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with nested files, a lock, and 2 MB of noise in an archive's place."""
    folder = tmp_path / "runs" / "small"
    (folder / "fold-0" / "warm").mkdir(parents=True)
    save_settings(load_preset("tiny"), folder / "settings.toml")
    (folder / "fold-0" / "model.keras").write_bytes(os.urandom(2_000_000))
    (folder / "fold-0" / "warm" / "history.csv").write_text("epoch\n1\n")
    (folder / "fold-0" / ".lock").touch()
    return folder


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loopback server needs no patience."""
    monkeypatch.setattr(datasets, "POLLS", (0.1,))


def attached(server: RehearsalServer) -> dict[str, bytes]:
    """What a notebook would see of the newest version: names and bytes."""
    folder = server.datasets[-1].folder
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_made_private_then_a_new_version(
    server: RehearsalServer, client: Client, run: Path, tmp_path: Path
) -> None:
    before, notes = everything_under(tmp_path / "runs"), Notes()
    assert dataset_state(REF, client) is None
    assert ship(run, client, reporter=notes) == DatasetVersion(REF, 1, URL)
    (made,) = server.datasets
    assert (made.title, made.is_private, made.license) == ("Nerve run small", True, "other")
    names = ["fold-0/model.keras", "fold-0/warm/history.csv", "settings.toml"]
    files = attached(server)
    assert sorted(files) == [f"runs/small/{name}" for name in names]
    assert all(files[f"runs/small/{name}"] == (run / name).read_bytes() for name in names)
    label, total, bar = notes.bars[0]
    assert (label, bar.count) == ("Uploading", total)
    assert everything_under(tmp_path / "runs") == before

    (run / "fold-0" / "model.keras").write_bytes(b"better")
    assert ship(run, client, message="better").version == 2
    (made,) = server.datasets
    assert [version.notes for version in made.versions] == ["Initial release", "better"]
    assert attached(server)["runs/small/fold-0/model.keras"] == b"better"
    assert dataset_state(REF, client) == datasets.State("ready", 2)
    again = RehearsalServer(server.served, server.state_dir)
    assert again.datasets == server.datasets
    assert_only_loopback(tmp_path / "home")


@pytest.mark.parametrize("title", ["abc", "a!!!!!!", "x" * 51])
def test_a_title_that_kaggle_refuses_is_not_sent(
    server: RehearsalServer, client: Client, run: Path, title: str
) -> None:
    with pytest.raises(NerveError, match=r"is not valid: Kaggle wants 6 to 50 characters.*--title"):
        ship(run, client, title=title)
    assert calls(server, "StartBlobUpload") == []


@pytest.mark.parametrize("name", ["small+tiny", "small_tiny", "Small.tiny", "small--tiny", "small-tiny-"])
def test_a_name_that_would_share_a_dataset_needs_a_title(
    server: RehearsalServer, client: Client, run: Path, name: str
) -> None:
    """All of them would be nerve-run-small-tiny."""
    other = run.rename(run.with_name(name))
    with pytest.raises(
        NerveError, match=r"to 'small-tiny', which another run may share: choose a title with --title"
    ):
        ship(other, client)
    assert server.log == []


# After a cut the client waits for 10 s and more.
@pytest.mark.parametrize("fault", [pytest.param("upload-cut", marks=pytest.mark.long), "status"])
def test_an_upload_that_breaks_off_is_gone_on_with(
    server: RehearsalServer, client: Client, run: Path, fault: str
) -> None:
    server.faults.add(fault, **({"call": "blob"} if fault == "status" else {}))
    assert ship(run, client).version == 1
    assert attached(server)["runs/small/fold-0/model.keras"] == (run / "fold-0/model.keras").read_bytes()


def test_an_upload_that_fails_is_told_though_the_client_ends_with_0(
    server: RehearsalServer, client: Client, run: Path
) -> None:
    server.faults.add("upload-fails")
    with pytest.raises(KaggleError, match="storage did not take the files") as told:
        ship(run, client)
    assert (told.value.kind, server.datasets) == ("upload-failed", [])
    assert [path.name for path in run.parent.iterdir()] == ["small"]


def test_an_answer_that_is_lost(server: RehearsalServer, client: Client, run: Path) -> None:
    """The client asks for the same once more, and is told that the title is taken: by itself."""
    server.faults.add("upload-uncertain", call="CreateDataset")
    assert ship(run, client) == DatasetVersion(REF, 1, URL)
    assert len(calls(server, "CreateDataset")) == 2


def test_processing_that_fails_or_takes_too_long(server: RehearsalServer, client: Client, run: Path) -> None:
    server.faults.add("processing-fails")
    with pytest.raises(KaggleError, match="could not process them"):
        ship(run, client)
    with pytest.raises(KaggleError, match="has not made version 2 of them within 0 s"):
        ship(run, client, timeout=0)


def test_unauthorized_and_gone(server: RehearsalServer, client: Client, run: Path) -> None:
    server.faults.add("unauthorized")
    with pytest.raises(KaggleError, match="does not accept the access token"):
        ship(run, client)
    server.close()
    with pytest.raises(KaggleError, match="server does not answer"):
        ship(run, client)


def test_an_empty_folder_is_not_sent(client: Client, tmp_path: Path) -> None:
    (tmp_path / "runs" / "nothing").mkdir(parents=True)
    with pytest.raises(NerveError, match="holds no files"):
        ship(tmp_path / "runs" / "nothing", client)


def test_command(server: RehearsalServer, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = guarded(server, tmp_path / "home")
    monkeypatch.setattr(clients, "Client", lambda: Client(variables, limits=LIMITS))
    words = ["dataset", "--run", "small", "--title", "My own title", "--runs", str(run.parent)]
    done = CliRunner().invoke(commands, words)
    assert "Run small is version 1 of the dataset rehearsal/my-own-title: https://" in done.stdout


@pytest.mark.parametrize(
    ("headers", "length", "status"),
    [
        ({}, 99, 400),
        ({"Content-Range": "bytes */7"}, 0, 400),
        ({"Content-Range": "bytes */100"}, 0, 308),
        ({"Content-Range": "bytes 50-99/100"}, 50, 400),
        ({"Content-Range": "nonsense"}, 100, 400),
        ({}, 100, 200),
    ],
)
def test_bytes_that_do_not_fit_what_was_announced(
    server: RehearsalServer, headers: dict[str, str], length: int, status: int
) -> None:
    token = server._datasets.announce("runs.zip", 100)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.request("PUT", f"/uploads/blobs/{token}", b"x" * length, headers)
    assert connection.getresponse().status == status
    connection.close()


def test_slugs() -> None:
    assert slug_of(" Nerve: Run_small+2, Ä ") == "nerve-run-small-2-a"


def test_kaggle_that_wants_fewer_requests(server: RehearsalServer, run: Path, tmp_path: Path) -> None:
    """The client tries again for minutes: nothing goes out then, and the network is not to blame."""
    server.faults.add("status", call="StartBlobUpload", status=429, message="Too Many Requests", times=None)
    client = client_of(server, tmp_path / "home", replace(LIMITS, stall=1))
    with pytest.raises(KaggleError) as told:
        ship(run, client)
    assert str(told.value) == (
        f"Kaggle wants fewer requests (429, while sending files to dataset {REF}): wait some minutes and run the same "
        "command again."
    )
