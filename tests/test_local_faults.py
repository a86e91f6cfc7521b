"""Faults of this machine and of what stands before Kaggle are none of Kaggle's answers: real client, every verb."""

import errno
import os
import time
from pathlib import Path

import pytest
from cli_support import command
from rehearsal_support import TEST_IMGS, write_submission
from stranger_support import Act, answer, encrypted, listening, make_certificate, tunnel

from kaggle_nerve.kaggle_api import versions
from kaggle_nerve.rehearsal.server import RehearsalServer

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
STATUS = ("kernels", "status", "me/my-kernel")
ASKING = "asking for the status of me/my-kernel"
CHECK = "check http_proxy, https_proxy and all_proxy"
STRANGER = (
    f"Something else answered in Kaggle's place while {ASKING}, such as the login page of a network or a filter: "
    f"open https://www.kaggle.com in a browser, {CHECK}, and run the same command again."
)
PAGE = "<html>Please log in</html>"
BROKEN_FOLDER = """
import os
make = os.makedirs

def refuse(path, *args, **options):
    if os.fspath(path).endswith(".config/kaggle"):
        raise OSError({number}, os.strerror({number}), path)
    make(path, *args, **options)

os.makedirs = refuse
"""
"""As sitecustomize.py of the client: a folder that cannot be made, also for root."""


@pytest.fixture
def rehearsed(server: RehearsalServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> RehearsalServer:
    """A shell with the exports of `rehearse --serve`, without the client's own folder."""
    for name, value in server.environment(home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("KAGGLE_CONFIG_DIR")
    return server


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The real Kaggle, behind a proxy that nobody runs: nothing leaves this machine."""
    monkeypatch.delenv("KAGGLE_API_ENVIRONMENT")
    set_proxy(monkeypatch, "http://127.0.0.1:9")
    return monkeypatch


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def set_proxy(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, address)


def verbs(folder: Path, served: Path) -> list[tuple[str, ...]]:
    """One of each kind."""
    csv = write_submission(folder / "mine.csv")
    submit = ("submit", "--file", str(csv), "--data", str(served), "--submissions", "subs")
    return [("fetch", "--data", "data"), submit, STATUS]


def sentence(folder: Path, *words: str) -> str:
    """The last line of a command that fails."""
    return command(folder, *words, code=1).stderr.splitlines()[-1].removeprefix("Error: ")


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A data directory with the sample alone."""
    folder = tmp_path / "served"
    folder.mkdir()
    rows = "".join(f"{img},1 1\n" for img in TEST_IMGS)
    (folder / "sample_submission.csv").write_text(f"img,pixels\n{rows}")
    return folder


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_home_that_cannot_be_written(
    rehearsed: RehearsalServer, home: Path, sample: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, number: int,
) -> None:  # fmt: skip
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(BROKEN_FOLDER.format(number=number))
    monkeypatch.setenv("PYTHONPATH", str(shim))
    fault = OSError(number, os.strerror(number), str(home / ".config" / "kaggle"))
    for words in verbs(tmp_path, sample) if number == errno.EACCES else [STATUS]:
        assert sentence(tmp_path, *words) == (
            f"The kaggle client cannot make its own folder ({type(fault).__name__}: {fault}): set KAGGLE_CONFIG_DIR to "
            "one that can be written, and run the same command again."
        )
    assert not any(record.call != "IntrospectToken" for record in rehearsed.log)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "configuration"))
    assert "Kaggle has no kernel me/my-kernel" in sentence(tmp_path, *STATUS)


