"""Compile a loop of training steps over data on the device, for TensorFlow and for JAX: Keras has none.

A loop is compiled once: the number of its steps is an argument. Each step is the model's own ``train_step``, as in
``train_on_batch``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import keras
import numpy as np

BatchOf = Callable[[dict[str, Any], dict[str, Any]], tuple[Any, Any, Any]]
"""Function of the arrays on the device and of what one step needs; returns frames, targets and weights (or None)."""


class Loop(Protocol):
    """A compiled loop of steps."""

    def call(self, arrays: dict[str, Any], feed: dict[str, np.ndarray], rates: np.ndarray, steps: int) -> Any:
        """Start ``steps`` steps, and return their mean loss as a tensor without waiting for it.

        ``feed`` holds what each step needs, and ``rates`` its learning rate; both may be longer than ``steps``. Call
        within `session`.
        """
        ...

    def session(self) -> Any:
        """Return a context in which the loop may hold the model's weights; afterwards the model has them."""
        ...


def build(model: keras.Model, batch_of: BatchOf) -> Loop:
    """Build the loop of a compiled ``model`` for the backend in use."""
    return (TensorFlowLoop if keras.backend.backend() == "tensorflow" else JaxLoop)(model, batch_of)


def normal(shape: tuple[int, ...], seed: Any) -> Any:
    """Return standard normal numbers that follow from ``seed``, a tensor of two integers (uint32 or int32)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.random.stateless_normal(shape, tf.cast(seed, tf.int32))
    import jax

    return jax.random.normal(jax.random.wrap_key_data(seed), shape)


class TensorFlowLoop:
    """Loop of TensorFlow. The weights are always in the model."""

    def __init__(self, model: keras.Model, batch_of: BatchOf):
        import tensorflow as tf

        self._model, self._batch_of = model, batch_of
        self._loop = tf.function(self._steps, jit_compile=bool(model.jit_compile))

    @contextmanager
    def session(self) -> Iterator[None]:
        """Do as `Loop.session` says."""
        yield

    def call(self, arrays: dict[str, Any], feed: dict[str, np.ndarray], rates: np.ndarray, steps: int) -> Any:
        """Do as `Loop.call` says."""
        import tensorflow as tf

        # As tensors: for each new Python or NumPy number it would be traced again.
        tensors = {name: tf.constant(values) for name, values in feed.items()}
        return self._loop(arrays, tensors, tf.constant(rates), tf.constant(steps))

    def _steps(self, arrays: dict[str, Any], feed: dict[str, Any], rates: Any, steps: Any) -> Any:
        import tensorflow as tf

        model = self._model
        for variable in model.metrics_variables:
            variable.assign(keras.ops.zeros_like(variable))

        def step(number: Any, loss: Any) -> tuple[Any, Any]:
            model.optimizer.learning_rate.assign(rates[number])
            batch = self._batch_of(arrays, {name: values[number] for name, values in feed.items()})
            return number + 1, model.train_step(batch)["loss"]

        return tf.while_loop(lambda number, loss: number < steps, step, (0, 0.0))[1]


class JaxLoop:
    """Loop of JAX. Within a session it holds the weights, since assigning hundreds of them takes milliseconds."""

    def __init__(self, model: keras.Model, batch_of: BatchOf):
        import jax

        self._model, self._batch_of = model, batch_of
        self._rate = _position(model.optimizer.learning_rate, model.optimizer.variables)
        # The old weights' memory is used for the new ones.
        self._loop = jax.jit(self._steps, donate_argnums=0)
        self._state: Any = None

    @contextmanager
    def session(self) -> Iterator[None]:
        """Do as `Loop.session` says."""
        model = self._model
        groups = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        self._state = tuple([variable.value for variable in group] for group in groups)
        yield
        for group, values in zip(groups, self._state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        self._state = None

    def call(self, arrays: dict[str, Any], feed: dict[str, np.ndarray], rates: np.ndarray, steps: int) -> Any:
        """Do as `Loop.call` says."""
        self._state, loss = self._loop(self._state, arrays, feed, rates, steps)
        return loss

    def _steps(self, state: Any, arrays: dict[str, Any], feed: dict[str, Any], rates: Any, steps: Any) -> Any:
        import jax

        def step(number: Any, carried: Any) -> Any:
            (weights, others, optimiser, metrics), _ = carried
            optimiser = [*optimiser[: self._rate], rates[number], *optimiser[self._rate + 1 :]]
            batch = self._batch_of(arrays, {name: values[number] for name, values in feed.items()})
            logs, state = self._model.train_step((weights, others, optimiser, metrics), batch)
            return tuple(map(list, state)), logs["loss"]

        *rest, metrics = state
        metrics = [value * 0 for value in metrics]
        return jax.lax.fori_loop(0, steps, step, ((*rest, metrics), np.float32(0)))


def _position(variable: Any, variables: list[Any]) -> int:
    return next(place for place, each in enumerate(variables) if each is variable)
