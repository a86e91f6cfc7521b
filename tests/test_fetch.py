"""Getting the data: what arrives, what is refused, and what is left when something breaks."""

import errno
import json
import os
import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock
from kaggle_support import (
    LIMITS,
    Notes,
    ShelfClient,
    assert_only_loopback,
    calls,
    client_of,
    everything_under,
    guarded,
    kill,
    start_python,
)
from rehearsal_support import make_competition, wait_for_bytes

from kaggle_nerve import disk
from kaggle_nerve.competition import facts
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import archive as archives
from kaggle_nerve.kaggle_api import layout
from kaggle_nerve.kaggle_api.archive import Bounds, CorruptArchiveError, UnsafeArchiveError, unpack
from kaggle_nerve.kaggle_api.client import Client, Limits
from kaggle_nerve.kaggle_api.fetch import data_source, fetch
from kaggle_nerve.kaggle_api.records import Listing, RemoteFile
from kaggle_nerve.rehearsal.competitions.served import ServedCompetition, pack
from kaggle_nerve.rehearsal.server import RehearsalServer

MIB = 1 << 20
PLANTED = "KGAT_planted0123456789abcdef"

FETCH = """
from pathlib import Path
from kaggle_nerve.kaggle_api import archive, fetch
from kaggle_nerve.kaggle_api.client import Client
"""
"""What a process that is going to be killed begins with."""

DEADLY = """
import os, signal
real, count = {where}, 0
def deadly(*arguments):
    global count
    count += 1
    if count == {count}:
        if "{where}".endswith("_extract"):
            arguments[2].parent.mkdir(exist_ok=True)
            arguments[2].write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
{where} = deadly
"""
"""How it kills itself: at the so-maniest call of a function."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source")


@pytest.fixture(scope="module")
def served(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ServedCompetition:
    return pack(*make_competition(source), tmp_path_factory.mktemp("packed"))


@pytest.fixture
def server(served: ServedCompetition, tmp_path: Path) -> Iterator[RehearsalServer]:
    with RehearsalServer(served, tmp_path / "state", token=PLANTED) as running:
        yield running


@pytest.fixture
def client(server: RehearsalServer, tmp_path: Path) -> Client:
    return client_of(server, tmp_path / "home")


@pytest.fixture
def shelf(served: ServedCompetition) -> ShelfClient:
    return ShelfClient(served.archive)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def assert_is_whole(data: Path, source: Path) -> None:
    """Every file of the competition is there with its bytes, and nothing else but the work folder's notes."""
    found = {path.relative_to(data).as_posix(): path for path in data.rglob("*") if path.is_file()}
    notes = {f".fetch/{name}" for name in ("complete.json", "source.json", "lock")}
    wanted = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
    assert found.keys() - notes == wanted.keys()
    assert all(found[name].read_bytes() == path.read_bytes() for name, path in wanted.items())


