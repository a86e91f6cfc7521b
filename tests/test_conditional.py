"""Maps that say P(pixel in the mask | there is a mask), learned where losses pass over frames without one."""

from dataclasses import replace

import decision_support
import numpy as np
import pytest
from decision_support import stored

from kaggle_nerve.competition import rle
from kaggle_nerve.decision import blends, candidates
from kaggle_nerve.decision import tune as tuning
from kaggle_nerve.decision.decision import default_decision
from kaggle_nerve.decision.evidence import measure_frame, stack_evidence
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps.fullsize import Truths, enlarge
from kaggle_nerve.prediction import stored as predictions
from kaggle_nerve.prediction.stored import Blend, open_oof
from kaggle_nerve.runs import open_run
from kaggle_nerve.settings import Settings, apply_changes, load_settings, save_settings
from kaggle_nerve.training.logs import Overlays
from kaggle_nerve.training.losses import MaskLoss
from kaggle_nerve.training.validation import score_epoch

SIZE = (42, 58)


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Truths and probabilities of three images of 5x7 pixels; the second has no mask."""
    random = np.random.default_rng(0)
    truth = (random.random((3, 5, 7, 1)) < 0.4).astype(np.float32)
    truth[1] = 0
    return truth, random.uniform(0.05, 0.95, truth.shape).astype(np.float32)


@pytest.mark.parametrize("empty", [0.0, 0.25])
@pytest.mark.parametrize("loss", ["dice", "bce", "focal", "tversky", "focal_tversky", "lovasz"])
def test_a_frame_without_a_mask_counts_what_the_setting_says(loss, empty):
    truth, guess = batch()
    weights = {"dice": 0.0, "bce": 0.0, loss: 2.0}
    plain = np.asarray(MaskLoss(**weights).call(truth, guess))
    found = np.asarray(MaskLoss(**weights, empty_frames=empty).call(truth, guess))
    np.testing.assert_allclose(found, plain * [1, empty, 1], rtol=1e-6)
    assert plain[1] > 0


def test_the_dice_of_a_batch_leaves_out_the_pixels_of_such_frames():
    truth, guess = batch()
    there = [0, 2]
    wanted = 1 - (2 * (truth * guess)[there].sum() + 3) / (truth[there].sum() + guess[there].sum() + 3)
    found = MaskLoss(dice=0, bce=0, batch_dice=1, smooth=3, empty_frames=0).call(truth, guess)
    np.testing.assert_allclose(found, [wanted] * 3, rtol=1e-6)


def test_the_loss_of_empty_frames_alone_is_0_and_its_slope_is_a_number():
    truth, guess = np.zeros((2, 5, 7, 1), np.float32), np.full((2, 5, 7, 1), 0.5, np.float32)
    everything = {"dice": 1, "bce": 1, "focal": 1, "tversky": 1, "focal_tversky": 1, "lovasz": 1}
    loss = MaskLoss(**everything, empty_frames=0)
    assert float(loss(truth, guess)) == 0
    assert MaskLoss.from_config(loss.get_config()).empty_frames == 0


@pytest.mark.parametrize("change", ["model.presence=false", "loss.presence=0"])
def test_without_a_presence_nothing_would_say_which_frames_are_empty(change):
    with pytest.raises(NerveError, match=r"empty_frames = 0 leaves it to the presence head"):
        apply_changes(Settings(), ("loss.empty_frames=0", change))
    apply_changes(Settings(), ("loss.empty_frames=0.01", change))


def test_rules_without_a_presence_are_not_offered():
    names = [one.name for one in candidates.candidates_for(conditional=True)]
    assert names == ["thresholds", "triplet", "classifier", "expected"]
    assert [one.name for one in candidates.candidates_for(conditional=False)][:2] == ["fixed", "area"]
    found, table = stored()
    found = replace(found, conditional=(True,))
    decision = tuning.tune(found, table)
    assert [row.name for row in decision.comparison["rules"]] == names
    with pytest.raises(NerveError, match="There is no rule 'area' here; there are thresholds"):
        tuning.tune(found, table, user_choices={"rule": "area"})


def test_the_rule_that_was_never_taught_asks_for_the_presence():
    found, _ = stored()
    sure, unsure = (replace(found, presences=np.full((len(found), 1), value)) for value in (0.6, 0.4))
    for conditional, kept in ((False, [True, True]), (True, [True, False])):
        learned = default_decision(conditional).learned
        for each, keeps in zip((sure, unsure), kept, strict=True):
            # Row 1 has a map with a large mask.
            evidence = stack_evidence([measure_frame(each, 1)[1]])
            assert bool(learned.rule.keeps_mask(evidence, learned.presence(evidence))[0]) == keeps


def test_maps_of_both_kinds_are_blended_as_conditional_ones():
    joint, _ = stored()
    conditional = replace(joint, conditional=(True,), names=("other",))
    presences = np.full((len(joint), 1), 0.8)
    presences[3] = 0.01
    both = predictions.blend([replace(joint, presences=presences), conditional])
    assert both.conditional == (False, True)
    assert both.is_conditional
    alone = enlarge(joint.parts[0][1])
    members = both.members(1)
    np.testing.assert_allclose(members[0], np.minimum(alone / 0.8, 1), rtol=1e-6)
    np.testing.assert_array_equal(members[1], alone)
    np.testing.assert_allclose(both.full(1), (members[0] + members[1]) / 2, rtol=1e-6)
    # A presence of nearly 0 does not make a mask of noise.
    np.testing.assert_allclose(both.members(3)[0], np.minimum(enlarge(joint.parts[0][3]) / 0.1, 1), rtol=1e-6)
    # Two of one kind stay as they are.
    same = predictions.blend([joint, replace(joint, names=("other",))])
    np.testing.assert_array_equal(same.members(1)[0], alone)


def test_weights_of_conditional_maps_are_fitted_where_there_is_a_mask():
    good, table = stored(shift=0, name="good")
    wild, _ = stored(shift=3, name="wild")
    maps = np.array(good.parts[0])
    # Right where there is a mask, and drawing one on every other frame: what a conditional map may do.
    maps[0::2] = 0.95
    both = predictions.blend([replace(good, parts=(maps,)), wild])
    truths = Truths(list(table.pixels))

    def weights(found) -> Blend:
        return next(method for method in blends.methods(found, truths) if method.name == "weights").final

    assert weights(both).weights[0] < 0.5
    assert weights(replace(both, conditional=(True, True))).weights[0] > 0.9


def test_a_run_s_settings_say_which_kind_its_maps_are(tmp_path):
    decision_support.write_run(tmp_path / "made")
    settings_file = tmp_path / "made" / "settings.toml"
    assert not open_oof(open_run(tmp_path, "made")).is_conditional
    save_settings(apply_changes(load_settings(settings_file), ("loss.empty_frames=0",)), settings_file)
    assert open_oof(open_run(tmp_path, "made")).is_conditional


class Network:
    """Draws the same square on every frame; its presence is the frame's first pixel."""

    def predict_on_batch(self, chunk):
        masks = np.zeros_like(chunk)
        masks[:, 10:20, 10:30] = 0.9
        return {"mask": masks, "presence": chunk[:, 0, 0] / 255}


