"""Schedules and optimizers against plain definitions: what each update of either network moves by."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dcgan_jax import optimizers, steps


def rate(step, *, num_steps, warmup=0, decay=0, end=0.0, shape="linear"):
    """The share of the learning rate at a step, as docs and help texts have it."""
    if step + 1 < warmup:
        return (step + 1) / warmup
    begin = num_steps - decay
    if not decay or step <= begin:
        return 1.0
    left = max(0.0, (num_steps - step) / decay)
    left = left if shape == "linear" else (1 + math.cos(math.pi * (1 - left))) / 2
    return end + (1 - end) * left


SCHEDULES = {
    "constant": {},
    "warm-up": dict(lr_warmup_steps=10),
    "linear": dict(lr_decay_steps=40),
    "a share": dict(lr_decay_share=0.3),
    "steps in place of a share": dict(lr_decay_share=0.3, lr_decay_steps=40),
    "cosine to a tenth": dict(lr_decay_steps=100, lr_decay_shape="cosine", lr_end=0.1),
    "all": dict(lr_warmup_steps=7, lr_decay_steps=33, lr_decay_shape="cosine"),
}


def plainly(step, config):
    return rate(
        step,
        num_steps=config.num_steps,
        warmup=config.lr_warmup_steps,
        decay=config.lr_decay_steps or round(config.num_steps * config.lr_decay_share),
        end=config.lr_end,
        shape=config.lr_decay_shape,
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rates_rise_stay_and_fall(tiny, name):
    config = tiny(num_steps=100, **SCHEDULES[name])
    found = jax.vmap(optimizers.learning_rate_schedule(config))(jnp.arange(120))
    np.testing.assert_allclose(found, [plainly(step, config) for step in range(120)], atol=1e-6)


def test_a_schedule_is_exact_at_its_corners(tiny):
    config = tiny(num_steps=600_000, lr_warmup_steps=1000, lr_decay_steps=300_000, lr_decay_shape="cosine", lr_end=0.25)
    schedule = optimizers.learning_rate_schedule(config)
    assert [float(schedule(jnp.int32(step))) for step in (999, 300_000, 600_000, 700_000)] == [1, 1, 0.25, 0.25]
    assert float(schedule(jnp.int32(998))) < 1
    assert float(schedule(jnp.int32(303_000))) < 1
    assert float(schedule(jnp.int32(597_000))) > 0.25
    assert float(schedule(jnp.int32(0))) == pytest.approx(1e-3)


@pytest.mark.parametrize("burn_in", [0, 10])
def test_the_burn_in_is_half_a_cosine(tiny, burn_in):
    schedule = optimizers.burn_in_schedule(tiny(burn_in_steps=burn_in))
    found = [float(schedule(jnp.int32(step))) for step in range(13)]
    expected = [(1 - math.cos(math.pi * min(1, step / 10))) / 2 if burn_in else 0 for step in range(13)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0] == 0
    assert found[10:] == [1 if burn_in else 0] * 3


def adam(gradients, rates, b1, b2, l2=0.0):
    """The parameter after each update, from 1, by algorithm 1 of Kingma and Ba 2015; betas and rates by update."""
    parameter, m, v, after = 1.0, 0.0, 0.0, []
    for i, (gradient, lr, beta1, beta2) in enumerate(zip(gradients, rates, b1, b2, strict=True)):
        gradient = gradient + l2 * parameter
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
        corrected = m / (1 - beta1 ** (i + 1)), v / (1 - beta2 ** (i + 1))
        parameter -= lr * corrected[0] / (math.sqrt(corrected[1]) + 1e-8)
        after.append(parameter)
    return after


def updated(optimizer, gradients):
    """The parameter after each update by an optimizer, from 1."""
    parameter, after = jnp.ones(()), []
    opt_state, update = optimizer.init(parameter), jax.jit(optimizer.update)
    for gradient in gradients:
        moved, opt_state = update(jnp.asarray(gradient), opt_state, parameter)
        parameter = optax.apply_updates(parameter, moved)
        after.append(float(parameter))
    return after


GRADIENTS = np.random.default_rng(0).normal(size=24)
CHANGING = dict(
    num_steps=12, generator_lr=0.02, discriminator_lr=0.01, lr_warmup_steps=3, lr_decay_steps=8, lr_end=0.1, b1=0.5,
    b1_end=0.0, b2=0.9, b2_end=0.99, burn_in_steps=6,
)  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"l2": 0.1},
        CHANGING,
        CHANGING | {"discriminator_steps": 2, "l2": 0.1},
        CHANGING | {"r1": 1.0, "discriminator_norm": "none"},
        CHANGING | {"r1": 1.0, "discriminator_norm": "none", "penalty_every": 4, "discriminator_steps": 2},
        {"dragan": 1.0, "discriminator_norm": "none", "penalty_every": 16},
        {"consistency_real": 1.0, "penalty_every": 16},
    ],
    ids=["constant", "schedules", "two steps", "penalty", "lazy and two steps", "lazy", "not lazy"],
)
def test_each_update_is_adam_s_by_the_schedules(tiny, fields):
    config = tiny(**fields)
    lazy = config.penalty_every if config.r1 or config.dragan else 1
    share = lazy / (lazy + 1) if lazy > 1 else 1.0

    def betas(start, end, step):
        burnt = (1 - math.cos(math.pi * min(1, step / config.burn_in_steps))) / 2 if config.burn_in_steps else 0
        return start + burnt * ((start if end == -1 else end) - start)

    with jax.enable_x64(True):
        optimizer = optimizers.from_config(config)
        for name, at_each, share in (("generator", 1, 1.0), ("discriminator", config.discriminator_steps, share)):  # noqa: B020
            # A step has `at_each` updates, and an update of the lazy penalties after every `lazy` of these.
            when = [update * share / at_each for update in range(len(GRADIENTS))]
            expected = adam(
                GRADIENTS,
                [share * config[f"{name}_lr"] * plainly(step, config) for step in when],
                [betas(config.b1, config.b1_end, step) ** share for step in when],
                [betas(config.b2, config.b2_end, step) ** share for step in when],
                config.l2,
            )
            np.testing.assert_allclose(updated(getattr(optimizer, name), GRADIENTS), expected, rtol=1e-6)


def test_weights_of_penalties_and_noise_move_over_the_burn_in(tiny):
    fields = dict(r1=2.0, r2=1.0, consistency_fake=10.0, penalty_end=0.1, discriminator_norm="none", burn_in_steps=10)

    def weights(step, **more):
        method = steps.from_config(tiny(**fields | more))
        return [float(penalty.weight(jnp.int32(step))) for penalty in (*method.penalties, *method.lazy_penalties)]

    for step, share in ((0, 1), (5, 0.55), (10, 0.1), (20, 0.1)):
        assert weights(step) == pytest.approx([2 * share, share, 10 * share])
    assert weights(5, burn_in_steps=0) == pytest.approx([2, 1, 10])
    assert weights(5, penalty_end=1.0) == pytest.approx([2, 1, 10])


def test_penalties_of_gradients_are_lazy_and_others_are_not(tiny):
    fields = dict(r1=2.0, r2=1.0, consistency_fake=10.0, discriminator_norm="none")
    method = steps.from_config(tiny(**fields))
    assert (len(method.penalties), len(method.lazy_penalties)) == (3, 0)
    method = steps.from_config(tiny(**fields, penalty_every=4))
    assert (len(method.penalties), len(method.lazy_penalties), method.lazy_interval) == (1, 2, 4)