class TestThroughTheClient:
    def test_the_whole_way_and_then_nothing_to_do(
        self, server: RehearsalServer, client: Client, data: Path, source: Path, tmp_path: Path
    ) -> None:
        notes, looked_at = Notes(), []
        verify = lambda folder: looked_at.append(folder) or []  # noqa: E731
        done = fetch(data, client, reporter=notes, verify=verify)
        assert_is_whole(data, source)
        assert (done.files, done.was_complete, done.source) == (18, False, "rehearsal")
        assert "from the rehearsal, not from Kaggle" in done.sentence
        assert looked_at == [data]
        assert [(label, total, bar.count) for label, total, bar in notes.bars] == [
            ("Listing", None, 18),
            ("Downloading", done.bytes, done.bytes),
            ("Unpacking", done.bytes, done.bytes),
        ]
        requests = len(server.log)
        again = fetch(data, client)
        assert (again.was_complete, again.files, len(server.log)) == (True, 18, requests)
        assert "already" in str(again)
        assert_only_loopback(tmp_path / "home")
        assert PLANTED.encode() not in everything_under(data)

    def test_a_cut_is_gone_on_from_though_the_listing_is_short(
        self, server: RehearsalServer, client: Client, data: Path, source: Path
    ) -> None:
        server.faults.add("cut", after=1_500_000)
        server.faults.add("short-listing", missing=5)
        fetch(data, client)
        assert_is_whole(data, source)
        spans = [record.span for record in server.log if record.call == "archive"]
        assert spans == ["", "bytes=1048576-"]

    def test_a_stall_is_ended_and_gone_on_from(
        self, server: RehearsalServer, data: Path, source: Path, tmp_path: Path
    ) -> None:
        server.faults.add("stall", call="archive", after=2 * MIB + 1000)
        notes = Notes()
        fetch(data, client_of(server, tmp_path / "home", Limits(stall=5)), reporter=notes)
        assert_is_whole(data, source)
        assert [record.span for record in server.log if record.call == "archive"][-1] == "bytes=2097152-"
        assert "The connection broke at 2.1 MB; going on from there." in notes.lines

    def test_a_corrupt_archive_is_discarded_and_fetched_again(
        self, server: RehearsalServer, client: Client, data: Path, source: Path
    ) -> None:
        server.faults.add("corrupt")
        notes = Notes()
        assert fetch(data, client, reporter=notes).damaged == 1
        assert_is_whole(data, source)
        assert "Bad CRC-32" in notes.text
        assert "was discarded" in notes.text

    def test_a_link_that_expired_before_the_resume(
        self, server: RehearsalServer, client: Client, data: Path, source: Path, tmp_path: Path
    ) -> None:
        """Here 2.2.4 leaves the error page in the archive's place, and later completes it: all is discarded."""
        kill_in_the_download(server, data, tmp_path / "home")
        server.faults.add("expired-link", resume=True)
        fetch(data, client)
        assert_is_whole(data, source)

    def test_an_expired_link_is_asked_for_again(
        self, server: RehearsalServer, client: Client, data: Path, source: Path
    ) -> None:
        server.faults.add("expired-link")
        fetch(data, client)
        assert_is_whole(data, source)
        assert calls(server, "archive") == [403, 200]

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (
                "rules",
                r"not accepted the competition's rules: open https://\S+/rules, press 'Late Submission'",
            ),
            ("unauthorized", r"does not accept the access token from KAGGLE_API_TOKEN .* make a new token"),
            ("unknown-competition", r"does not know the competition .* look at"),
        ],
    )
    def test_refusals(
        self, server: RehearsalServer, client: Client, data: Path, fault: str, told: str
    ) -> None:
        server.faults.add(fault)
        with pytest.raises(NerveError, match=told) as seen:
            fetch(data, client)
        assert PLANTED not in str(seen.value)
        assert [path.name for path in data.iterdir()] == [".fetch"]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_the_disk_becomes_full_in_the_download(
        self, server: RehearsalServer, client: Client, data: Path, source: Path
    ) -> None:
        """The archive's place leads to /dev/full: the client gets the kernel's own ENOSPC."""
        place = data / ".fetch" / f"{facts.SLUG}.zip"
        place.parent.mkdir(parents=True)
        place.symlink_to("/dev/full")
        with pytest.raises(NerveError, match=r"disk became full while downloading .* free some space"):
            fetch(data, client)
        place.unlink()
        fetch(data, client)
        assert_is_whole(data, source)


