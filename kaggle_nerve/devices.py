"""Accelerators, their preferred precision, determinism and memory.

This module uses TensorFlow or JAX directly, since Keras does not expose these things. Both are imported
within the functions: an import takes seconds, and initialising devices takes memory that another process
may need.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from kaggle_nerve.storage import user_cache

PATIENCE = 120.0
"""Timeout in seconds for a driver to list its devices."""

SHARED = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Variables that let processes share an accelerator: by default TensorFlow and JAX allocate all of its memory."""

COMPILED = "JAX_COMPILATION_CACHE_DIR"
"""Variable of JAX for the folder of compiled programs."""

COMPILED_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""Variables of JAX that keep small programs, too: there are a hundred for a network's first weights."""

DETERMINISTIC_XLA = "--xla_gpu_deterministic_ops=true"

_LIST = "import json, keras; print(json.dumps(keras.distribution.list_devices()))"


@functools.cache
def visible_gpus() -> tuple[str, ...]:
    """List the GPUs that this session may use, by the backend's names, such as ``gpu:0``.

    A short subprocess asks the backend, since listing devices allocates their memory. That takes seconds, so
    it is skipped if there is no driver, or if CUDA_VISIBLE_DEVICES hides every GPU.
    """
    if not _device_files() or _allowed_gpus() == []:
        return ()
    try:
        completed = subprocess.run(
            [sys.executable, "-c", _LIST],
            env={**os.environ, **SHARED},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        names = json.loads(completed.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        # Computing in this process will raise the same fault, with the backend's own message.
        return ()
    return tuple(name for name in names if name.split(":")[0].lower() in ("gpu", "cuda"))


def multiple_gpus() -> tuple[str, ...]:
    """List the GPUs if more than one is visible, else none. Immediate if there cannot be two."""
    allowed = _allowed_gpus()
    limit = len(_device_files()) if allowed is None else len(allowed)
    return visible_gpus() if limit > 1 and len(visible_gpus()) > 1 else ()


def environment_for(slot: int, jobs: int, gpus: int) -> dict[str, str]:
    """Return environment variables for process number ``slot`` (from 0) of ``jobs`` parallel ones.

    With ``gpus`` visible GPUs, each process sees one of them, shared if there are more processes. Without
    GPUs, each process gets its share of the processor's cores.
    """
    if gpus:
        index = slot % gpus
        allowed = _allowed_gpus()
        variables = {"CUDA_VISIBLE_DEVICES": str(index) if allowed is None else allowed[index]}
        return variables | SHARED if jobs > gpus else variables
    if jobs == 1:
        return {}
    return thread_environment(max(1, cores() // jobs))


def thread_environment(threads: int) -> dict[str, str]:
    """Return environment variables for a process that computes with ``threads`` threads of the processor."""
    # XLA's processor client, for JAX, reads NPROC.
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "NPROC")
    return dict.fromkeys(names, str(threads))


def prepare_environment() -> None:
    """Set variables that the backend reads at its first use; those that the user has set stay.

    An accelerator's memory is taken as needed, so that other processes can use it, too. JAX keeps compiled programs
    on disk: compiling a network for a GPU takes a minute, and every fold's is the same.
    """
    variables = dict(SHARED)
    if _device_files():
        variables |= {COMPILED: str(user_cache() / "compiled"), **COMPILED_ALL}
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def preferred_precision() -> str:
    """Return the preferred Keras dtype policy for this process's device.

    ``mixed_bfloat16`` on TPUs and from compute capability 8.0, where bfloat16 is as fast as float16 and
    needs no loss scale; ``mixed_float16`` on 7.x, the first with tensor cores; else ``float32``: on a
    processor, bfloat16 was measured to be many times slower.
    """
    kind, capability = _device()
    return precision_of(kind, capability)


def precision_of(kind: str, capability: tuple[int, int] | None) -> str:
    """Do as `preferred_precision` for a device ``kind`` (``cpu``, ``gpu``, ``tpu``) and compute capability."""
    if kind == "tpu" or (kind == "gpu" and capability is not None and capability >= (8, 0)):
        return "mixed_bfloat16"
    if kind == "gpu" and capability is not None and capability >= (7, 0):
        return "mixed_float16"
    return "float32"


def is_accelerated() -> bool:
    """Return whether this process computes on an accelerator, and not on the processor. This initialises it."""
    return _device()[0] != "cpu"


def make_deterministic() -> None:
    """Make the backend deterministic for the rest of this process.

    TensorFlow has a setting for this; JAX on a GPU reads a flag of XLA that only takes effect before the
    device is first used, and needs nothing on a processor. The caller sets the seeds.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    else:
        os.environ.update(deterministic_environment(os.environ))


def deterministic_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that a deterministic process needs from its start: XLA's flags."""
    flags = environment.get("XLA_FLAGS", "").split()
    return {"XLA_FLAGS": " ".join(flags if DETERMINISTIC_XLA in flags else [*flags, DETERMINISTIC_XLA])}


def names() -> list[str]:
    """List this process's devices, by the backend's names. This initialises them."""
    import keras

    return keras.distribution.list_devices()


def peak_memory() -> int | None:
    """Return the peak memory in bytes on this process's first accelerator; None if the backend does not report it."""
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
    """Return kind and compute capability of this process's first device."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if not gpus:
            return "cpu", None
        return "gpu", tf.config.experimental.get_device_details(gpus[0]).get("compute_capability")
    if keras.backend.backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        text = getattr(device, "compute_capability", None)
        major, _, minor = text.partition(".") if isinstance(text, str) else ("", "", "")
        numbers = (int(major), int(minor)) if major else None
        return "gpu" if device.platform in ("gpu", "cuda") else device.platform, numbers
    return "cpu", None


def _device_files() -> list[Path]:
    """List the device files: one for each GPU of the driver; on WSL, one for all."""
    return [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg")]


def _allowed_gpus() -> list[str] | None:
    """List the GPUs allowed by CUDA_VISIBLE_DEVICES; None if it is not set."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    # As in CUDA: names after the first invalid one are ignored.
    first_bad = next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))
    return names[:first_bad]


def cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
