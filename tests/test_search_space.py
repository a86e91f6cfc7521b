"""Search spaces: what a file may say, and preset files to train from."""

from pathlib import Path

import pytest
from cli_support import command

from kaggle_nerve.errors import NerveError
from kaggle_nerve.notebooks.pushing import prepare_kernel
from kaggle_nerve.search.space import Choices, Range, load_space, parse_space
from kaggle_nerve.settings import apply_changes, default_name, load_preset, save_settings


def test_a_space_has_ranges_and_choices():
    space = parse_space(
        """
        size = [[48, 64], [96, 128]]
        "training.batch" = [8, 16]
        [optimiser]
        learning_rate = {low = 1e-4, high = 1e-2, log = true}
        [model]
        depth = {low = 3, high = 5}
        width = {low = 8, high = 32, step = 8}
        scse = [true, false]
        """,
        "mine.toml",
    )
    assert space.parts == {
        "size": Choices(((48, 64), (96, 128))),
        "training.batch": Choices((8, 16)),
        "optimiser.learning_rate": Range(1e-4, 1e-2, log=True),
        "model.depth": Range(3, 5, is_integer=True),
        "model.width": Range(8, 32, step=8, is_integer=True),
        "model.scse": Choices((True, False)),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("size = ", "mine.toml is not valid TOML: "),
        ("", "mine.toml names no setting to search; write for example optimiser.learning_rate = "),
        ("training.bach = [8, 16]", "there is no key 'training.bach' (did you mean 'training.batch'?)."),
        ("optimiser.rate = {low = 1, high = 2}", "there is no key 'optimiser.rate'"),
        ("training.batch = [8, 9999]", "training.batch = 9999 must lie between 1 and 4096."),
        ("training.batch = [8, 16, 8]", "training.batch = [8, 16, 8] has a choice twice; name each once."),
        ("training.batch = 8", "training.batch = 8 is one value; write choices as [a, b], or {low = a, high = b}."),
        ("size = [96, 128]", "size = 96 must be [height, width]."),
        ("model.block = ['plain', 'dense']", "model.block = 'dense' must be one of plain, residual, inception."),
        ("model.block = {low = 1, high = 2}", "model.block is not a number; write its choices as a list."),
        ("model.depth = {low = 3, high = 5.5}", "model.depth = 5.5 must be a whole number."),
        ("model.depth = {low = 3, high = 9}", "model.depth = 9 must lie between 1 and 6."),
        ("model.depth = {low = 3}", "model.depth needs both low and high."),
        ("model.depth = {low = 5, high = 3}", "has low = 5 and high = 3; low must be the smaller one."),
        ("model.depth = {low = 3, high = 5, by = 1}", "model.depth has 'by', but a range has low, high,"),
        ("model.width = {low = 8, high = 64, step = 0.5}", "has step = 0.5; write a whole number above 0."),
        ("loss.dice = {low = 0, high = 1, log = true}", "has log = true and low = 0.0; a ratio needs a low above 0."),
        ("loss.dice = {low = 1, high = 2, log = 1}", "loss.dice has log = 1; write true or false."),
        ("loss.dice = {low = 1, high = 2, log = true, step = 1}", "has both step and log; leave out one"),
        ("seed = [1, 2]", "seed cannot be searched, since it only changes chance, and with it the held-out patients"),
        ("folds = ['3', '5']", "folds cannot be searched, since it decides which patients are held out"),
        ("prediction.tta = ['none', 'hflip']", "prediction.tta cannot be searched, since it needs no training"),
        ("training.start = ['a', 'b']", "training.start cannot be searched"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_the_file(text, sentence):
    with pytest.raises(NerveError) as caught:
        parse_space(text, "mine.toml")
    assert str(caught.value).startswith("mine.toml")
    assert sentence in str(caught.value)


def test_parameters_of_a_study_become_settings_and_back():
    space = parse_space("size = [[48, 64], [96, 128]]\nmodel.depth = {low = 2, high = 4}", "mine.toml")
    assert space.encode(load_preset("tiny")) == {"size": "[96, 128]", "model.depth": 3}
    changed = space.apply(load_preset("tiny"), {"size": "[48, 64]", "model.depth": 4})
    assert changed == apply_changes(load_preset("tiny"), ("size=[48, 64]", "model.depth=4"))
    with pytest.raises(NerveError, match=r"mine\.toml: every loss of the mask has weight 0"):
        parse_space("loss.bce = [0, 1]", "mine.toml").apply(
            apply_changes(load_preset("tiny"), ("loss.dice=0",)), {"loss.bce": 0.0}
        )


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("model.depth = {low = 3, high = 4}", True),
        ("model.depth = {low = 4, high = 5}", False),
        ("model.width = {low = 4, high = 16, step = 4}", True),
        ("model.width = {low = 5, high = 17, step = 4}", False),
        ("optimiser.learning_rate = {low = 1e-3, high = 5e-3, step = 1e-3}", True),
        ("training.batch = [8, 32]", False),
    ],
)
def test_whether_a_preset_lies_within(text, inside):
    """Preset tiny: depth 3, width 8, learning rate 3e-3, batch 16."""
    assert (parse_space(text, "mine.toml").encode(load_preset("tiny")) is not None) == inside


def test_the_default_space_has_the_presets_that_most_start_from():
    space = load_space(None)
    for name in ("tiny", "small", "default"):
        assert space.encode(load_preset(name)), name


def test_labels_are_short_where_that_is_clear():
    space = parse_space("training.batch = [8, 16]\nloss.dice = [1, 2]\nloss.batch_dice = [0, 1]", "mine.toml")
    assert [space.label(key) for key in space.parts] == ["batch", "dice", "batch_dice"]
    both = parse_space("augmentation.noise = [0, 0.1]\ntraining.noise = ['none', 'soft']", "mine.toml")
    assert [both.label(key) for key in both.parts] == ["augmentation.noise", "training.noise"]


def test_a_missing_or_binary_space_is_named(tmp_path):
    with pytest.raises(NerveError, match=r"none\.toml cannot be read \(No such file"):
        load_space(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(NerveError, match=r"bad\.toml is not UTF-8 text, as TOML is"):
        load_space(tmp_path / "bad.toml")


@pytest.fixture
def best(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "search-tiny"
    folder.mkdir(parents=True)
    save_settings(load_preset("tiny", ("description=mine", "training.batch=8")), folder / "best.toml")
    return folder / "best.toml"


def test_a_preset_may_be_a_file(best):
    settings = load_preset(str(best), ("training.epochs=3",))
    assert (settings.training.batch, settings.training.epochs, settings.description) == (8, 3, "mine")
    assert default_name(str(best), load_preset(str(best))) == "best"
    assert default_name(str(best), settings) == f"best-{settings.digest()[:6]}"


def test_a_missing_preset_file_is_named(best):
    with pytest.raises(
        NerveError, match=r"other\.toml cannot be read \(No such file or directory\); name an existing"
    ):
        load_preset("other.toml")
    with pytest.raises(NerveError, match="runs/search-tiny cannot be read"):
        load_preset(str(best.parent))


def test_presets_shows_a_file(best, tmp_path):
    shown = command(tmp_path, "presets", "runs/search-tiny/best.toml").stdout
    assert 'description = "mine"' in shown
    assert "batch = 8" in shown


def test_a_kernel_cannot_have_a_file_of_this_machine(tmp_path):
    with pytest.raises(NerveError, match="a file of this machine, which a session on Kaggle does not have"):
        prepare_kernel("nerve-train-folds", "me", tmp_path, settings={"PRESET": "runs/search-tiny/best.toml"})
