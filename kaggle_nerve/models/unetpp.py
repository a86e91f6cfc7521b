"""U-Net++ (Zhou and others 2018, arXiv:1807.10165): a U-Net whose skips are themselves small decoders."""

import keras
from keras import layers

from kaggle_nerve.models import blocks, downward, heads, skips, unet
from kaggle_nerve.settings import ModelSettings


def build(size: tuple[int, int], settings: ModelSettings) -> keras.Model:
    """Build a U-Net++ for frames of ``size`` (height, width), with the inputs, outputs and options of ``unet.build``.

    As in the paper, the coarser masks of deep supervision come from the nodes of the finest resolution, last
    first. Hypercolumns read the last node of each resolution.
    """
    frames = keras.Input((*size, 1), name="frames")
    features = downward.features(frames, size, settings)
    nodes = decoder(features, settings)
    outputs = heads.outputs(
        nodes[0][-1],
        features.deepest,
        settings,
        features.margins,
        features.stem,
        deep=nodes[0][-2:0:-1],
        columns=[row[-1] for row in nodes[1:-1]],
    )
    return keras.Model(frames, outputs, name="unetpp")


def decoder(features: downward.Features, settings: ModelSettings) -> list[list[keras.KerasTensor]]:
    """Build the nodes of each resolution, finest first; a row starts with the encoder's features.

    The inputs of node ``step`` in a row are all previous nodes of the row, the encoder's through the skip
    connection of the settings, and node ``step - 1`` of the row below, enlarged.
    """
    depth = len(features.skips)
    channels = blocks.level_channels(settings, depth)
    nodes = [[skip_features] for skip_features in (*features.skips, features.bottom)]
    for step in range(1, depth + 1):
        for level in range(depth - step + 1):
            place = f"{level}_{step}"
            below = nodes[level + 1][step - 1]
            skip = skips.connection(nodes[level][0], below, settings, f"skip{place}")
            above = unet.enlarge(below, channels[level], settings, place)
            tensor = layers.Concatenate(name=f"join{place}")([skip, *nodes[level][1:], above])
            nodes[level].append(blocks.block(tensor, channels[level], settings, f"node{place}"))
    return nodes
