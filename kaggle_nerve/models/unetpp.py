"""U-Net++ (Zhou and others 2018, arXiv:1807.10165): a U-Net whose skips are themselves small decoders."""

import keras
from keras import layers

from kaggle_nerve.models import blocks, downward, heads, skips, unet
from kaggle_nerve.settings import ModelSettings


def build(size: tuple[int, int], settings: ModelSettings) -> keras.Model:
    """A U-Net++ for frames of ``size`` (height, width), with the inputs, outputs and options of ``unet.build``.

    The coarser masks of deep supervision are those of the paper: from the nodes of the finest
    resolution, the last first. Hypercolumns read the last node of each resolution.
    """
    frames = keras.Input((*size, 1), name="frames")
    found = downward.features(frames, size, settings)
    nodes = decoder(found, settings)
    outputs = heads.outputs(
        nodes[0][-1],
        found.deepest,
        settings,
        found.margins,
        found.stem,
        deep=nodes[0][-2:0:-1],
        columns=[row[-1] for row in nodes[1:-1]],
    )
    return keras.Model(frames, outputs, name="unetpp")


def decoder(found: downward.Features, settings: ModelSettings) -> list[list[keras.KerasTensor]]:
    """The nodes of each resolution, finest first; a row starts with the encoder's features.

    Node ``step`` of a row sees all nodes before it in its row, the encoder's through the skip that the
    settings want, and node ``step - 1`` of the row below, enlarged.
    """
    depth = len(found.skips)
    channels = blocks.level_channels(settings, depth)
    nodes = [[features] for features in (*found.skips, found.bottom)]
    for step in range(1, depth + 1):
        for level in range(depth - step + 1):
            place = f"{level}_{step}"
            below = nodes[level + 1][step - 1]
            skip = skips.connection(nodes[level][0], below, settings, f"skip{place}")
            above = unet.enlarged(below, channels[level], settings, place)
            tensor = layers.Concatenate(name=f"join{place}")([skip, *nodes[level][1:], above])
            nodes[level].append(blocks.block(tensor, channels[level], settings, f"node{place}"))
    return nodes
