"""What the benchmarks count and print; no test asserts a time."""

import sys

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT

from dcgan_jax import state, steps

sys.path.insert(0, str(ROOT / "benchmarks"))

import flops
import measure

# XLA also counts what is done to each number on its own (batch norm, activations, Adam), 2 to 10% in networks this
# narrow. Fewer than 16 features a layer: wider ones may run by algorithms that take fewer operations.
ELEMENTWISE = 0.15
NETWORKS = {
    "4x4": {},
    "5x5": dict(kernel_size=5, fresh_z=True),
    "labels and dense": dict(features=(9, 12), kernel_size=5, num_classes=3, dense=(11, 12)),
    "oblong, strides 1 and 2": dict(image_size=(32, 16), kernel_size=3, features=(14, 15, 15), strides=(1, 2, 2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_operations_counted_by_hand_are_those_that_xla_counts(tiny, name):
    config = tiny(**dict(channels=3, features=(14, 15), latent_dim=50, batch_size=64) | NETWORKS[name])
    batch = {"images": jax.ShapeDtypeStruct((config.batch_size, *config.image_size, config.channels), jnp.uint8)}
    if config.num_classes:
        batch["labels"] = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
    step = jax.jit(steps.make_train_step(config)).lower(state.abstract(config), batch).compile()
    ratio = step.cost_analysis()["flops"] / (config.batch_size * flops.train_step(config, inside=True))
    assert 1 <= ratio <= 1 + ELEMENTWISE


def test_a_ratio_is_the_median_of_pairs():
    # Medians of each column would say 1: the machine was slow for a while.
    assert measure.ratio([2.0, 20.0, 4.0], [1.0, 10.0, 4.0]) == 2


def test_a_table_has_a_column_for_each_field():
    lines = measure.table([{"name": "one", "rate": 1234.5}, {"name": "another", "failed": "no"}]).splitlines()
    assert [line.split() for line in lines] == [["name", "rate", "failed"], ["one", "1234"], ["another", "no"]]