class TestAroundTheDownload:
    """With a client that takes the archive from a shelf."""

    def test_a_removed_file_is_fetched_again_and_force_fetches_anyway(
        self, shelf: ShelfClient, data: Path, source: Path
    ) -> None:
        assert fetch(data, shelf, keep_archive=True).archive.is_file()
        (data / "test" / "3.tif").unlink()
        assert not fetch(data, shelf, keep_archive=True).was_complete
        assert shelf.deliveries == 1
        assert fetch(data, shelf, force=True).archive is None
        assert shelf.deliveries == 2
        assert_is_whole(data, source)

    @pytest.mark.parametrize("lost", ["train/2_1.tif", "train/1_2_mask.tif", "train_masks.csv"])
    @pytest.mark.parametrize("counted", [False, True], ids=["named", "counted by an earlier version"])
    def test_other_files_do_not_stand_in_for_one_that_is_lost(
        self, shelf: ShelfClient, data: Path, source: Path, lost: str, counted: bool
    ) -> None:
        fetch(data, shelf, keep_archive=True)
        if counted:
            record = data / ".fetch" / "complete.json"
            done = json.loads(record.read_text())
            done["counts"] = Counter(str(Path(name).parent) for name in done.pop("names"))
            record.write_text(json.dumps(done))
        litter = [
            data / lost.replace(Path(lost).name, name) for name in (".DS_Store", "._1_1.tif", "Thumbs.db")
        ]
        for path in litter:
            path.write_bytes(b"?")
        assert fetch(data, shelf, keep_archive=True).was_complete
        (data / lost).unlink()
        assert not fetch(data, shelf).was_complete
        for path in litter:
            path.unlink()
        assert_is_whole(data, source)

    def test_an_archive_that_stays_corrupt_leaves_nothing(
        self, served: ServedCompetition, data: Path
    ) -> None:
        shelf = ShelfClient(served.archive, spoil=lambda sound, number: sound[:1000] + b"??" + sound[1002:])
        with pytest.raises(NerveError, match=r"arrived damaged 2 times and was discarded.*later"):
            fetch(data, shelf)
        assert [path.name for path in data.iterdir()] == [".fetch"]
        assert not list(data.rglob("*.zip*"))

    def test_an_archive_that_is_corrupt_in_ever_other_places(
        self, served: ServedCompetition, data: Path
    ) -> None:
        shelf = ShelfClient(served.archive, spoil=lambda sound, number: sound[: 1_000_000 * number + 500])
        with pytest.raises(NerveError, match="arrived damaged"):
            fetch(data, shelf)
        assert 2 <= shelf.deliveries <= 3

    def test_what_is_not_right_is_not_called_fetched(self, shelf: ShelfClient, data: Path) -> None:
        with pytest.raises(NerveError, match=r"complete but failed the check: 1_1.tif is odd \(and 1 more\)"):
            fetch(data, shelf, verify=lambda folder: ["1_1.tif is odd", "2_1.tif too"])
        assert not fetch(data, shelf, verify=lambda folder: []).was_complete
        assert shelf.deliveries == 1

    @pytest.mark.parametrize("faults", [[], ["a fault"]], ids=["finished", "unfinished"])
    def test_rehearsal_and_kaggle_do_not_mix(self, shelf: ShelfClient, data: Path, faults: list[str]) -> None:
        with suppress(NerveError):
            fetch(data, shelf, verify=lambda folder: faults)
        shelf.is_rehearsal = False
        for force in (False, True):
            with pytest.raises(NerveError, match="holds data from the rehearsal"):
                fetch(data, shelf, force=force)

    def test_a_fetch_that_got_nothing_binds_the_folder_to_nobody(
        self, served: ServedCompetition, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse() -> None:
            raise NerveError("No Kaggle credentials were found")

        first = ShelfClient(served.archive)
        monkeypatch.setattr(first, "credential", refuse)
        with pytest.raises(NerveError, match="No Kaggle credentials"):
            fetch(data, first)
        assert data_source(data) == "rehearsal"
        kaggle = ShelfClient(served.archive)
        kaggle.is_rehearsal = False
        fetch(data, kaggle)
        assert data_source(data) == "kaggle"

    def test_a_folder_may_be_linked_to_another_disk(
        self, shelf: ShelfClient, data: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "disk").mkdir()
        data.mkdir(exist_ok=True)
        (data / "train").symlink_to(tmp_path / "disk")
        real = Path.replace

        def replace(path: Path, target: Path) -> Path:
            if ".fetch" in path.parts and Path(target).parent.resolve() == tmp_path / "disk":
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            return real(path, target)

        monkeypatch.setattr(Path, "replace", replace)
        fetch(data, shelf)
        assert (data / "train").is_symlink()
        assert {path.name for path in (tmp_path / "disk").iterdir()} == {
            path.name for path in (source / "train").iterdir()
        }
        assert (data / "train" / "2_1.tif").read_bytes() == (source / "train" / "2_1.tif").read_bytes()

    def test_no_room_is_said_before_the_download(
        self, served: ServedCompetition, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage("/")._replace(free=5_000_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
        shelf = ShelfClient(served.archive, Listing((RemoteFile("train.zip", 1_200_000_000),)))
        with pytest.raises(NerveError, match=r"needs 2\.4 GB .* has 5\.0 MB free: free 2\.5 GB, or choose"):
            fetch(data, shelf)
        assert shelf.deliveries == 0

    def test_a_listed_file_that_is_missing(self, served: ServedCompetition, data: Path) -> None:
        shelf = ShelfClient(served.archive, Listing((RemoteFile("train/9_9.tif", 900),)))
        with pytest.raises(NerveError, match=r"lacks train/9_9\.tif, which Kaggle lists"):
            fetch(data, shelf)
        assert [path.name for path in data.iterdir()] == [".fetch"]

    def test_two_at_once(self, shelf: ShelfClient, data: Path) -> None:
        with FileLock(data / ".fetch" / "lock"), pytest.raises(NerveError, match="Another fetch works on"):
            fetch(data, shelf)


def start_fetch(data: Path, variables: dict[str, str], before: str = ""):
    code = f"{FETCH}{before}\nfetch.fetch(Path(args[0]), Client(args[1]))"
    return start_python(code, data, variables)


def kill_in_the_download(server: RehearsalServer, data: Path, home: Path) -> None:
    server.faults.add("stall", call="archive", after=2 * MIB + 300_000)
    process = start_fetch(data, guarded(server, home))
    wait_for_bytes(data / ".fetch" / f"{facts.SLUG}.zip", 2 * MIB)
    kill(process)


class TestKilled:
    def test_in_the_download(
        self, server: RehearsalServer, client: Client, data: Path, source: Path, tmp_path: Path
    ) -> None:
        kill_in_the_download(server, data, tmp_path / "home")
        assert fetch(data, client).resumed_at == 2 * MIB
        assert_is_whole(data, source)
        assert [record.span for record in server.log if record.call == "archive"][-1] == "bytes=2097152-"

    def test_before_the_marker(
        self, server: RehearsalServer, client: Client, data: Path, source: Path, tmp_path: Path
    ) -> None:
        """All is done but for the marker: the second run lets the client look, and changes nothing."""
        archive = data / ".fetch" / f"{facts.SLUG}.zip"
        process = start_fetch(
            data, guarded(server, tmp_path / "home"), DEADLY.format(where="fetch._mark", count=1)
        )
        assert process.wait(60) == -9
        process.stdout.close()
        before = archive.stat().st_ctime_ns
        assert not fetch(data, client, keep_archive=True).was_complete
        assert archive.stat().st_ctime_ns == before
        archive.unlink()
        assert_is_whole(data, source)

    @pytest.mark.parametrize("where", ["archive._extract", "fetch._move"])
    def test_in_the_midst_of_the_files(
        self, served: ServedCompetition, data: Path, source: Path, where: str
    ) -> None:
        """With a third file half written, or half of the folders moved."""
        # A folder that is there already makes the moving go file by file.
        (data / "test").mkdir(parents=True)
        (data / "train").mkdir()
        code = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from kaggle_support import ShelfClient
{FETCH}{DEADLY.format(where=where, count=3)}
fetch.fetch(Path(args[0]), ShelfClient(args[1]))
"""
        process = start_python(code, data, served.archive)
        assert process.wait(60) == -9, process.stdout.read()
        process.stdout.close()
        shelf = ShelfClient(served.archive)
        assert not fetch(data, shelf).was_complete
        assert shelf.deliveries == 0
        assert_is_whole(data, source)


FILES = {
    "train/1_1.tif": b"a" * 900,
    "train/1_1_mask.tif": b"b" * 800,
    "test/1.tif": b"c" * 700,
    "train_masks.csv": b"subject,img,pixels\n",
    "sample_submission.csv": b"img,pixels\n",
}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def zipped(folder: Path, files: dict[str, bytes]) -> bytes:
    return make_zip(folder / "inner.zip", files).read_bytes()


def unpacked(path: Path, **options) -> dict[str, bytes]:
    """What unpacking gives: names and contents."""
    staging = path.parent / "staging"
    unpack(path, staging, nested_folder=path.parent / "inner", **options)
    return {p.relative_to(staging).as_posix(): p.read_bytes() for p in staging.rglob("*") if p.is_file()}


class TestLayouts:
    def test_plain(self, tmp_path: Path) -> None:
        assert unpacked(make_zip(tmp_path / "a.zip", FILES)) == FILES

    def test_doubled_folders_and_litter(self, tmp_path: Path) -> None:
        files = {
            f"{name.split('/')[0]}/{name}" if "/" in name else name: text for name, text in FILES.items()
        }
        files |= {"__MACOSX/train/._1_1.tif": b"?", "train/.DS_Store": b"?", "notes/read.me": b"hello"}
        assert unpacked(make_zip(tmp_path / "a.zip", files)) == {**FILES, "notes/read.me": b"hello"}

    @pytest.mark.parametrize("inside", ["train/", ""], ids=["folders", "flat"])
    def test_archives_inside(self, tmp_path: Path, inside: str) -> None:
        """As the old competition listed them; flat ones have only the inner archive's name to go by."""
        train = {f"{inside}{name[6:]}": text for name, text in FILES.items() if name.startswith("train/")}
        files = {
            "train.zip": zipped(tmp_path, train),
            "test.zip": zipped(tmp_path, {"1.tif": FILES["test/1.tif"]}),
            "train_masks.csv.zip": zipped(tmp_path, {"train_masks.csv": FILES["train_masks.csv"]}),
            "sample_submission.csv": FILES["sample_submission.csv"],
        }
        listing = Listing(tuple(RemoteFile(name, len(text)) for name, text in files.items()))
        assert unpacked(make_zip(tmp_path / "a.zip", files), listing=listing) == FILES

    def test_the_same_file_twice_under_two_names_is_one(self, tmp_path: Path) -> None:
        assert unpacked(make_zip(tmp_path / "a.zip", {**FILES, "train/train/1_1.tif": b"a" * 900})) == FILES

    @pytest.mark.parametrize(
        ("name", "within", "place"),
        [
            ("1_1_mask.tif", "", "train/1_1_mask.tif"),
            ("17.tif", "", "test/17.tif"),
            ("data/test/17.tif", "", "test/17.tif"),
            ("test/3_4.tif", "", "test/3_4.tif"),
            ("17.tif", "train.zip", "train/17.tif"),
            ("x/train_masks.csv", "", "train_masks.csv"),
            ("train/", "", "None"),
        ],
    )
    def test_places(self, name: str, within: str, place: str) -> None:
        assert str(layout.target(name, within)) == place


class TestBadArchives:
    @pytest.mark.parametrize(
        "name", ["/etc/passwd", "../../x.csv", "train/../../1_1.tif", "a\\..\\b.csv", "C:/x.csv"]
    )
    def test_no_member_leaves_the_directory(self, tmp_path: Path, name: str) -> None:
        path = make_zip(tmp_path / "a.zip", {**FILES, name: b"x"})
        with pytest.raises(UnsafeArchiveError, match="nothing was unpacked"):
            unpacked(path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]

    def test_no_links(self, tmp_path: Path) -> None:
        info = zipfile.ZipInfo("train/1_2.tif")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            packed.writestr(info, "/etc/passwd")
        with pytest.raises(UnsafeArchiveError, match="link"):
            unpacked(tmp_path / "a.zip")

    def test_a_name_twice(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed, pytest.warns(UserWarning):
            packed.writestr("train_masks.csv", "a")
            packed.writestr("train_masks.csv", "b")
        with pytest.raises(UnsafeArchiveError, match=r"'train_masks.csv' twice"):
            unpacked(tmp_path / "a.zip")

    def test_two_files_for_one_place(self, tmp_path: Path) -> None:
        with pytest.raises(UnsafeArchiveError, match=r"two different files for train/1_1\.tif"):
            unpacked(make_zip(tmp_path / "a.zip", {**FILES, "train/train/1_1.tif": b"other"}))

    @pytest.mark.parametrize(
        ("bounds", "told"),
        [
            (Bounds(max_ratio=100, ratio_free_bytes=1 << 20), "would fill 0.0 GB"),
            (Bounds(bytes=4 << 20), "would fill"),
            (Bounds(members=4), "holds 5 files"),
        ],
    )
    def test_bombs(self, tmp_path: Path, bounds: Bounds, told: str) -> None:
        """8 MiB of zeros pack a thousandfold."""
        path = make_zip(tmp_path / "a.zip", {**FILES, "test/1.tif": bytes(8 * MIB)})
        with pytest.raises(UnsafeArchiveError, match=told):
            unpacked(path, bounds=bounds)
        assert not (tmp_path / "staging").exists()

    def test_a_bomb_inside(self, tmp_path: Path) -> None:
        files = {"train.zip": zipped(tmp_path, {"1_1.tif": bytes(8 * MIB)})}
        with pytest.raises(UnsafeArchiveError, match="would fill"):
            unpacked(make_zip(tmp_path / "a.zip", files), bounds=Bounds(bytes=4 * MIB))

    def test_every_damaged_byte_is_noticed_or_harmless(self, tmp_path: Path) -> None:
        """One byte after the other of a small archive is changed: never does another content come out."""
        sound = make_zip(tmp_path / "a.zip", FILES).read_bytes()
        for place in range(0, len(sound), 3):
            (tmp_path / "a.zip").write_bytes(
                sound[:place] + bytes([sound[place] ^ 0x55]) + sound[place + 1 :]
            )
            try:
                found = unpacked(tmp_path / "a.zip", listing=LISTED)
            except (CorruptArchiveError, UnsafeArchiveError):
                found = FILES
            assert {name: found.get(name) for name in FILES} == FILES, f"byte {place}"
            shutil.rmtree(tmp_path / "staging", ignore_errors=True)
            shutil.rmtree(tmp_path / "inner", ignore_errors=True)

    def test_shortened(self, tmp_path: Path) -> None:
        path = make_zip(tmp_path / "a.zip", FILES)
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(CorruptArchiveError, match="not a whole zip"):
            unpacked(path)

    @pytest.mark.parametrize(
        ("file", "told"),
        [
            (RemoteFile("train/9_9.tif", 900), "lacks train/9_9.tif"),
            (RemoteFile("train/1_1.tif", 901), "900 bytes, and Kaggle lists 901"),
        ],
    )
    def test_not_as_listed(self, tmp_path: Path, file: RemoteFile, told: str) -> None:
        with pytest.raises(CorruptArchiveError, match=told):
            unpacked(make_zip(tmp_path / "a.zip", FILES), listing=Listing((file,)))


LISTED = Listing(tuple(RemoteFile(name, len(text)) for name, text in FILES.items()))


class TestUnpackingGoesOn:
    def test_what_is_right_is_left_and_what_is_not_is_replaced(self, tmp_path: Path) -> None:
        path = make_zip(tmp_path / "a.zip", FILES)
        assert unpacked(path) == FILES
        staging = tmp_path / "staging"
        right = staging / "train" / "1_1.tif"
        os.utime(right, (1, 1))
        (staging / "test" / "1.tif").write_bytes(b"d" * 700)
        (staging / "test" / "2.tif").write_bytes(b"from another archive")
        assert unpacked(path) == FILES
        assert right.stat().st_mtime == 1

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_disk_leaves_no_half_file(self, tmp_path: Path) -> None:
        path = make_zip(tmp_path / "a.zip", {**FILES, "train/1_1.tif": os.urandom(100_000)})
        staging = tmp_path / "staging"
        (staging / "train").mkdir(parents=True)
        (staging / "train" / "1_1.tif").symlink_to("/dev/full")
        keep = archives._prune
        try:
            archives._prune = lambda *_: None
            with pytest.raises(NerveError, match=f"disk of {staging} became full: free some space.*again"):
                unpacked(path)
        finally:
            archives._prune = keep
        assert not (staging / "train" / "1_1.tif").is_symlink()

    def test_quota_and_permission(self, tmp_path: Path) -> None:
        with pytest.raises(NerveError, match="became full"), disk.explain_disk_errors(tmp_path):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        with (
            pytest.raises(NerveError, match=r"/x cannot be written .* permissions"),
            disk.explain_disk_errors(tmp_path),
        ):
            raise PermissionError(errno.EACCES, "Permission denied", "/x")
        with (
            pytest.raises(NerveError, match="choose another folder with --runs, and"),
            disk.explain_disk_errors(tmp_path, "--runs"),
        ):
            raise OSError(errno.ENOSPC, "No space left on device")
        with pytest.raises(OSError, match="odd"), disk.explain_disk_errors(tmp_path):
            raise OSError(errno.EIO, "odd")


def test_limits_outlast_the_clients_own_waits() -> None:
    """It waits 2 + 4 + 8 + 16 + 32 s and some between its tries."""
    assert Limits().stall > 70
    assert LIMITS.stall > 10
