"""Parameters of layers: made as Flax makes them, and not made again where they are."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import NameInUseError, ScopeParamNotFoundError, ScopeParamShapeError

from dcgan_jax.ops.parameter import parameter


class Layer(nn.Module):
    own: bool
    shape: tuple[int, ...] = (3, 2)

    @nn.compact
    def __call__(self, init):
        return parameter(self, "w", init, self.shape) if self.own else self.param("w", init, self.shape, jnp.float32)


def test_parameters_are_flax_s_own():
    key, init = jax.random.key(0), nn.initializers.normal()
    ours, theirs = (Layer(own).init(key, init)["params"]["w"] for own in (True, False))
    np.testing.assert_array_equal(ours, theirs)


def test_a_parameter_that_is_there_is_not_made_again():
    calls = []

    def init(key, shape, dtype):
        calls.append(shape)
        return jnp.ones(shape, dtype)

    layer = Layer(own=True)
    variables = layer.init(jax.random.key(0), init)
    assert calls == [(3, 2)]
    np.testing.assert_array_equal(layer.apply(variables, init), jnp.ones((3, 2)))
    assert calls == [(3, 2)]


def test_boxed_parameters_and_names_that_are_taken_are_as_in_flax():
    init = nn.with_partitioning(nn.initializers.normal(), (None, None))
    variables = Layer(own=True).init(jax.random.key(0), init)
    assert isinstance(variables["params"]["w"], nn.Partitioned)
    np.testing.assert_array_equal(Layer(own=True).apply(variables, init), variables["params"]["w"].value)

    class Twice(nn.Module):
        @nn.compact
        def __call__(self):
            return [parameter(self, "w", nn.initializers.ones, (2,)) for _ in range(2)]

    with pytest.raises(NameInUseError):
        Twice().init(jax.random.key(0))


def test_other_shapes_and_missing_ones_are_flax_s_errors():
    init = nn.initializers.ones
    variables = Layer(own=True).init(jax.random.key(0), init)
    with pytest.raises(ScopeParamShapeError, match=r"w.*\(4, 2\).*\(3, 2\)"):
        Layer(own=True, shape=(4, 2)).apply(variables, init)
    with pytest.raises(ScopeParamNotFoundError, match="w"):
        Layer(own=True).apply({"params": {"other": jnp.ones(1)}}, init)
