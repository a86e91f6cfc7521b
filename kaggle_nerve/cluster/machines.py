"""Train folds on a cluster: one thread here for each fold, which follows it from node to node."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras

from kaggle_nerve.cluster import mirror
from kaggle_nerve.cluster.connection import connect, load_ray
from kaggle_nerve.cluster.data import Shipment
from kaggle_nerve.cluster.node import FoldTrainer
from kaggle_nerve.cluster.nodes import Node, Share, check_nodes, choose_share, list_nodes
from kaggle_nerve.cluster.order import FoldOrder, files_of, fixed_files_of
from kaggle_nerve.disk import as_size, disk_sentence
from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs import Fold
from kaggle_nerve.runs.run import WARM, read_state
from kaggle_nerve.storage import read_completion
from kaggle_nerve.training.parallel import Events, Machines, Worker
from kaggle_nerve.training.worker import Order

NOTICE = 10.0
"""Seconds that a fold waits for a node before it says so."""

TICK = 0.5
"""Seconds between two looks at whether the user stops a fold that waits for a node."""

LOSSES = 3
"""Nodes that a fold may lose one after the other without a finished epoch."""

PASSED_ON = ("TF_CPP_MIN_LOG_LEVEL", "HDF5_USE_FILE_LOCKING")
"""Variables of this process that workers get, too."""


class Cluster(Machines):
    """The nodes of the cluster that `connection.connect` has joined.

    ``backend``: Keras's, for all workers. ``jobs``: at most so many folds side by side; None means as many as the
    nodes hold.
    """

    def __init__(
        self,
        nodes: list[Node],
        backend: str,
        *,
        jobs: int | None = None,
        gpus_per_fold: float | None = None,
        cpus_per_fold: int | None = None,
    ):
        self._nodes, self._jobs, self._is_divided = nodes, jobs, False
        self._choice = gpus_per_fold, cpus_per_fold
        self._variables = {"KERAS_BACKEND": backend}
        self._variables |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._share = choose_share(nodes, 1, *self._choice)
        self._shipments: dict[str, Shipment] = {}
        self._lock = threading.Lock()

    def devices(self) -> list[str]:
        """Return the nodes' names, each with its GPUs or cores."""
        return [str(node) for node in self._nodes]

    def jobs(self, folds: int) -> int:
        """Return how many of ``folds`` folds the nodes hold side by side; divide the nodes among them.

        After `share_among` the division stays.
        """
        if not self._is_divided:
            self._share = choose_share(self._nodes, self._most(folds), *self._choice)
        return min(folds, self._jobs or self._room())

    def share_among(self, trials: int | None, folds: int) -> int:
        """Divide the nodes among ``trials`` runs of ``folds`` folds that are trained at once; return their number.

        ``trials`` None: as many as the GPUs hold, one on cores, which can be divided in any way.
        """
        if trials is None:
            trials = max(1, self._room() // self.jobs(folds)) if self._share.gpus else 1
        self._share = choose_share(self._nodes, self._most(folds) * trials, *self._choice)
        self._is_divided = True
        return trials

    def start(self, fold: Fold, order: Order, slot: int, events: Events) -> Worker:
        """Start ``fold`` on a node with enough room, as soon as there is one."""
        return _RemoteWorker(self, fold, order, slot, events)

    def actor(self) -> Any:
        """Start an actor with a fold's share of a node; it waits until there is one."""
        ray = load_ray()
        options = {"num_cpus": self._share.cpus, "num_gpus": self._share.gpus, "max_concurrency": 2}
        return ray.remote(FoldTrainer).options(**options).remote()

    def fold_order(self, fold: Fold, order: Order) -> FoldOrder:
        """Return what a node needs to train ``fold``."""
        return FoldOrder(
            run=order.run,
            fold=order.fold,
            files=files_of(fold),
            fixed_files=fixed_files_of(fold),
            seconds=None if order.deadline is None else order.deadline - time.monotonic(),
            jobs=order.jobs,
            cpus=self._share.cpus,
            gpus=self._share.gpus,
            variables=self._variables,
        )

    def shipment(self, data_dir: str) -> Shipment:
        """Return the shipment of the data in ``data_dir``, one for all folds."""
        with self._lock:
            if data_dir not in self._shipments:
                self._shipments[data_dir] = Shipment(Path(data_dir), load_ray().put)
            return self._shipments[data_dir]

    @property
    def share(self) -> Share:
        """What a fold gets."""
        return self._share

    def _most(self, folds: int) -> int:
        """Return how many of ``folds`` folds may be trained side by side."""
        return min(folds, self._jobs or folds)

    def _room(self) -> int:
        """Return how many folds the nodes hold."""
        return sum(map(self._share.fits, self._nodes))


@contextmanager
def join(
    address: str,
    *,
    jobs: int | None = None,
    gpus_per_fold: float | None = None,
    cpus_per_fold: int | None = None,
) -> Iterator[Cluster]:
    """Join the cluster at ``address`` (see `connection.connect`) for a block.

    ``jobs``, ``gpus_per_fold`` and ``cpus_per_fold``: as for `Cluster` and `nodes.choose_share`. Raise NerveError if
    the cluster does not answer, or if a node cannot train folds as this machine would.
    """
    backend = keras.backend.backend()
    with connect(address):
        nodes = list_nodes()
        check_nodes(nodes, backend, keras.__version__, gpus_per_fold)
        yield Cluster(nodes, backend, jobs=jobs, gpus_per_fold=gpus_per_fold, cpus_per_fold=cpus_per_fold)


class _RemoteWorker(Worker):
    """Follows a fold: starts it on a node, brings back what it writes, and starts it again if the node is lost."""

    def __init__(self, cluster: Cluster, fold: Fold, order: Order, slot: int, events: Events):
        super().__init__(fold, order.jobs, slot)
        self._cluster, self._order, self._events = cluster, order, events
        self._stopping, self._is_killed = threading.Event(), False
        self._actor: Any = None
        self._node, self._code, self._is_started = "", 0, False
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Ask the worker to stop after its current epoch, or not to begin."""
        self._stopping.set()
        actor = self._actor
        if self._is_started and actor is not None:
            with suppress(Exception):  # the thread reports a lost connection
                actor.stop.remote()

    def kill(self) -> None:
        """End the fold's actor now. What has come back stays readable."""
        self._is_killed = True
        self._end_actor()

    def exit_code(self) -> int:
        """Return the exit code of the worker process."""
        return self._code

    def failure(self) -> NerveError:
        """Describe why the fold ended without a result, and on which node."""
        fault = super().failure()
        return NerveError(f"{fault} That was on node {self._node}.") if self._node else fault

    def _run(self) -> None:
        try:
            with self.fold.lock():
                mirror.remove_temporary(self.fold.folder)
                self._follow()
        except NerveError as fault:
            self._send("failed", text=str(fault))
        except ConnectionError as fault:
            reason = str(fault).rstrip(".")
            text = f"the connection to the cluster is lost ({reason}); the same command goes on after epoch"
            self._send("lost", text=f"{text} {self._epochs()}.")
        except Exception as fault:
            if not self._is_killed:
                sentence = disk_sentence(fault) if isinstance(fault, OSError) else None
                self._send(
                    "failed", text=sentence or f"{self.fold.label} failed ({type(fault).__name__}: {fault})."
                )
        finally:
            self._events.put((self, None))

    def _follow(self) -> None:
        """Train the fold on one node after the other until it is finished, has failed or was stopped."""
        exceptions, losses, epochs = load_ray().exceptions, 0, self._epochs()
        while True:
            try:
                self._train()
                return
            except exceptions.RayTaskError as fault:
                raise _plain(fault, self.fold) from fault
            except exceptions.RayError as fault:
                if self._is_killed:
                    return
                if not load_ray().is_initialized():
                    raise ConnectionError("Ray has left it") from fault
                losses = 1 if self._epochs() > epochs else losses + 1
                epochs = self._epochs()
                self._report_loss(fault, losses, epochs)
            finally:
                self._end_actor()

    def _train(self) -> None:
        """Train the fold on one node."""
        ray = load_ray()
        self._is_started, self._actor = False, self._cluster.actor()
        if not self._wait_for_node(self._actor.node_name.remote()):
            self._send("result")
            return
        self._send("say", text=f"{self.fold.label} is on node {self._node}.")
        self._give_data()
        if self._stopping.is_set():
            self._send("result")
            return
        ray.get(self._actor.start.remote(self._cluster.fold_order(self.fold, self._order)))
        self._is_started = True
        if self._stopping.is_set():
            self._actor.stop.remote()
        code = None
        while code is None:
            report = ray.get(self._actor.poll.remote())
            mirror.apply(report.update, self.fold.folder)
            for message in report.messages:
                self._events.put((self, message))
            code = report.code
        self._code = code
        ray.get(self._actor.close.remote())

    def _wait_for_node(self, answer: Any) -> bool:
        """Wait until the actor runs; return False if the user stops the fold, or its time is over, before."""
        ray, started, has_told = load_ray(), time.monotonic(), False
        while not ray.wait([answer], timeout=TICK)[0]:
            if self._stopping.is_set():
                return False
            if self._order.deadline is not None and time.monotonic() >= self._order.deadline:
                text = f"{self.fold.label} got no node within its part of the time budget; the same command goes on."
                self._send("say", text=text)
                return False
            if not has_told and time.monotonic() - started > NOTICE:
                has_told = True
                self._send("say", text=f"{self.fold.label} waits for a node with {self._cluster.share} free.")
        self._node = ray.get(answer)
        return True

    def _give_data(self) -> None:
        """Make sure that the node has the data, and send them if it does not see them."""
        ray, actor, data_dir = load_ray(), self._actor, self._order.data_dir
        source = self.fold.run.session()["source"]
        if ray.get(actor.sees_data.remote(data_dir, source)):
            return
        shipment = self._cluster.shipment(data_dir)
        manifest = shipment.manifest()
        if ray.get(actor.has_copy.remote(manifest.digest)):
            return
        text = f"{self.fold.label}: node {self._node} gets a copy of the data, {as_size(manifest.size)}."
        self._send("say", text=text)
        ray.get(actor.receive_data.remote(manifest, shipment.parts()))

    def _report_loss(self, fault: Exception, losses: int, epochs: int) -> None:
        """Say that the node is lost; raise NerveError if that happens again and again."""
        reason = " ".join(str(fault).split())[:200]
        where = self._node or "the cluster"
        if losses >= LOSSES:
            raise NerveError(
                f"{self.fold.label} lost {losses} nodes without finishing an epoch, the last was {where} ({reason}); "
                "see `ray status` and Ray's logs there."
            )
        self._send("restart")
        going = f"after epoch {epochs}" if epochs else "from its beginning"
        next_one = "" if self._stopping.is_set() else f", and goes on {going} on the next free one"
        self._send("say", text=f"{self.fold.label} lost node {where}{next_one}.")

    def _epochs(self) -> int:
        """Return the number of finished epochs that have come back, those of a warm stage included."""
        progress, warm = self.fold.progress(), self.fold.folder / WARM
        earlier = read_completion(warm) or {"epochs": (read_state(warm) or {}).get("epoch", 0)}
        return earlier["epochs"] + (progress.epoch if progress else 0)

    def _end_actor(self) -> None:
        actor, self._actor = self._actor, None
        if actor is not None and load_ray().is_initialized():
            with suppress(Exception):  # it is gone already
                load_ray().kill(actor)

    def _send(self, event: str, **values: Any) -> None:
        self._events.put((self, {"event": event, **values}))


def _plain(fault: Any, fold: Fold) -> NerveError:
    """Return the error of an actor's method, without Ray's traceback."""
    cause = fault.cause
    if isinstance(cause, NerveError):
        return NerveError(str(cause))
    return NerveError(f"{fold.label} failed ({type(cause).__name__}: {str(cause)[:200]}).")
