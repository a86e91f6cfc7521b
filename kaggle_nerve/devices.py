"""What computes: accelerators, the precision that suits them, determinism, memory.

The one module that asks TensorFlow or JAX themselves, since Keras has no word for these things. Both
are imported within the functions: to import one takes seconds, and to wake its devices takes memory
that another process may need.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PATIENCE = 120.0
"""Seconds that a driver may take to list its devices."""

SHARED = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Lets several processes use one accelerator: TensorFlow and JAX would else take all of its memory."""

DETERMINISTIC_XLA = "--xla_gpu_deterministic_ops=true"

_LIST = "import json, keras; print(json.dumps(keras.distribution.list_devices()))"


@functools.cache
def visible() -> tuple[str, ...]:
    """The GPUs that this session may use, by the backend's names for them, such as ``gpu:0``.

    A short process of its own asks the backend, since whoever lists devices takes their memory. That
    takes seconds, so nobody asks where there is no driver, or CUDA_VISIBLE_DEVICES hides every GPU.
    """
    if not _device_files() or _named() == []:
        return ()
    try:
        told = subprocess.run(
            [sys.executable, "-c", _LIST],
            env={**os.environ, **SHARED},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        names = json.loads(told.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        # Whoever computes in this process will meet the fault, and the backend's own words for it.
        return ()
    return tuple(name for name in names if name.split(":")[0].lower() in ("gpu", "cuda"))


def several() -> tuple[str, ...]:
    """The GPUs where more than one is visible, else none. Takes no time where there cannot be two."""
    named = _named()
    most = len(_device_files()) if named is None else len(named)
    return visible() if most > 1 and len(visible()) > 1 else ()


def environment_for(slot: int, jobs: int, gpus: int) -> dict[str, str]:
    """Environment variables of process number ``slot`` (from 0) of ``jobs`` that compute side by side.

    With ``gpus`` visible ones each process sees one of them, and shares it where there are more
    processes. Without, each gets its share of the processor's cores.
    """
    if gpus:
        index = slot % gpus
        named = _named()
        own = {"CUDA_VISIBLE_DEVICES": str(index) if named is None else named[index]}
        return own | SHARED if jobs > gpus else own
    if jobs == 1:
        return {}
    threads = str(max(1, _cores() // jobs))
    # NPROC is what XLA's processor client goes by, for JAX.
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "NPROC")
    return dict.fromkeys(names, threads)


def preferred_precision() -> str:
    """The Keras dtype policy that suits this process's device.

    ``mixed_bfloat16`` on TPUs and from compute capability 8.0, where bfloat16 is as fast as float16 and
    needs no loss scale; ``mixed_float16`` on 7.x, the first with tensor cores; else ``float32``: on a
    processor bfloat16 was measured to be many times slower.
    """
    kind, capability = _device()
    return precision_of(kind, capability)


def precision_of(kind: str, capability: tuple[int, int] | None) -> str:
    """As `preferred_precision`, of a device of ``kind`` (``cpu``, ``gpu``, ``tpu``) and compute capability."""
    if kind == "tpu" or (kind == "gpu" and capability is not None and capability >= (8, 0)):
        return "mixed_bfloat16"
    if kind == "gpu" and capability is not None and capability >= (7, 0):
        return "mixed_float16"
    return "float32"


def make_deterministic() -> None:
    """Make the backend compute the same again from the same seeds, for the rest of this process.

    TensorFlow is told so; JAX on a GPU goes by a flag of XLA that counts only before the device is
    first used, and its processor needs none. Seeds are the caller's matter.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    else:
        os.environ.update(deterministic_environment(os.environ))


def deterministic_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What has to be in the environment of a deterministic process, from its start: XLA's flags."""
    flags = environment.get("XLA_FLAGS", "").split()
    return {"XLA_FLAGS": " ".join(flags if DETERMINISTIC_XLA in flags else [*flags, DETERMINISTIC_XLA])}


def names() -> list[str]:
    """This process's devices, by the backend's names. Wakes them."""
    import keras

    return keras.distribution.list_devices()


def peak_memory() -> int | None:
    """The most bytes that were in use on this process's first accelerator; None where nobody counts."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            return None
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    if keras.backend.backend() == "jax":
        import jax

        peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        return None if peak is None else int(peak)
    return None


def _device() -> tuple[str, tuple[int, int] | None]:
    """Kind and compute capability of this process's first device."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        if not found:
            return "cpu", None
        return "gpu", tf.config.experimental.get_device_details(found[0]).get("compute_capability")
    if keras.backend.backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        told = getattr(device, "compute_capability", None)
        major, _, minor = told.partition(".") if isinstance(told, str) else ("", "", "")
        numbers = (int(major), int(minor)) if major else None
        return "gpu" if device.platform in ("gpu", "cuda") else device.platform, numbers
    return "cpu", None


def _device_files() -> list[Path]:
    """One file for each GPU that a driver has found; WSL has one for all."""
    return [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")]


def _named() -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES allows, None where it says nothing."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is None:
        return None
    listed = [name.strip() for name in told.split(",")]
    # As CUDA reads it: what follows the first name that is none does not count.
    first_bad = next((place for place, name in enumerate(listed) if name in ("", "-1")), len(listed))
    return listed[:first_bad]


def _cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
