"""Describe a decision in words and tables."""

from kaggle_nerve.decision import blends, candidates
from kaggle_nerve.decision.decision import Decision, DefaultDecision
from kaggle_nerve.decision.figures import Row
from kaggle_nerve.decision.rule import Thresholds

TITLES = {"blends": "Blends", "rules": "Rules", "shapes": "Shapes"}
BASELINES = {"blends": blends.BASELINE, "rules": candidates.BASELINE, "shapes": "none"}


def summary(decision: Decision) -> str:
    """Describe the rule and its expected score."""
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
    """Format the comparison that the decision was chosen from, as tables."""
    tables = [
        f"{_heading(TITLES[kind])}\n" + "\n".join(_row(row, BASELINES[kind]) for row in rows) + "\n"
        for kind, rows in decision.comparison.items()
    ]
    by_method = decision.reliability["presence"]
    errors = ", ".join(f"{method} {reliability.error:.3f}" for method, reliability in by_method.items())
    return "\n".join(
        [
            *tables,
            f"Calibration error of presence: {errors}",
            f"{_choice_note(decision)} Differences are paired, from the baseline (the row with no difference).\n",
        ]
    )


def user_choices(decision: Decision) -> str:
    """List the choices that the user made, such as ``rule expected, shape none``."""
    return ", ".join(f"{kind} {name}" for kind, name in decision.user_choices.items())


def _choice_note(decision: Decision) -> str:
    if not decision.user_choices:
        return "* chosen: the simplest within noise of the best."
    return (
        f"* chosen: {user_choices(decision)} by hand (`kaggle-nerve tune --force` compares all again), else the "
        "simplest within noise of the best."
    )


def rule(decision: Decision | DefaultDecision) -> str:
    """Describe how frames get their masks."""
    learned = decision.learned.rule
    if isinstance(learned, Thresholds):
        confident = "" if learned.confident is None else f" (of probability {learned.confident:g} or more)"
        text = (
            f"pixel threshold {learned.threshold:g}, minimum area {learned.area} pixels{confident}, "
            f"presence threshold {learned.presence:g}"
        )
    else:
        text = "the mask with the largest expected Dice, where it is worth more than an empty one"
    sentence = f"Rule {decision.rule_name}: {text}"
    if decision.learned.classifier is not None:
        sentence += "; presence by the classifier"
    if decision.blend.method != "mean" or decision.blend.weights:
        sentence += f"; runs combined by {_blend(decision)}"
    if decision.shape != "none":
        sentence += f"; shape {decision.shape}"
    return (
        f"{sentence}; {', '.join(decision.user_choices)} chosen by hand"
        if decision.user_choices
        else sentence
    )


def _blend(decision: Decision | DefaultDecision) -> str:
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
