"""Kernels through the real client: pushed, watched, and their output fetched."""

import json
from pathlib import Path

import pytest
from cli_support import command
from click.testing import CliRunner
from kaggle_support import LIMITS, Notes, assert_only_loopback, calls, client_of, guarded

from kaggle_nerve.cli.kernels import kernels as commands
from kaggle_nerve.competition import facts
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import client as clients
from kaggle_nerve.kaggle_api import kernels, outputs
from kaggle_nerve.kaggle_api.account import full_ref, username
from kaggle_nerve.kaggle_api.client import Client, Limits
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.kernels import follow, kernel_status, push
from kaggle_nerve.kaggle_api.outputs import fetch_runs
from kaggle_nerve.kaggle_api.records import Listing, RemoteFile
from kaggle_nerve.notebooks.plans import PLANS
from kaggle_nerve.progress import SILENT
from kaggle_nerve.rehearsal.kernels import calls as kernel_calls
from kaggle_nerve.rehearsal.server import RehearsalServer
from kaggle_nerve.settings import load_preset, save_settings
from kaggle_nerve.storage import digest_file, mark_complete, write_json

KERNELS = Path(__file__).parents[1] / "kernels"
REF = "rehearsal/nerve-train-folds"
PUSH, STATUS = ("kernels", "push", "nerve-train-folds"), ("kernels", "status", "nerve-train-folds")
PARTLY = (
    rf"^3 of 3 files of {REF} did not arrive whole, such as runs/small/environment.json( \(The download address that "
    r"Kaggle gave is refused, as it is when it has expired\))?: run the same command again; what arrived is kept\.$"
)
"""Versions of the client from 2.2.5 on give the reason."""