def test_pixel_figures_of_conditional_maps_are_those_of_frames_that_are_called_present():
    truth = np.zeros(SIZE, np.uint8)
    truth[10:20, 10:30] = 1
    frames = np.zeros((3, *SIZE), np.uint8)
    frames[0, 0, 0] = 255
    truths = Truths([rle.encode(truth), "", ""], SIZE)
    joint = score_epoch(Network(), frames, truths, batch=2)
    conditional = score_epoch(Network(), frames, truths, batch=2, conditional=True)
    assert joint.pixel_dice == pytest.approx(2 * 200 / (200 + 600))
    assert conditional.pixel_dice == 1
    assert conditional.dice == joint.dice == 1
    assert conditional.present_dice == joint.present_dice == 1


def test_the_board_s_pictures_say_what_the_outline_is():
    frame = np.zeros((1, *SIZE), np.uint8)
    probability = np.zeros(SIZE, np.float32)
    probability[10:20, 10:30] = 1
    pictures = []
    for conditional in (False, True):
        overlays = Overlays(frame, Truths([""], SIZE), ["1_1"], conditional)
        overlays.draw(0, probability, 0.25)
        pictures.append(overlays.pop_pictures()["1_1"])
    # The caption of one has more words.
    assert not np.array_equal(*pictures)
