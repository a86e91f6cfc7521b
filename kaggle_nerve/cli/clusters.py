"""Options of the commands that can train on a cluster, and the block in which they do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from kaggle_nerve.cli import watch

if TYPE_CHECKING:
    from kaggle_nerve.cluster.machines import Cluster

_OPTIONS = (
    click.option(
        "--cluster",
        "address",
        metavar="ADDRESS",
        help="Train on a Ray cluster: auto (the one of this machine), ray://host:10001, host:6379 or local.",
    ),
    click.option(
        "--gpus-per-fold",
        type=click.FloatRange(0),
        metavar="N",
        help="With --cluster: GPUs of a fold, such as 0.5.  [default: 1 where there are GPUs]",
    ),
    click.option(
        "--cpus-per-fold",
        type=click.IntRange(1),
        metavar="N",
        help="With --cluster: cores of a fold.  [default: an even part]",
    ),
)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--cluster``, ``--gpus-per-fold`` and ``--cpus-per-fold`` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def require_cluster(address: str | None, **values: object) -> None:
    """Raise click.UsageError if one of ``values``, options by their names, is given without a cluster."""
    for name, value in values.items():
        if address is None and value is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} divides a cluster; use it with --cluster.")


@contextmanager
def machines(
    address: str | None, jobs: int | None, gpus_per_fold: float | None, cpus_per_fold: int | None
) -> Iterator["Cluster | None"]:
    """Join the cluster at ``address`` for a block; without an address, yield None: this machine."""
    if address is None:
        yield None
        return
    from kaggle_nerve.cluster.machines import join

    with (
        watch.expect(watch.CLUSTER),
        join(address, jobs=jobs, gpus_per_fold=gpus_per_fold, cpus_per_fold=cpus_per_fold) as cluster,
    ):
        yield cluster