NOTEBOOK = {
    "cells": [{"cell_type": "code", "source": "print('déjà vu')\nprint(2)", "outputs": [], "metadata": {}}],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture
def client(server: RehearsalServer, tmp_path: Path) -> Client:
    return client_of(server, tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_kernel(tmp_path / "kernel")


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loopback server needs no patience."""
    monkeypatch.setattr(kernels, "POLLS", (0.1,))


def make_kernel(folder: Path, **changes) -> Path:
    """A folder to push; a change to None takes the key out."""
    metadata = {
        "id": REF,
        "title": "Nerve train folds",
        "code_file": "notebook.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",
        "competition_sources": [facts.SLUG],
        **changes,
    }
    folder.mkdir(exist_ok=True)
    (folder / "notebook.ipynb").write_text(json.dumps(NOTEBOOK))
    kept = {name: value for name, value in metadata.items() if value is not None}
    (folder / kernels.METADATA).write_text(json.dumps(kept))
    return folder


def finished(server: RehearsalServer, folder: Path, client: Client, output: Path) -> None:
    """A pushed kernel whose session left the files of ``output``."""
    push(folder, client)
    server.finish_kernel(REF, output, log="[]")


def make_run(runs: Path, name: str = "small", *changes: str, folds: int = 2) -> Path:
    """A run's folder as far as its merging looks at it; the last fold is only begun."""
    run = runs / name
    run.mkdir(parents=True)
    save_settings(load_preset("tiny", changes), run / "settings.toml")
    write_json(run / "environment.json", {"source": "digest"})
    (run / "folds.csv").write_text("subject,fold,frames,with_mask\n1,0,2,1\n")
    for fold in range(folds - 1):
        (run / f"fold-{fold}").mkdir()
        (run / f"fold-{fold}" / "model.keras").write_bytes(bytes([fold]) * 300_000)
        mark_complete(run / f"fold-{fold}", {"source": "digest"})
    write_json(run / f"fold-{folds - 1}" / "checkpoint" / "state.json", {"epoch": 3})
    return run


class TestPush:
    def test_what_is_pushed_arrives_as_it_is(
        self, server: RehearsalServer, client: Client, folder: Path, tmp_path: Path
    ) -> None:
        assert (username(client), full_ref("x", client)) == ("rehearsal", "rehearsal/x")
        first = push(folder, client)
        assert first == kernels.KernelVersion(REF, 1, f"https://www.kaggle.com/code/{REF}")
        (kernel,) = server.kernels
        assert json.loads(kernel.text) == NOTEBOOK
        assert (kernel.ref, kernel.machine_shape, kernel.kernel_type) == (REF, "NvidiaTeslaT4", "notebook")
        assert (kernel.enable_gpu, kernel.enable_internet, kernel.is_private) == (True, False, True)
        assert kernel.competition_sources == (facts.SLUG,)
        assert push(folder, client).version == 2
        assert [kernel.version for kernel in server.kernels] == [2, 1]
        again = RehearsalServer(server.served, server.state_dir)
        assert again.kernels == server.kernels
        assert_only_loopback(tmp_path / "home")

    def test_a_refusal_with_exit_code_0_is_one(
        self, server: RehearsalServer, client: Client, folder: Path
    ) -> None:
        server.faults.add("kernel-refused")
        with pytest.raises(KaggleError, match="as many kernels as Kaggle allows") as told:
            push(folder, client)
        assert told.value.kind == "daily-limit"
        server.faults.add("kernel-refused", message="Weekly GPU quota of 30 hours is exhausted.")
        with pytest.raises(KaggleError, match="no machine time left"):
            push(folder, client)
        assert server.kernels == []

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"title": "abc"}, "at least five"),
            (
                {"id": "somebody/nerve-train-folds"},
                "does not find somebody/nerve-train-folds while pushing it",
            ),
            (
                {"competition_sources": ["nope"]},
                "pushed as version 1, and its session begun, but without.*'nope'",
            ),
            ({"dataset_sources": ["rehearsal/nothing"]}, "without the dataset sources 'rehearsal/nothing'"),
        ],
    )
    def test_what_kaggle_does_not_take(
        self, client: Client, tmp_path: Path, changes: dict, said: str
    ) -> None:
        with pytest.raises(KaggleError, match=said):
            push(make_kernel(tmp_path / "kernel", **changes), client)

    def test_a_notebook_of_a_megabyte_is_refused(
        self, server: RehearsalServer, client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kernel_calls, "SOURCE_LIMIT", 50)
        with pytest.raises(KaggleError, match="make the notebook smaller"):
            push(folder, client)

    def test_a_new_kernel_is_called_by_its_title(self, client: Client, tmp_path: Path) -> None:
        made = push(make_kernel(tmp_path / "kernel", title="Another name"), client)
        assert made.ref == "rehearsal/another-name"
        with pytest.raises(KaggleError, match="already in use"):
            push(make_kernel(tmp_path / "kernel", title="Another name"), client)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"id": "INSERT_USER/nerve-train-folds"}, "must be your user name"),
            ({"enable_internet": None}, "does not say enable_internet"),
        ],
    )
    def test_what_nobody_can_mean_is_not_sent(
        self, server: RehearsalServer, client: Client, tmp_path: Path, changes: dict, said: str
    ) -> None:
        with pytest.raises(NerveError, match=said):
            push(make_kernel(tmp_path / "kernel", **changes), client)
        assert server.log == []

    def test_unauthorized(self, server: RehearsalServer, client: Client, folder: Path) -> None:
        server.faults.add("unauthorized")
        with pytest.raises(KaggleError, match="does not accept the access token") as told:
            push(folder, client)
        assert told.value.kind == "unauthorized"

    def test_forbidden_does_not_speak_of_rules(
        self, server: RehearsalServer, client: Client, folder: Path
    ) -> None:
        server.faults.add("status", call="SaveKernel", status=403, message="Forbidden")
        with pytest.raises(KaggleError, match="verify a phone number") as told:
            push(folder, client)
        assert "competition" not in str(told.value)

    def test_a_lost_answer_is_told_as_such(
        self, server: RehearsalServer, client: Client, folder: Path
    ) -> None:
        server.faults.add("upload-uncertain")
        with pytest.raises(KaggleError, match=rf"Nobody knows whether {REF} was pushed.*kernels status"):
            push(folder, client)
        assert len(server.kernels) == 1

    def test_server_gone(self, server: RehearsalServer, client: Client, folder: Path) -> None:
        server.close()
        with pytest.raises(KaggleError, match="server does not answer") as told:
            kernel_status(REF, client)
        assert told.value.kind == "network"