def test_a_home_that_does_not_exist(
    rehearsed: RehearsalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    assert sentence(tmp_path, *STATUS).startswith(
        "The kaggle client cannot make its own folder (NotADirectoryError"
    )


def test_another_path_is_not_the_clients_own_folder(
    rehearsed: RehearsalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = BROKEN_FOLDER.format(number=errno.EACCES).replace(".config/kaggle", "/elsewhere")
    (tmp_path / "kaggle.py").write_text(f"{shim}\nos.makedirs('/nowhere/elsewhere')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert sentence(tmp_path, *STATUS) == (
        f"The kaggle client cannot use a file or folder while {ASKING} (PermissionError: [Errno 13] Permission denied: "
        "'/nowhere/elsewhere'): check that path and its permissions, and run the same command again."
    )


def test_a_client_that_dies(
    rehearsed: RehearsalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last words are not Kaggle's, not even "Permission denied"."""
    death = "import os, sys\nprint('Permission was denied', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 9)\n"
    (tmp_path / "kaggle.py").write_text(death)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert sentence(tmp_path, "fetch", "--data", "data") == (
        "The kaggle client broke while listing the data (ended by SIGKILL: Permission was denied): "
        f"{versions.next_step()}."
    )


def test_a_token_that_kaggle_does_not_know(
    rehearsed: RehearsalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client calls `exit`, which closes standard input: it must not wait for the thread that reads there."""
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_of_another_account")
    start = time.monotonic()
    assert sentence(tmp_path, *STATUS) == (
        f"Kaggle does not accept the access token from KAGGLE_API_TOKEN (401, while {ASKING}): make a new token at "
        "https://www.kaggle.com/settings under API, put it in the old one's place and run the same command again."
    )
    assert time.monotonic() - start < 20


def test_a_token_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the file's place: root can read everything else."""
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_ENVIRONMENT"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kaggle" / "access_token").mkdir(parents=True)
    told = sentence(tmp_path, *STATUS)
    assert told.startswith("No Kaggle credentials were found: ")
    assert told.endswith(
        f"{tmp_path}/.kaggle/access_token cannot be read (Is a directory), so it is ignored: change its permissions."
    )


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (
            "http://127.0.0.1:9",
            f"The proxy lets nothing through to Kaggle while {ASKING} ([Errno 111] Connection refused): {CHECK}, with "
            "a name and password (http://NAME:PASSWORD@HOST:PORT) if the proxy wants them, and run the same command "
            "again.",
        ),
        (
            "http://127.0.0.1:port",
            "The address of the proxy is not valid (Failed to parse: '127.0.0.1:port' is not a valid host or port): "
            "write http_proxy, https_proxy and all_proxy as http://HOST:PORT, and run the same command again.",
        ),
        (
            "socks5://127.0.0.1:9",
            "A SOCKS proxy needs the package PySocks: run `pip install pysocks`, or change http_proxy, https_proxy "
            "and all_proxy, and run the same command again.",
        ),
    ],
)
def test_a_proxy(outside: pytest.MonkeyPatch, sample: Path, tmp_path: Path, address: str, told: str) -> None:
    set_proxy(outside, address)
    for words in verbs(tmp_path, sample) if address.startswith("socks5") else [STATUS]:
        assert sentence(tmp_path, *words) == told


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (
            answer("407 Proxy Authentication Required"),
            f"The proxy lets nothing through to Kaggle while {ASKING} (Tunnel connection failed: 407 Proxy "
            "Authentication Required): ",
        ),
        (
            tunnel(lambda connection: connection.recv(65536) and None),
            f"No encrypted connection to Kaggle comes about while {ASKING} ([SSL: UNEXPECTED_EOF_WHILE_READING] ",
        ),
        (
            tunnel(
                lambda connection: connection.recv(65536) and connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")
            ),
            f"No encrypted connection to Kaggle comes about while {ASKING} ([SSL: WRONG_VERSION_NUMBER] ",
        ),
    ],
    ids=["407", "broken off", "not encrypted"],
)
def test_a_proxy_that_answers(outside: pytest.MonkeyPatch, tmp_path: Path, act: Act, told: str) -> None:
    with listening(act) as address:
        set_proxy(outside, address)
        assert sentence(tmp_path, *STATUS).startswith(told)


def test_a_certificate_that_is_not_trusted(outside: pytest.MonkeyPatch, tmp_path: Path, pem: Path) -> None:
    with listening(tunnel(encrypted(answer("200 OK", PAGE), pem))) as address:
        set_proxy(outside, address)
        told = sentence(tmp_path, *STATUS)
        assert told.startswith(
            f"The certificate that came in Kaggle's place is not trusted while {ASKING} ([SSL: "
        )
        assert "self-signed certificate" in told
        assert "set REQUESTS_CA_BUNDLE to its certificates" in told
        outside.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
        assert sentence(tmp_path, *STATUS).startswith(
            "The file of trusted certificates does not exist (Could not find"
        )


@pytest.mark.parametrize(
    "status", ["200 OK", "401 Unauthorized", "403 Forbidden", "404 Not Found", "511 Log in"]
)
@pytest.mark.parametrize("credential", ["token", "pair"])
def test_a_web_page_in_kaggles_place(
    outside: pytest.MonkeyPatch, tmp_path: Path, pem: Path, status: str, credential: str
) -> None:
    """A filter answers 403, too, and that says nothing about the competition's rules or the token."""
    if credential == "pair":
        outside.delenv("KAGGLE_API_TOKEN")
        outside.setenv("KAGGLE_USERNAME", "me")
        outside.setenv("KAGGLE_KEY", "0123456789abcdef")
    outside.setenv("REQUESTS_CA_BUNDLE", str(pem))
    with listening(tunnel(encrypted(answer(status, PAGE), pem))) as address:
        set_proxy(outside, address)
        assert sentence(tmp_path, *STATUS) == STRANGER


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            ("kernel-refused", {"message": "Notebook not found"}),
            "Kaggle does not find rehearsal/nerve-explore while pushing it (Notebook not found), as if it were "
            "deleted, renamed or another account's: make a notebook of this name at https://www.kaggle.com/code with "
            "New Notebook, and run the same command again.",
        ),
        (
            ("status", {"call": "SaveKernel", "status": 403, "json": False}),
            "Kaggle refuses this account (403, while pushing the kernel rehearsal/nerve-explore): open "
            "https://www.kaggle.com/settings, verify a phone number, which kernels with a GPU need, and run the same "
            "command again.",
        ),
    ],
    ids=["not found", "403"],
)
def test_a_push_is_not_answered_by_the_advice_to_push(
    rehearsed: RehearsalServer, tmp_path: Path, fault: tuple[str, dict], told: str
) -> None:
    name, values = fault
    rehearsed.faults.add(name, **values)
    assert sentence(tmp_path, "kernels", "push", "nerve-explore") == told


@pytest.mark.parametrize(
    "words",
    [["presets", "smal"], ["train-folds", "--set", "trainig.epochs=3"], ["rehearse", "--fault", "cutt"]],
)
def test_a_suggestion_ends_in_one_mark(tmp_path: Path, words: list[str]) -> None:
    told = sentence(tmp_path, *words)
    assert "(did you mean '" in told
    assert "'?)" in told
    assert "?;" not in told
    assert told.endswith(".")
