"""Open a trained network with any version of Keras: build it from its settings, and load its weights by name."""

import json
from typing import Any, get_args

import keras

from kaggle_nerve.errors import NerveError
from kaggle_nerve.models import registry, snapshots
from kaggle_nerve.models.model_file import ModelFile, load_matching
from kaggle_nerve.settings import Settings
from kaggle_nerve.settings.schema import Precision


def open_model(file: ModelFile, settings: Settings) -> keras.Model:
    """Open the .keras ``file`` of a network that was trained with ``settings``, in any version of Keras.

    A network that is not exactly the one of ``settings``, because its run was changed by hand or by another program,
    is left to Keras, which opens it in the version that wrote it. The model is not compiled. Raise NerveError if Keras
    cannot open it.
    """
    return _build(file, settings) or _open_whole(file)


def _build(file: ModelFile, settings: Settings) -> keras.Model | None:
    """Build the network of ``settings`` with the weights in ``file``; None if the file describes another network."""
    try:
        model = registry.build(registry.without_pretrained(settings), _precision(file))
    except NerveError:  # the settings of a run from elsewhere
        return None
    if members := _count_members(file):
        model = snapshots.combine(model, members)
    own = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    same = _agree(_number_layers(own["config"]), _number_layers(file.config.get("config")))
    return model if same and load_matching(model, file).is_exact else None


def _open_whole(file: ModelFile) -> keras.Model:
    try:
        return keras.saving.load_model(file.path, compile=False)
    except Exception as fault:  # Keras raises whatever the code that it cannot use raises
        writer, version = file.keras_version, keras.__version__
        install = f"`pip install keras=={writer}`, or " if writer and writer != version else ""
        raise NerveError(
            f"{file.path}, written by Keras {writer or '(no version)'}, is not the network of its run's settings, and "
            f"Keras {version} cannot open it: {install}use the kaggle-nerve that trained it."
        ) from fault


def _precision(file: ModelFile) -> str:
    """Return the dtype policy under which the network was built."""
    text = json.dumps(file.config.get("config"))
    mixed = (name for name in get_args(Precision) if name.startswith("mixed"))
    return next((name for name in mixed if f'"{name}"' in text), "float32")


def _count_members(file: ModelFile) -> int:
    """Return how many copies an ensemble of snapshots has; 0 for any other network."""
    config = file.config.get("config") or {}
    if config.get("name") != snapshots.NAME:
        return 0
    names = {layer.get("name") for layer in config.get("layers", [])}
    return next(number for number in range(len(names) + 1) if snapshots.member_name(number) not in names)


def _number_layers(config: Any, places: dict[str, str] | None = None) -> Any:
    """Replace layers' names in a description by their places.

    The names that Keras gives to layers without a name depend on what it built before.
    """
    places = places or {}
    if isinstance(config, dict):
        layers = config.get("layers")
        if isinstance(layers, list):
            names = [layer.get("config", {}).get("name") for layer in layers]
            places = places | {name: f"layer {place}" for place, name in enumerate(names)}
        return {key: _number_layers(value, places) for key, value in config.items()}
    if isinstance(config, list):
        return [_number_layers(value, places) for value in config]
    return places.get(config, config) if isinstance(config, str) else config


def _agree(one: Any, other: Any) -> bool:
    """Return whether two descriptions are the same, except for entries that only one version of Keras writes."""
    if isinstance(one, dict) and isinstance(other, dict):
        common = (one.keys() & other.keys()) - {"shared_object_id"}
        return all(_agree(one[key], other[key]) for key in common)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_agree, one, other))
    return one == other
