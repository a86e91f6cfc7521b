import json

import pytest

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import apply_changes, dump, load_preset, parse, preset_names
from kaggle_nerve.settings.schema import LATER
from kaggle_nerve.storage import digest_text


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_reads_back_from_what_it_writes(name):
    settings = load_preset(name)
    assert parse(dump(settings), "again") == settings


def test_the_promised_presets_are_there():
    assert {"tiny", "small", "default", "unet-64x80", "unet-96"} <= set(preset_names())
    parent = load_preset("unet-96")
    assert (parent.size, parent.training.epochs, parent.optimiser.name) == ((96, 96), 60, "adam")
    assert (parent.optimiser.learning_rate, parent.loss.dice, parent.loss.bce) == (1e-5, 1.0, 0.0)
    other = load_preset("unet-64x80")
    assert (other.size, other.folds, other.model.normalise) == ((64, 80), "42/5", "unit")


def test_changes_reach_their_section():
    settings = load_preset("tiny", ("training.epochs=3", "size=[50, 61]", "optimiser.name=adam", "folds=4"))
    assert (settings.training.epochs, settings.size, settings.optimiser.name) == (3, (50, 61), "adam")
    assert settings.folds == "4"
    assert settings.digest() != load_preset("tiny").digest()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("trainig.epochs=3", "did you mean 'training.epochs'"),
        ("epochs=3", "did you mean 'training.epochs'"),
        ("training.epochs=0", "between 1 and 10000"),
        ("training.epochs=many", "must be a whole number"),
        ("model.batch_norm=1", "must be true or false"),
        ("model.architecture=resnet", "must be one of unet"),
        ("size=[3]", "must be [height, width]"),
        ("size=[4, 400]", "from 8 to 4096"),
        ("folds=1", "a number from 2"),
        ("loss.dice", "has no '='"),
    ],
)
def test_a_bad_change_is_named(change, said):
    with pytest.raises(NerveError) as caught:
        load_preset("tiny", (change,))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("loss.dice=0", "loss.bce=0"), "every loss of the mask has weight 0"),
        (("loss.tversky=1", "loss.tversky_alpha=0", "loss.tversky_beta=0"), "are both 0"),
        (("model.architecture=fpn",), "needs an encoder"),
        (("model.architecture=segnet", "model.encoder=resnet50"), "set model.encoder=none"),
        (("model.weights=imagenet",), "name it in model.encoder"),
        (("training.warm_size=[4, 40]",), "or [0, 0] for none"),
        (("training.average=snapshots",), "set optimiser.schedule=cyclic"),
        (("training.noise=weight",), "set both or neither"),
        (
            ("training.noise=soft", "training.noise_table=a.csv", "model.presence=false"),
            "softens the presence",
        ),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(changes, said):
    with pytest.raises(NerveError) as caught:
        apply_changes(load_preset("tiny"), changes)
    assert said in str(caught.value)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(NerveError, match="did you mean 'small'"):
        load_preset("smal")


def test_broken_toml_is_named():
    with pytest.raises(NerveError, match=r"mine\.toml is not valid TOML"):
        parse("size = [", "mine.toml")


def test_the_description_does_not_change_what_a_run_is():
    assert apply_changes(load_preset("tiny"), ("description=other",)).digest() == load_preset("tiny").digest()


def test_a_younger_key_leaves_the_digests_of_older_runs_as_they_were():
    settings = apply_changes(load_preset("tiny"), ("augmentation.sharpness=0",))
    older = {
        key: value for key, value in settings.flat().items() if key != "description" and key not in LATER
    }
    assert settings.digest() == digest_text(json.dumps(older, sort_keys=True))
    for change in ("prediction.combine=logits", "loss.empty_frames=0.5"):
        assert apply_changes(settings, (change,)).digest() != settings.digest()


@pytest.mark.parametrize("change", ["augmentation.vflip=0.5", "prediction.tta=flips"])
def test_a_window_above_the_middle_goes_with_nothing_upside_down(change):
    with pytest.raises(NerveError, match=r"model\.window = 0\.8 leaves out more below than above"):
        apply_changes(load_preset("tiny"), ("model.window=0.8", change))
    apply_changes(load_preset("tiny"), (change,))
