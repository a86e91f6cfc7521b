"""The nodes of a cluster: whether they can train as this machine would, and what share of them a fold gets."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kaggle_nerve import __version__
from kaggle_nerve.cluster.connection import load_ray
from kaggle_nerve.errors import NerveError

PATIENCE = 90.0
"""Timeout in seconds for a node to answer, including the start of a Python process there."""

GPU_PATIENCE = 30.0
"""Seconds after which the GPUs of a node count as busy with other work, which shows that they can be used."""


@dataclass(frozen=True)
class Node:
    """A node that is alive, with its logical ``cpus`` and ``gpus``. ``id`` is Ray's, ``name`` for people."""

    id: str
    name: str
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.name} ({_count(self.gpus, 'GPU') if self.gpus else _count(self.cpus, 'core')})"


@dataclass(frozen=True)
class Share:
    """What a fold gets: whole processor cores, at least one, and GPUs or a fraction of one."""

    cpus: int
    gpus: float

    def fits(self, node: Node) -> int:
        """Return how many folds fit on ``node``."""
        counts = [node.cpus // self.cpus]
        if self.gpus >= 1:
            counts.append(node.gpus // self.gpus)
        elif self.gpus:
            # Ray does not spread a fraction over two GPUs.
            counts.append(node.gpus * int(1 / self.gpus + 1e-6))
        return int(min(counts))

    def __str__(self) -> str:
        cpus = _count(self.cpus, "core")
        return f"{_count(self.gpus, 'GPU')} and {cpus}" if self.gpus else cpus


def list_nodes() -> list[Node]:
    """List the nodes that are alive, by name."""
    rows = [row for row in load_ray().nodes() if row["Alive"]]
    nodes = [
        Node(
            row["NodeID"],
            row.get("NodeName") or row["NodeManagerAddress"],
            row["Resources"].get("CPU", 0.0),
            row["Resources"].get("GPU", 0.0),
        )
        for row in rows
    ]
    return sorted(nodes, key=lambda node: node.name)


def choose_share(
    nodes: list[Node], folds: int, gpus_per_fold: float | None = None, cpus_per_fold: int | None = None
) -> Share:
    """Return what each of ``folds`` folds gets: a GPU where there are some, else an even part of the cores.

    ``gpus_per_fold`` and ``cpus_per_fold`` are the user's choice. Raise NerveError if no node has that much.
    """
    gpus = gpus_per_fold
    if gpus is None:
        gpus = 1.0 if any(node.gpus for node in nodes) else 0.0
    cpus = cpus_per_fold
    if cpus is None:
        cpus = _cores_beside_gpu(nodes, gpus) if gpus else _even_cores(nodes, folds)
    share = Share(cpus, gpus)
    if not any(share.fits(node) for node in nodes):
        names = "; ".join(
            f"{node.name}: {_count(node.cpus, 'core')}, {_count(node.gpus, 'GPU')}" for node in nodes
        )
        raise NerveError(
            f"No node of the cluster has {share} for a fold ({names}): choose another --gpus-per-fold or "
            "--cpus-per-fold, or add nodes."
        )
    return share


def _cores_beside_gpu(nodes: list[Node], gpus: float) -> int:
    """Return the cores of a fold on the node with the fewest for each GPU."""
    counts = [math.floor(node.cpus / node.gpus * gpus) for node in nodes if node.gpus]
    return max(1, min(counts, default=1))


def _even_cores(nodes: list[Node], folds: int) -> int:
    """Return the most cores with which ``folds`` folds are trained side by side; 1 if that is not possible."""
    most = int(max((node.cpus for node in nodes), default=1))
    enough = (cores for cores in range(most, 0, -1) if sum(node.cpus // cores for node in nodes) >= folds)
    return next(enough, 1)


def check_nodes(nodes: list[Node], backend: str, keras_version: str, gpus_per_fold: float | None) -> None:
    """Raise NerveError, naming the node, if one has other versions than this machine, or lacks the backend.

    Where folds get GPUs, the backend of each node with GPUs must see them.
    """
    ray = load_ray()
    if not nodes:
        raise NerveError("The cluster has no node: start one with `ray start`.")
    probe = ray.remote(_make_probe())
    answers = {node: _on(probe, node).remote() for node in nodes}
    for node, answer in answers.items():
        if fault := _version_fault(_get(answer, node), backend, keras_version):
            raise NerveError(f"Node {node.name} {fault}")
    if gpus_per_fold == 0:
        return
    count = ray.remote(_count_gpus)
    with_gpus = [node for node in nodes if node.gpus]
    if not with_gpus:
        return
    share = gpus_per_fold or 1.0
    counts = {node: _on(count, node, num_gpus=min(share, node.gpus)).remote(backend) for node in with_gpus}
    ray.wait(list(counts.values()), num_returns=len(counts), timeout=GPU_PATIENCE)
    for node, answer in counts.items():
        if not ray.wait([answer], timeout=0)[0]:
            ray.cancel(answer)
        elif not _get(answer, node):
            raise NerveError(
                f"Ray gives node {node.name} {_count(node.gpus, 'GPU')}, but {backend} sees none there: install it for "
                "GPUs, and their driver, or train on its cores with --gpus-per-fold 0."
            )


def _version_fault(versions: dict[str, Any], backend: str, keras_version: str) -> str:
    """Return the rest of a sentence about a node with ``versions``, as from `_make_probe`; "" if they are the same."""
    if fault := versions.get("fault"):
        return (
            f"cannot import kaggle_nerve ({fault}): install kaggle-nerve {__version__} in the Python that runs Ray "
            "there, or stop Ray on it."
        )
    if versions["kaggle_nerve"] != __version__:
        return f"has kaggle-nerve {versions['kaggle_nerve']}, and this machine {__version__}: install the same on both."
    if versions["keras"] != keras_version:
        return f"has Keras {versions['keras']}, and this machine {keras_version}: install the same on both."
    if backend not in versions["backends"]:
        return (
            f"lacks the backend {backend}: run `pip install {backend}` there, or choose another one with KERAS_BACKEND "
            "here."
        )
    return ""


def _make_probe() -> Callable[[], dict[str, Any]]:
    """Return a function that is sent as code: it must work where this package cannot be imported."""

    def probe() -> dict[str, Any]:
        from importlib.metadata import PackageNotFoundError, version
        from importlib.util import find_spec

        try:
            import kaggle_nerve
        except Exception as fault:
            return {"fault": f"{type(fault).__name__}: {fault}"}
        try:
            keras = version("keras")
        except PackageNotFoundError:
            keras = None
        backends = [name for name in ("tensorflow", "jax") if find_spec(name)]
        return {"kaggle_nerve": kaggle_nerve.__version__, "keras": keras, "backends": backends}

    return probe


def _count_gpus(backend: str) -> int:
    import os

    from kaggle_nerve import devices

    os.environ["KERAS_BACKEND"] = backend
    return len(devices.visible_gpus())


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'s' if number > 1 or number == 0 else ''}"


def _on(function: Any, node: Node, num_gpus: float = 0) -> Any:
    """Return the remote ``function`` for ``node`` alone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return function.options(num_cpus=0, num_gpus=num_gpus, max_retries=0, scheduling_strategy=strategy)


def _get(answer: Any, node: Node) -> Any:
    ray = load_ray()
    try:
        return ray.get(answer, timeout=PATIENCE)
    except ray.exceptions.GetTimeoutError as fault:
        raise NerveError(
            f"Node {node.name} has not answered for {PATIENCE:.0f} s: see `ray status`, and stop Ray there if it hangs "
            "or if others use its GPUs."
        ) from fault
    except ray.exceptions.RayError as fault:
        lines = [line for line in str(fault).splitlines() if line.strip()]
        raise NerveError(
            f"Node {node.name} cannot run anything ({lines[-1].strip()[:200] if lines else type(fault).__name__}): see "
            "Ray's logs there, or stop Ray on it."
        ) from fault
