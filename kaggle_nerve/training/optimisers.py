"""Optimisers, loss weights and precision: compile a network for training."""

import keras
import numpy as np

from kaggle_nerve import devices
from kaggle_nerve.models import registry
from kaggle_nerve.settings import LossSettings, Settings
from kaggle_nerve.training.losses import MaskLoss

NO_DECAY = ["bias", "gamma", "beta"]
"""Names of weights without weight decay: biases and normalisation parameters."""


def build_compiled(settings: Settings, precision: str = "") -> keras.Model:
    """Build a new network from ``settings`` and compile it for training.

    ``precision``: the Keras dtype policy to build it under; '' means that of the settings. The global
    policy is restored afterwards.
    """
    precision = precision or resolve_precision(settings)
    model = registry.build(settings, precision)
    compile_for_training(model, settings, precision)
    return model


def build_without_pretrained(settings: Settings, precision: str) -> keras.Model:
    """Build and compile a new network without pretrained weights: its weights come from elsewhere."""
    return build_compiled(registry.without_pretrained(settings), precision)


def compile_for_training(model: keras.Model, settings: Settings, precision: str) -> None:
    """Compile ``model`` with a new optimiser, and create all variables that a training step needs."""
    weights = loss_weights(model, settings.loss)
    losses = {
        name: keras.losses.BinaryCrossentropy(name="presence_loss", dtype="float32")
        if name == "presence"
        else MaskLoss.from_settings(settings.loss)
        for name in weights
    }
    built = optimiser(settings, precision)
    model.compile(
        optimizer=built,
        loss=losses,
        loss_weights=weights,
        jit_compile=settings.training.jit_compile,
        auto_scale_loss=False,
    )
    # Build now, so that its variables can be stored or restored before the first step.
    built.build(model.trainable_variables)
    # Compute a loss once now: Keras creates its metric variables then, and creating them in the first step would make
    # TensorFlow trace that step twice.
    some = {name: np.zeros((1, *output.shape[1:]), np.float32) for name, output in model.output.items()}
    model.compute_loss(y=some, y_pred=some)


def loss_weights(model: keras.Model, settings: LossSettings) -> dict[str, float]:
    """Return each output's loss weight.

    It is 1 for ``mask``, ``deep ** k`` for the deep-supervision output ``mask_k``, and ``loss.presence`` for
    ``presence``.
    """
    weights = {}
    for name in model.output:
        if name == "presence":
            weights[name] = settings.presence
        else:
            weights[name] = settings.deep ** int(name.removeprefix("mask").removeprefix("_") or 0)
    return weights


def optimiser(settings: Settings, precision: str) -> keras.optimizers.Optimizer:
    """Build the optimiser of ``settings``, with loss scaling under ``mixed_float16``.

    The exponential mean for ``training.average=ema`` is the optimiser's own, updated within the compiled
    step.
    """
    optimiser_settings, training = settings.optimiser, settings.training
    options = {
        "learning_rate": optimiser_settings.learning_rate,
        "global_clipnorm": optimiser_settings.clip_norm or None,
        "use_ema": training.average == "ema",
        "ema_momentum": training.ema_decay,
    }
    if optimiser_settings.name == "adam":
        built = keras.optimizers.Adam(**options)
    else:
        options["weight_decay"] = optimiser_settings.weight_decay
        if optimiser_settings.name == "adamw":
            built = keras.optimizers.AdamW(**options)
        else:
            built = keras.optimizers.SGD(
                momentum=optimiser_settings.momentum, nesterov=optimiser_settings.momentum > 0, **options
            )
        built.exclude_from_weight_decay(var_names=NO_DECAY)
    return keras.optimizers.LossScaleOptimizer(built) if precision == "mixed_float16" else built


def resolve_precision(settings: Settings) -> str:
    """Return ``training.precision``, or for ``auto`` the device's preferred precision."""
    precision = settings.training.precision
    return devices.preferred_precision() if precision == "auto" else precision
