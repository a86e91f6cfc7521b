"""One network that averages the outputs of several copies of another (``training.average=snapshots``)."""

import keras
from keras import layers

NAME = "snapshots"


def combine(model: keras.Model, count: int) -> keras.Model:
    """Build a network of ``count`` copies of ``model``, named as `member_name`, with new weights."""
    frames = keras.Input(model.input_shape[1:], name="frames")
    outputs: dict[str, list[keras.KerasTensor]] = {name: [] for name in model.output}
    for number in range(count):
        member = type(model).from_config({**model.get_config(), "name": member_name(number)})
        for name, values in member(frames).items():
            outputs[name].append(values)
    means = {name: layers.Average(dtype="float32", name=name)(values) for name, values in outputs.items()}
    return keras.Model(frames, means, name=NAME)


def member_name(number: int) -> str:
    """Return the name of copy ``number``, from 0."""
    return f"snapshot{number}"
