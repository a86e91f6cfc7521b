"""The page of a run: what it says, what it says when not all is there, and that it leads nowhere else."""

import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_support import command
from click.testing import CliRunner
from decision_support import COUNT, stored, write_run
from support import write_tiff

from kaggle_nerve.cli import cli
from kaggle_nerve.competition import rle
from kaggle_nerve.data.cache import training_source
from kaggle_nerve.data.frames import locate
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.report.gather import gather
from kaggle_nerve.report.page import render
from kaggle_nerve.runs import open_run
from kaggle_nerve.settings import load_preset, save_settings
from kaggle_nerve.storage import mark_complete, read_json, write_json
from kaggle_nerve.submissions.ledger import COLUMNS
from kaggle_nerve.training.logs import write_history

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def write_test_predictions(run: Path, frames: int = 6) -> None:
    """As the ensemble leaves them."""
    folder = run / "test"
    folder.mkdir()
    found, _ = stored(subjects=1, frames=frames)
    maps = found.parts[0][:frames]
    counts = np.stack([levels.histogram(levels.quantise(one.astype(np.float32))) for one in maps])
    arrays = {
        "probabilities": maps,
        "levels": counts,
        "fold_levels": COUNT * counts,
        "fold_presences": np.repeat(found.presences[:frames], COUNT, axis=1).astype(np.float32),
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    table = pd.DataFrame({"img": range(1, frames + 1), "presence": found.presence[:frames]})
    table.assign(agreement=1.0, spread=0.0).to_csv(folder / "index.csv", index=False)
    mark_complete(folder, {"key": "made", "source": "made", "folds": list(range(COUNT)), "frames": frames})


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("report")
    table = stored(subjects=6, frames=8)[1]
    (root / "data" / "train").mkdir(parents=True)
    table.to_csv(root / "data" / "train_masks.csv", index=False)
    random = np.random.default_rng(0)
    for row in table.itertuples():
        frame = random.integers(0, 90, (420, 580), np.uint8) + 120 * rle.decode(row.pixels)
        write_tiff(root / "data" / "train" / f"{row.subject}_{row.img}.tif", frame.astype(np.uint8))
    for img in range(1, 7):
        write_tiff(root / "data" / "test" / f"{img}.tif", random.integers(0, 200, (420, 580), np.uint8))
    run = root / "runs" / "one"
    write_run(run)
    write_json(
        run / "environment.json",
        {"kaggle_nerve": "0", "devices": ["cpu:0"], "backend": "jax", "versions": {"jax": "1"}},
    )
    source = training_source(locate(root / "data"))
    for fold in range(COUNT):
        rows = [{"epoch": at, "loss": 1 / at, "dice": None if at == 1 else 0.5 + at / 20} for at in (1, 2, 3)]
        write_history(rows, run / f"fold-{fold}" / "history.csv")
        (run / f"fold-{fold}" / "model.keras").touch()
        mark_complete(
            run / f"fold-{fold}",
            {"source": source, "settings": "of one", "dice": 0.7, "pixel_dice": 0.6, "seconds": 90.0},
        )
    write_test_predictions(run)
    gather(open_run(root / "runs", "one"), root / "data", root / "submissions")  # learns the decision once
    return root


@pytest.fixture
def root(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def page(root: Path) -> str:
    return render(gather(open_run(root / "runs", "one"), root / "data", root / "submissions"))


def write_ledger(root: Path, **values) -> None:
    row = dict.fromkeys(COLUMNS, "") | {"sha256": "0" * 64, "status": "complete", "tag": "t"} | values
    (root / "submissions").mkdir(exist_ok=True)
    pd.DataFrame([row]).to_csv(root / "submissions" / "ledger.csv", index=False)


def words(text: str) -> str:
    """What a page says, in one line."""
    return " ".join(Tags(text).text.split())


class Tags(HTMLParser):
    """Every element's name and attributes, and the text between them."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_a_page_has_its_figures_in_the_text_and_every_part(root):
    write_ledger(root, run="one", oof="0.7012", public="0.6612", private="0.6789", message="first")
    made = page(root)
    run = open_run(root / "runs", "one")
    figures = gather(run, root / "data", root / "submissions").oof.decision.figures
    text = Tags(made).text
    for number in (figures.dice, figures.low, figures.all_empty, figures.perfect_presence):
        assert f"{number:.4f}" in text
    for part in (
        "Learning curves",
        "Subjects",
        "ROC",
        "reliability",
        "confusion",
        "Dice by area",
        "Thresholds",
    ):
        assert part in text
    for part in ("Best", "Median", "Worst", "Test frames", "0.6612", "0.6789", "6 of 6 frames"):
        assert part in text
    assert "Not all is there" not in text
    assert page(root) == made


def test_data_that_is_not_kaggles_is_said(root):
    assert "rehearsal" not in page(root)
    write_json(root / "data" / ".fetch" / "source.json", {"source": "rehearsal", "slug": "x"})
    assert "The data came from a rehearsal, not from Kaggle" in page(root)
    write_json(root / "data" / "synthetic.json", {"synthetic": True})
    assert "The frames are computed" in page(root)


def test_other_data_than_the_runs_is_refused(root):
    path = root / "data" / "train_masks.csv"
    table = pd.read_csv(path, keep_default_na=False)
    table.assign(pixels=table.pixels.to_numpy()[::-1]).to_csv(path, index=False)
    with pytest.raises(NerveError, match="Run one was trained on other data than that in"):
        page(root)


def test_nothing_on_a_page_leads_elsewhere(root):
    for tag, attributes in Tags(page(root)).elements:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, name, value[:60])
        assert tag not in ("script", "iframe", "object", "embed", "link") or attributes.get("rel") == "icon"


def test_what_people_write_is_shown_and_not_run(root):
    write_ledger(root, run=EVIL, message=EVIL, oof="0.7")
    settings = load_preset("tiny", ["size=[42, 58]", f'description="{EVIL}"'])
    save_settings(settings, root / "runs" / "one" / "settings.toml")
    (root / "runs" / "one" / "fold-1" / "complete.json").unlink()
    (root / "runs" / "one" / "fold-1" / "worker.log").write_text(f"Traceback\nValueError: {EVIL}\n")
    found = Tags(page(root))
    assert not [tag for tag, attributes in found.elements if tag == "script" or "onerror" in attributes]
    assert found.text.count(EVIL) >= 4


def test_unfinished_and_failed_folds_are_said(root):
    run = root / "runs" / "one"
    (run / "fold-1" / "complete.json").unlink()
    (run / "fold-1" / "worker.log").write_text("Traceback (most recent call last)\nMemoryError: no more\n")
    shutil.rmtree(run / "fold-2")
    text = Tags(page(root)).text
    assert "Fold 1 is unfinished after 3 epochs; it failed with: MemoryError: no more." in text
    assert "Fold 2 is not begun." in text
    assert "The test predictions are older than the folds' models" in text
    assert "On 16 frames of 2 subjects" in text


def test_a_run_without_test_predictions_says_so(root):
    shutil.rmtree(root / "runs" / "one" / "test")
    text = Tags(page(root)).text
    assert "There are no test predictions" in text
    assert "Test frames" not in text


def test_a_run_without_a_finished_fold_has_a_page(root):
    for fold in range(COUNT):
        (root / "runs" / "one" / f"fold-{fold}" / "complete.json").unlink()
    text = Tags(page(root)).text
    assert "No fold is finished" in text
    assert "Learning curves" in text
    assert "ROC" not in text


def test_one_subject_has_a_page(root):
    """Its mean and both ends of its interval are one number, which rounding puts in another order."""
    fold = root / "runs" / "one" / "fold-0"
    for other in (1, 2):
        shutil.rmtree(fold.with_name(f"fold-{other}"))
    table, maps = pd.read_csv(fold / "oof.csv"), np.load(fold / "oof.npy")
    kept = (table.subject == 5).to_numpy()
    table[kept].to_csv(fold / "oof.csv", index=False)
    np.save(fold / "oof.npy", maps[kept])
    contents = gather(open_run(root / "runs", "one"), root / "data", root / "submissions")
    figures = contents.oof.decision.figures
    assert figures.low == pytest.approx(figures.dice, abs=1e-12)
    assert "On 8 frames of 1 subjects" in Tags(render(contents)).text


@pytest.mark.parametrize("present", [True, False])
def test_frames_of_one_kind_have_a_page_without_roc(root, present):
    for fold in (root / "runs" / "one").glob("fold-*"):
        table, maps = pd.read_csv(fold / "oof.csv"), np.load(fold / "oof.npy")
        kept = ((table.img % 2 == 0) == present).to_numpy()
        table[kept].to_csv(fold / "oof.csv", index=False)
        np.save(fold / "oof.npy", maps[kept])
    (root / "runs" / "one" / "decision.json").unlink()
    text = Tags(page(root)).text
    assert "On 24 frames of 6 subjects" in text
    assert "Dice by area" in text
    assert "ROC" not in text


@pytest.mark.parametrize("text", ["", "epoch,loss,dice\n"])
def test_a_history_without_an_epoch_is_none(root, text):
    (root / "runs" / "one" / "fold-1" / "history.csv").write_text(text)
    row = '<td>1</td><td class="number">2</td><td>finished</td>\n<td class="number">0</td>'
    assert row in page(root)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (("kaggle_nerve", "devices", "backend", "versions"), "work. kaggle-nerve 0 on cpu:0, jax 1."),
        (("kaggle_nerve", "backend"), "work. kaggle-nerve 0, jax of an unknown version."),
        (("devices", "versions"), "work on cpu:0."),
        ((), "work."),
    ],
)
def test_an_environment_with_less_in_it(root, kept, said):
    path = root / "runs" / "one" / "environment.json"
    told = read_json(path)
    write_json(path, {name: told[name] for name in kept})
    assert f"whole job {said}" in words(page(root))


def test_the_command_writes_the_page_into_the_runs_folder(root):
    done = command(root, "report", "--run", "one", "--data", "data")
    assert "The report is runs/one/report.html" in done.stdout
    assert (root / "runs" / "one" / "report.html").stat().st_size > 100_000


def test_a_page_is_an_html_file():
    done = CliRunner().invoke(cli, ["report", "--run", "one", "--out", "folder"])
    assert (done.exit_code, "--out folder must end in .html" in done.output) == (2, True)


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1180), ("dark", 1180), ("light", 390)])
def test_a_browser_shows_it_without_a_word_and_asks_for_nothing(root, chromium, tmp_path, scheme, width):
    path = tmp_path / "page.html"
    path.write_text(page(root), encoding="utf-8")
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    tab, said, asked = context.new_page(), [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda fault: said.append(str(fault)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    images = tab.evaluate("[...document.images].map(one => one.complete && one.naturalWidth > 0)")
    assert len(images) > 20
    assert all(images)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    paper, ink = tab.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (sum(_numbers(paper)) > sum(_numbers(ink))) == (scheme == "light")
    assert "Out-of-fold mean Dice" in tab.inner_text("body")
    context.close()


def _numbers(colour: str) -> list[int]:
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