class TestSession:
    def test_queued_running_complete(self, server: RehearsalServer, client: Client, folder: Path) -> None:
        push(folder, client)
        seen = [kernel_status(REF, client) for _ in range(3)]
        assert [session.status for session in seen] == ["queued", "running", "complete"]
        assert [session.ended for session in seen] == [False, False, True]

    def test_followed_past_a_fault_until_it_fails(
        self, server: RehearsalServer, client: Client, folder: Path
    ) -> None:
        server.faults.add("session-fails", message='No "memory" left.\nReally.')
        push(folder, client)
        notes = Notes()
        (first,) = follow([REF], client, timeout=0)
        server.faults.add("status", call="GetKernelSessionStatus", json=False)
        (session,) = follow([REF], client, reporter=notes)
        assert (first.status, session) == ("queued", ("error", 'No "memory" left.\nReally.'))
        assert notes.bars[0][2].notes == ["unknown", "running", "error"]

    def test_unknown_kernel(self, client: Client) -> None:
        with pytest.raises(KaggleError, match="Kaggle has no kernel rehearsal/unknown") as told:
            kernel_status("rehearsal/unknown", client)
        assert "competition" not in str(told.value)


class TestOutput:
    def test_all_pages_with_folders(
        self,
        server: RehearsalServer,
        client: Client,
        folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(outputs, "PAGE", 2)
        source = make_run(tmp_path / "left" / "runs").parents[1]
        (source / "submission.csv").write_text("img,pixels\n")
        finished(server, folder, client, source)
        got, notes = tmp_path / "runs", Notes()
        fetch_runs(REF, got, client, reporter=notes)
        sent = files_of(source / "runs")
        assert files_of(got) == sent
        assert len(sent) == 6
        assert calls(server, "ListKernelFiles") == [200] * 4
        assert all(bar.count >= total for _, total, bar in notes.bars)
        asked = [record.path for record in server.log if record.call == "output"]
        assert not [path for path in asked if path.endswith("submission.csv")]

    def test_a_broken_connection_does_not_reach_the_user(
        self, server: RehearsalServer, client: Client, folder: Path, tmp_path: Path
    ) -> None:
        """Versions of the client up to 2.2.4 end at it, later ones go on by themselves."""
        source, got = make_run(tmp_path / "left" / "runs").parents[1], tmp_path / "runs"
        finished(server, folder, client, source)
        server.faults.add("cut", after=200_000)
        fetch_runs(REF, got, client)
        assert files_of(got) == files_of(source / "runs")
        assert [path.name for path in got.iterdir()] == ["small"]

    def test_an_error_page_is_no_file(
        self, server: RehearsalServer, client: Client, folder: Path, tmp_path: Path
    ) -> None:
        """Versions of the client up to 2.2.4 save it and exit 0, later ones end at it."""
        source, got = make_run(tmp_path / "left" / "runs").parents[1], tmp_path / "runs"
        finished(server, folder, client, source)
        server.faults.add("expired-link", times=None)
        with pytest.raises(KaggleError, match=PARTLY) as fault:
            fetch_runs(REF, got, client)
        assert fault.value.kind in ("corrupt", "link")
        assert not list(got.rglob("*.json"))
        server.faults.clear()
        server.faults.add("expired-link")
        fetch_runs(REF, got, client)
        assert files_of(got) == files_of(source / "runs")

    @pytest.mark.parametrize(("kind", "whole"), [("network", 600), ("server", 600), ("server", 0)])
    def test_runs_of_the_client_go_on_while_each_brings_something(
        self,
        client: Client,
        folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        kind: str,
        whole: int,
    ) -> None:
        """A hundred bytes more at a time, as where each connection breaks; and from 400 on nothing more."""
        wanted = RemoteFile("runs/small/fold-0/model.keras", whole)
        path = tmp_path / wanted.name
        path.parent.mkdir(parents=True)
        sizes = []

        def ask(*words, **options) -> None:
            sizes.append(path.stat().st_size if path.exists() else 0)
            clients.partial_path(path).write_text("{}")
            path.write_bytes(bytes(min(sizes[-1] + 100, 400)))
            raise KaggleError(
                kind, "It broke while downloading: check the network, and run the same command again."
            )

        monkeypatch.setattr(client, "ask", ask)
        with pytest.raises(KaggleError) as fault:
            outputs._fetch(REF, tmp_path, client, Listing((wanted,)), outputs.RUN_FILES, SILENT)
        assert (fault.value.kind, sizes) == (kind, [0, 100, 200, 300, 400, 400, 400])
        assert path.stat().st_size == 400
        assert str(fault.value).startswith("It broke" if kind == "network" else "1 of 1 files of rehearsal/")

    @pytest.mark.parametrize("status", [404, 429])
    def test_what_another_run_would_not_mend_ends_at_once(
        self, server: RehearsalServer, client: Client, folder: Path, tmp_path: Path, status: int
    ) -> None:
        finished(server, folder, client, make_run(tmp_path / "left" / "runs").parents[1])
        server.faults.add("status", call="ListKernelSessionOutput", times=None, status=status)
        with pytest.raises(KaggleError, match=f"has no kernel {REF}" if status == 404 else "fewer requests"):
            fetch_runs(REF, tmp_path / "got", client)
        assert calls(server, "ListKernelSessionOutput") == [status]

    def test_a_download_that_stands_still_is_ended_and_gone_on_with(
        self, server: RehearsalServer, folder: Path, tmp_path: Path
    ) -> None:
        client, got = (
            client_of(server, tmp_path / "home", Limits(call=20, output=30, file=2)),
            tmp_path / "got",
        )
        source = make_run(tmp_path / "left" / "runs").parents[1]
        finished(server, folder, client, source)
        server.faults.add("stall", call="output", after=100)
        with pytest.raises(KaggleError, match="Nothing came for 2 s"):
            fetch_runs(REF, got, client)
        fetch_runs(REF, got, client)
        assert files_of(got) == files_of(source / "runs")

    def test_nothing_there_yet(self, client: Client, folder: Path, tmp_path: Path) -> None:
        push(folder, client)
        with pytest.raises(KaggleError, match="left no such files"):
            fetch_runs(REF, tmp_path / "got", client)

    def test_a_name_that_leads_out_is_refused(
        self, client: Client, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        push(folder, client)
        monkeypatch.setattr(kernel_calls, "_output", lambda *_: [("../out", folder / kernels.METADATA)])
        with pytest.raises(KaggleError, match="no plain name"):
            fetch_runs(REF, tmp_path / "got", client)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("name", ["runs/x/../../../../out", "runs/small/a\n/../../../../out"])
    def test_a_name_that_leads_out_is_not_written_by_the_clients_own_list(
        self,
        server: RehearsalServer,
        client: Client,
        folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
    ) -> None:
        """The list of sizes is clean; that of addresses, which the client asks for itself, has one name more."""
        finished(server, folder, client, make_run(tmp_path / "left" / "runs").parents[1])
        real = kernel_calls._output

        def listed(exchange, kernel):
            more = exchange.record.call == "ListKernelSessionOutput"
            return [*real(exchange, kernel), *([(name, folder / kernels.METADATA)] if more else [])]

        monkeypatch.setattr(kernel_calls, "_output", listed)
        fetch_runs(REF, tmp_path / "deep" / "runs", client)
        assert [path.name for path in (tmp_path / "deep" / "runs").iterdir()] == ["small"]
        assert not list(tmp_path.rglob("out"))


def cells_of(text: str) -> list[tuple[str, str]]:
    """Kind and source of each cell of a notebook; the client joins the lines of code."""
    return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]


def files_of(folder: Path) -> dict[str, bytes]:
    """Names and bytes."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


class TestRuns:
    def test_finished_folds_come_and_mine_stay(
        self, server: RehearsalServer, client: Client, folder: Path, tmp_path: Path
    ) -> None:
        source = make_run(tmp_path / "left" / "runs", folds=3).parents[1]
        mine = make_run(tmp_path / "runs", folds=2)
        (mine / "fold-0" / "model.keras").write_bytes(b"mine")
        finished(server, folder, client, source)
        (line,) = fetch_runs(REF, tmp_path / "runs", client)
        assert line == "run small: fold-1, fold-2"
        assert (mine / "fold-0" / "model.keras").read_bytes() == b"mine"
        assert (mine / "fold-1" / "model.keras").read_bytes() == b"\x01" * 300_000
        assert (mine / "fold-2" / "checkpoint" / "state.json").is_file()
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["small"]
        # What is finished here was not even fetched.
        fetched = [record.path for record in server.log if record.call == "output"]
        assert not [path for path in fetched if "fold-0" in path]

    def test_another_run_of_the_name_is_refused_before_its_models_are_fetched(
        self, server: RehearsalServer, client: Client, folder: Path, tmp_path: Path
    ) -> None:
        source = make_run(tmp_path / "left" / "runs").parents[1]
        mine = make_run(tmp_path / "runs", "small", "training.epochs=77")
        finished(server, folder, client, source)
        before = (mine / "settings.toml").read_text()
        with pytest.raises(NerveError, match=r"two runs of one name, with training.epochs = \d+ and 77"):
            fetch_runs(REF, tmp_path / "runs", client)
        assert (mine / "settings.toml").read_text() == before
        assert not [record for record in server.log if record.call == "output" and ".keras" in record.path]

    def test_a_model_damaged_on_the_way_is_named_and_fetched_again(
        self, server: RehearsalServer, client: Client, folder: Path, tmp_path: Path, monkeypatch
    ) -> None:
        run = make_run(tmp_path / "left" / "runs")
        model = run / "fold-0" / "model.keras"
        mark_complete(model.parent, {"source": "digest", "model": digest_file(model)})
        finished(server, folder, client, run.parents[1])
        real = outputs._fetch

        def damage(ref, work, *details):
            real(ref, work, *details)
            for path in work.rglob("model.keras"):
                path.write_bytes(bytes(300_000)[:-1] + b"x")

        monkeypatch.setattr(outputs, "_fetch", damage)
        told = "small/fold-0/model.keras of .* is not the file that its training left: run the same command again"
        with pytest.raises(KaggleError, match=told):
            fetch_runs(REF, tmp_path / "runs", client)
        assert not (tmp_path / "runs" / "small").exists()
        monkeypatch.setattr(outputs, "_fetch", real)
        assert fetch_runs(REF, tmp_path / "runs", client) == ["run small with 1 finished folds"]
        assert (tmp_path / "runs/small/fold-0/model.keras").read_bytes() == model.read_bytes()


class TestCommands:
    def test_status_and_output(
        self,
        server: RehearsalServer,
        client: Client,
        folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        finished(server, folder, client, make_run(tmp_path / "left" / "runs").parents[1])
        variables = guarded(server, tmp_path / "home")
        monkeypatch.setattr(clients, "Client", lambda: Client(variables, limits=LIMITS))
        runs = str(tmp_path / "runs")
        shown = CliRunner().invoke(commands, ["status", "nerve-train-folds", "--json"])
        assert json.loads(shown.stdout) == {"kernel": REF, "status": "complete", "failure": ""}
        done = CliRunner().invoke(commands, ["output", REF, "--runs", runs])
        assert done.stdout == f"{runs}: run small with 1 finished folds\n"

    @pytest.mark.parametrize("name", PLANS)
    def test_what_is_generated_is_pushed_cell_by_cell(
        self, server: RehearsalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        variables = guarded(server, tmp_path / "home")
        monkeypatch.setattr(clients, "Client", lambda: Client(variables, limits=LIMITS))
        done = CliRunner().invoke(commands, ["push", name])
        assert f"rehearsal/{name} is pushed as version 1; its page is https://" in done.stdout
        (pushed,) = server.kernels
        held = KERNELS / name / f"{name}.ipynb"
        assert cells_of(pushed.text) == cells_of(held.read_text(encoding="utf-8"))
        assert len(cells_of(pushed.text)) > 50
        told = json.loads((KERNELS / name / kernels.METADATA).read_text(encoding="utf-8"))
        assert (pushed.ref, pushed.title) == (f"rehearsal/{name}", told["title"])
        assert (pushed.enable_gpu, pushed.machine_shape) == (
            told["enable_gpu"],
            told.get("machine_shape", ""),
        )
        assert (pushed.enable_internet, pushed.is_private) == (False, True)
        assert pushed.competition_sources == (facts.SLUG,)

    @pytest.mark.parametrize("words", [["push", "nerve-explore"], ["status", "nerve-explore"]])
    def test_a_timeout_without_watching_is_refused(self, words: list[str]) -> None:
        done = CliRunner().invoke(commands, [*words, "--timeout", "2h"])
        assert done.exit_code == 2
        assert "--timeout is about watching; use it with --follow" in done.output

    def test_push_and_follow(
        self, server: RehearsalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A session that fails is exit code 1."""
        variables = guarded(server, tmp_path / "home")
        monkeypatch.setattr(clients, "Client", lambda: Client(variables, limits=LIMITS))
        server.faults.add("session-fails", message="Out of memory.")
        done = CliRunner().invoke(commands, ["push", "nerve-train-folds", "--follow"])
        assert done.exit_code == 1
        assert f"{REF} is pushed as version 1; its page is https://" in done.stdout
        assert done.stdout.endswith(f"{REF}: error (Out of memory.)\n")


class TestParts:
    """The training kernel in several, as commands."""

    @pytest.fixture(autouse=True)
    def _client(self, server: RehearsalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        variables = guarded(server, tmp_path / "home")
        monkeypatch.setattr(clients, "Client", lambda: Client(variables, limits=LIMITS))

    def test_each_part_is_pushed_as_a_kernel_of_its_own(
        self, server: RehearsalServer, tmp_path: Path
    ) -> None:
        done = command(tmp_path, *PUSH, "--split", "2", "--set", "HOURS=5")
        assert done.stdout.splitlines() == [
            f"{REF}-1 is pushed as version 1; its page is https://www.kaggle.com/code/{REF}-1",
            f"{REF}-2 is pushed as version 1; its page is https://www.kaggle.com/code/{REF}-2",
            "`kaggle-nerve kernels status nerve-train-folds --split 2 --follow` watches their sessions, "
            "`kaggle-nerve kernels output nerve-train-folds --split 2` then joins their runs.",
        ]
        pushed = {kernel.ref: kernel for kernel in server.kernels}
        for number in (1, 2):
            kernel = pushed[f"{REF}-{number}"]
            settings = cells_of(kernel.text)[1][1]
            assert f"PART = '{number}/2'" in settings
            assert "HOURS = 5" in settings
            assert kernel.enable_gpu

    def test_a_part_that_kaggle_refuses_can_be_pushed_alone_later(
        self, server: RehearsalServer, tmp_path: Path
    ) -> None:
        server.faults.add("kernel-refused", sessions=2)
        done = command(tmp_path, *PUSH, "--split", "4", code=1)
        assert [line.split()[0] for line in done.stdout.splitlines()] == [f"{REF}-1", f"{REF}-2"]
        assert done.stderr == (
            "Error: This account runs as many kernels as Kaggle allows at once (Maximum batch GPU session count of 2 "
            "reached.): wait until one has ended, or end one at https://www.kaggle.com/code, and run the same command "
            "again. Parts 1, 2 are pushed already, and would be trained again: select the rest with --part 3 "
            "--part 4.\n"
        )
        command(tmp_path, *PUSH, "--split", "4", "--part", "4", "--part", "3")
        assert [(kernel.ref, kernel.version) for kernel in server.kernels] == [
            (f"{REF}-{number}", 1) for number in (4, 3, 2, 1)
        ]
        assert "PART = '3/4'" in cells_of(server.kernels[1].text)[1][1]

    def test_where_no_part_is_pushed_the_same_command_is_given_again(
        self, server: RehearsalServer, tmp_path: Path
    ) -> None:
        server.faults.add("kernel-refused")
        said = command(tmp_path, *PUSH, "--split", "2", code=1).stderr
        assert said.endswith("and run the same command again.\n")
        assert server.kernels == []

    def test_more_parts_than_folds_are_refused_before_anything_is_pushed(
        self, server: RehearsalServer, tmp_path: Path
    ) -> None:
        said = command(tmp_path, *PUSH, "--split", "4", "--set", "FOLDS=3+all", code=1).stderr
        assert said == (
            "Error: A run with folds = '3+all' cannot be split into 4 parts, since each needs a fold that holds "
            "subjects out: use 3 parts at most.\n"
        )
        assert server.kernels == []

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (
                ["kernels", "push", "nerve-explore", "--split", "2"],
                "--split is for the folds of nerve-train-folds, not for nerve-explore.",
            ),
            (
                ["kernels", "output", "me/nerve-train-folds-1", "--split", "2"],
                "not for me/nerve-train-folds-1.",
            ),
            ([*PUSH, "--part", "1"], "--part selects from the parts of --split; give both."),
            ([*STATUS, "--split", "2", "--part", "3"], "--part 3 is beyond the 2 parts"),
            ([*PUSH, "--split", "1"], "1 is not in the range x>=2"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, tmp_path: Path, words: list[str], said: str) -> None:
        assert said in command(tmp_path, *words, code=2).stderr

    def test_all_parts_are_watched_and_one_that_fails_is_exit_code_1(
        self, server: RehearsalServer, tmp_path: Path
    ) -> None:
        server.faults.add("session-fails", message="Out of memory.")
        done = command(tmp_path, *PUSH, "--split", "2", "--follow", code=1)
        assert done.stdout.splitlines()[2:] == [f"{REF}-1: error (Out of memory.)", f"{REF}-2: complete"]
        rows = json.loads(command(tmp_path, *STATUS, "--split", "2", "--json", code=1).stdout)
        assert rows == [
            {"kernel": f"{REF}-1", "status": "error", "failure": "Out of memory."},
            {"kernel": f"{REF}-2", "status": "complete", "failure": ""},
        ]
        one = command(tmp_path, *STATUS, "--split", "2", "--part", "2", "--follow")
        assert one.stdout == f"{REF}-2: complete\n"

    def test_parts_that_are_finished_come_without_the_others(
        self, server: RehearsalServer, tmp_path: Path
    ) -> None:
        """Part 1 has not ended, and part 3 was never pushed."""
        command(tmp_path, *PUSH, "--split", "3", "--part", "1", "--part", "2")
        server.finish_kernel(f"{REF}-2", make_run(tmp_path / "left" / "runs").parents[1])
        done = command(tmp_path, "kernels", "output", "nerve-train-folds", "--split", "3", code=1)
        assert done.stdout == "runs: run small with 1 finished folds\n"
        first, second = done.stderr.splitlines()[-2:]
        assert f"The newest session of {REF}-1 left no such files" in first
        assert (
            f"while listing the output of {REF}-3): if there is no such kernel yet, push it first" in second
        )

    def test_parts_of_two_runs_are_not_joined(self, server: RehearsalServer, tmp_path: Path) -> None:
        command(tmp_path, *PUSH, "--split", "2")
        for number in (1, 2):
            left = make_run(tmp_path / f"left-{number}" / "runs", "small", f"seed={number}")
            server.finish_kernel(f"{REF}-{number}", left.parents[1])
        said = command(tmp_path, "kernels", "output", "nerve-train-folds", "--split", "2", code=1).stderr
        assert "two runs of one name, with seed = 2 and 1" in said
        assert [path.name for path in (tmp_path / "runs").glob("[!.]*")] == ["small"]
