"""Optimisers, loss weights and precision: a network made ready for training."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import keras

from kaggle_nerve import devices
from kaggle_nerve.models import registry
from kaggle_nerve.settings import LossSettings, Settings
from kaggle_nerve.training.losses import MaskLoss

SPARED = ["bias", "gamma", "beta"]
"""Names of weights without decay: it pulls convolutions towards 0; on biases and norms it only does harm."""


def compiled(settings: Settings, precision: str = "") -> keras.Model:
    """A new network of ``settings``, ready for training.

    ``precision``: the Keras dtype policy it is built under; '' takes what the settings say. The
    policy that was in force before is in force again afterwards.
    """
    precision = precision or chosen_precision(settings)
    with dtype_policy(precision):
        model = registry.build(settings)
    make_ready(model, settings, precision)
    return model


def untrained(settings: Settings, precision: str) -> keras.Model:
    """As `compiled`, but without reading pretrained weights: for a network whose weights come from elsewhere."""
    bare = dataclasses.replace(settings.model, weights="none")
    return compiled(dataclasses.replace(settings, model=bare), precision)


def make_ready(model: keras.Model, settings: Settings, precision: str) -> None:
    """Compile ``model`` with a fresh optimiser, whose variables exist from the start."""
    weights = loss_weights(model, settings.loss)
    losses = {
        name: keras.losses.BinaryCrossentropy(name="presence_loss", dtype="float32")
        if name == "presence"
        else MaskLoss.of(settings.loss)
        for name in weights
    }
    made = optimiser(settings, precision)
    model.compile(
        optimizer=made,
        loss=losses,
        loss_weights=weights,
        jit_compile=settings.training.jit_compile,
        auto_scale_loss=False,
    )
    # Built late, its variables would escape whoever stores or restores them before the first step.
    made.build(model.trainable_variables)


def loss_weights(model: keras.Model, settings: LossSettings) -> dict[str, float]:
    """The weight of each output: ``mask`` 1, ``mask_k`` of deep supervision deep**k, ``presence`` its own."""
    weights = {}
    for name in model.output:
        if name == "presence":
            weights[name] = settings.presence
        else:
            weights[name] = settings.deep ** int(name.removeprefix("mask").removeprefix("_") or 0)
    return weights


def optimiser(settings: Settings, precision: str) -> keras.optimizers.Optimizer:
    """The optimiser of ``settings``; under ``mixed_float16`` with a loss scale that keeps small gradients.

    The exponential mean of ``training.average=ema`` is the optimiser's own, taken within the compiled
    step.
    """
    chosen, training = settings.optimiser, settings.training
    options = {
        "learning_rate": chosen.learning_rate,
        "global_clipnorm": chosen.clip_norm or None,
        "use_ema": training.average == "ema",
        "ema_momentum": training.ema_decay,
    }
    if chosen.name == "adam":
        made = keras.optimizers.Adam(**options)
    else:
        options["weight_decay"] = chosen.weight_decay
        if chosen.name == "adamw":
            made = keras.optimizers.AdamW(**options)
        else:
            made = keras.optimizers.SGD(momentum=chosen.momentum, nesterov=chosen.momentum > 0, **options)
        made.exclude_from_weight_decay(var_names=SPARED)
    return keras.optimizers.LossScaleOptimizer(made) if precision == "mixed_float16" else made


def chosen_precision(settings: Settings) -> str:
    """``training.precision``; ``auto`` asks the device."""
    chosen = settings.training.precision
    return devices.preferred_precision() if chosen == "auto" else chosen


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Layers made within have the dtype policy ``name``."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
