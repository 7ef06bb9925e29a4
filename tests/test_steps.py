"""What one step may touch, and that devices do not matter."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dcgan_jax import augment, inference, latent, losses, models, optimizers, state, steps, train
from dcgan_jax import config as configuration
from dcgan_jax.fields import METRICS
from dcgan_jax.ops import pixels
from dcgan_jax.runtime import devices


@pytest.fixture(autouse=True)
def _strict(monkeypatch):
    """No array is broadcast to another rank, or cast to another dtype, unless the code says so."""
    apply_gradients = steps._apply_gradients

    def with_optax(*arguments):
        with jax.numpy_dtype_promotion("standard"):  # optax has float ** int32
            return apply_gradients(*arguments)

    monkeypatch.setattr(steps, "_apply_gradients", with_optax)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


def batch_of(config, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (config.batch_size, *config.image_size, config.channels), np.uint8)
    labels = {"labels": rng.integers(0, config.num_classes, config.batch_size)} if config.num_classes else {}
    return {"images": images} | labels


def train_step(config):
    """(state, batch) to (state, metrics), on one device without any axis."""
    return jax.jit(functools.partial(steps.train_step, steps.from_config(config)))


def run(config, count=1, devices=None):
    """State and metrics after some steps, on one device without any axis or on several."""
    current = state.create(config)
    if devices is None:
        step = train_step(config)
        for i in range(count):
            current, metrics = step(current, batch_of(config, i))
        return jax.device_get((current, metrics))
    step = functools.partial(steps.train_step, steps.from_config(config, "replica"))
    step = jax.pmap(step, axis_name="replica", devices=jax.devices()[:devices])

    def spread(tree):
        return jax.tree.map(lambda x: x.reshape(devices, len(x) // devices, *x.shape[1:]), tree)

    current = jax.tree.map(lambda x: np.stack([x] * devices), jax.device_get(current))
    for i in range(count):
        current, metrics = jax.block_until_ready(step(current, spread(batch_of(config, i))))
    for leaf in jax.tree.leaves(jax.device_get(current)):
        np.testing.assert_array_equal(
            leaf, np.broadcast_to(leaf[:1], leaf.shape), err_msg="replicas have drifted apart"
        )
    return jax.tree.map(lambda x: np.asarray(x[0]), jax.device_get((current, metrics)))


def equal(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


def assert_close(one, other, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=tolerance), one, other)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {
            "fresh_z": True,
            "norm_per_unit": True,
            "prior": "uniform",
            "l2": 1e-5,
            "ema_decay": 0.0,
            "norm_epsilon": 1e-8,
            "num_classes": 3,
            "dense": (5,),
            "output": "sigmoid",
            "norm_affine": False,
            "data": {"flip": True},
        },
    ],
    ids=["default", "paper_and_conditional"],
)
def test_one_device_equals_four_in_float64(tiny, fields):
    with jax.enable_x64(True):
        config = tiny(dtype="float64", **fields)
        plain, one, four = run(config, 3), run(config, 3, devices=1), run(config, 3, devices=4)
    assert plain[0].generator.params["project"]["kernel"].dtype == np.float64
    assert_close(plain, one, 1e-8)
    assert_close(one, four, 1e-8)


@pytest.mark.nightly
def test_one_device_equals_four_in_float32(tiny):
    config = tiny()
    one, four = run(config, 3, devices=1), run(config, 3, devices=4)
    assert_close(one[1], four[1], 1e-4)


def reference_step(config, current, batch):
    """One step written plainly: the losses by their definition, jax.grad of each, optax's update; as it should be."""
    generator, discriminator = models.from_config(config)
    optimizer = optimizers.from_config(config)
    labels = jnp.asarray(batch["labels"]) if "labels" in batch else None
    real = jnp.asarray(batch["images"]).astype(float) / 127.5 - 1.0

    def z(stream):
        key = latent.key(config.seed, stream, current.step)
        return latent.draw(key, jnp.arange(config.batch_size), config.latent_dim, config.prior)

    def run(network, params, stats, x):
        variables = {"params": params, "batch_stats": stats}
        return network.apply(variables, x, labels, train=True, mutable=["batch_stats"])

    def learn(network, gradients, stats, optimizer):
        with jax.numpy_dtype_promotion("standard"):  # optax has float ** int32
            updates, opt_state = optimizer.update(gradients, network.opt_state, network.params)
        return state.NetworkState(optax.apply_updates(network.params, updates), {"batch_stats": stats}, opt_state)

    old_generator, old_discriminator = current.generator, current.discriminator
    fake, _ = run(generator, old_generator.params, old_generator.stats["batch_stats"], z(latent.TRAIN))

    def d_loss(params):
        on_real, _ = run(discriminator, params, old_discriminator.stats["batch_stats"], real)
        on_fake, _ = run(discriminator, params, old_discriminator.stats["batch_stats"], fake)
        return -jnp.mean(jnp.log(jax.nn.sigmoid(on_real))) - jnp.mean(jnp.log(1 - jax.nn.sigmoid(on_fake)))

    _, of_real = run(discriminator, old_discriminator.params, old_discriminator.stats["batch_stats"], real)
    _, of_fake = run(discriminator, old_discriminator.params, old_discriminator.stats["batch_stats"], fake)
    both = jax.tree.map(lambda a, b: (a + b) / 2, of_real["batch_stats"], of_fake["batch_stats"])
    new_discriminator = learn(
        old_discriminator, jax.grad(d_loss)(old_discriminator.params), both, optimizer.discriminator
    )

    stream = latent.FRESH if config.fresh_z else latent.TRAIN

    def g_loss(params):
        images, updated = run(generator, params, old_generator.stats["batch_stats"], z(stream))
        logits, _ = run(discriminator, new_discriminator.params, new_discriminator.stats["batch_stats"], images)
        return -jnp.mean(jnp.log(jax.nn.sigmoid(logits))), updated["batch_stats"]

    gradients, stats = jax.grad(g_loss, has_aux=True)(old_generator.params)
    return learn(old_generator, gradients, stats, optimizer.generator), new_discriminator


@pytest.mark.parametrize(
    "fields",
    [{}, {"fresh_z": True, "l2": 0.1, "norm_per_unit": True}, {"num_classes": 3}],
    ids=["shared z", "fresh z and L2", "conditional"],
)
def test_a_step_is_what_it_says(tiny, fields):
    # Separate batches of real and generated images (rule 1), each network's statistics and parameters moved by its own
    # update alone (rule 2), the generator judged by the updated discriminator.
    with jax.enable_x64(True):
        config = tiny(dtype="float64", **fields)
        start = state.create(config)
        generator, discriminator = jax.jit(lambda s, b: reference_step(config, s, b))(start, batch_of(config))
        after, _ = run(config)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12), after.generator, generator)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12), after.discriminator, discriminator
    )


def test_the_generator_runs_once_a_step_and_twice_with_fresh_z(tiny, monkeypatch):
    calls = []
    original = models.Generator.apply
    monkeypatch.setattr(models.Generator, "apply", lambda *a, **k: calls.append(1) or original(*a, **k))
    counts = []
    for fresh_z in (False, True):
        config = tiny(fresh_z=fresh_z)
        calls.clear()
        jax.eval_shape(train_step(config), state.abstract(config), batch_of(config))
        counts.append(len(calls))
    assert counts == [1, 2]


def test_discriminator_learns_to_tell_and_generator_to_fool(tiny):
    config = tiny(discriminator_lr=1e-3, generator_lr=1e-30)
    step, current = train_step(config), state.create(config)
    first = None
    for _ in range(30):
        current, metrics = step(current, batch_of(config))
        first = first or float(metrics["d_loss"])
    assert metrics["d_loss"] < 0.7 * first
    assert metrics["d_real"] > 0.5 > metrics["d_fake"]
    step = train_step(tiny(discriminator_lr=1e-30, generator_lr=1e-3))
    first = float(metrics["g_loss"])
    for _ in range(30):
        current, metrics = step(current, batch_of(config))
    assert metrics["g_loss"] < 0.9 * first


def test_bfloat16_computes_in_it_and_keeps_parameters_and_statistics_in_float32(tiny):
    config = tiny(dtype="bfloat16")
    after, metrics = run(config)
    floats = {leaf.dtype for leaf in jax.tree.leaves((after, metrics)) if np.issubdtype(leaf.dtype, np.floating)}
    assert floats == {np.dtype("float32")}
    _, discriminator = models.from_config(config)
    variables = after.discriminator.variables()
    images = jnp.zeros((2, *config.image_size, config.channels))
    logits, sown = discriminator.apply(variables, images, mutable=["intermediates"])
    assert {leaf.dtype for leaf in jax.tree.leaves(sown)} == {jnp.dtype("bfloat16")}
    assert logits.dtype == jnp.float32


def test_statistics_of_each_device_are_an_option(tiny):
    whole, parts = run(tiny(), devices=4)[0], run(tiny(sync_batch_norm=False), devices=4)[0]
    assert not equal(whole.generator.params, parts.generator.params)


def test_l2_is_added_to_the_gradient_of_every_parameter(tiny):
    # Adam's first moment after one step is (1 - b1) times the gradient.
    plain, decayed = (optax.tree_utils.tree_get(run(tiny(l2=l2))[0].discriminator.opt_state, "mu") for l2 in (0.0, 0.1))
    params = jax.device_get(state.create(tiny())).discriminator.params
    assert_close(jax.tree.map(lambda a, b: b - a, plain, decayed), jax.tree.map(lambda p: 0.5 * 0.1 * p, params), 1e-7)


def test_learning_rates_fall_to_zero_in_the_last_steps(tiny):
    config = tiny(num_steps=4, lr_decay_steps=2)
    step, current = train_step(config), state.create(config)
    moved = []
    for i in range(5):
        before = current.generator.params["project"]["kernel"]
        current, _ = step(current, batch_of(config, i))
        moved.append(float(jnp.abs(current.generator.params["project"]["kernel"] - before).max()))
    # Full rate up to the third step, half in the fourth; a fifth, beyond the end, would move nothing.
    assert min(moved[:3]) > 1.5e-4
    assert moved[3] < 0.8 * moved[2]
    assert moved[4] == 0


def test_z_belongs_to_an_example_and_not_to_a_batch():
    key = latent.key(3, latent.TRAIN, 7)
    whole = latent.draw(key, jnp.arange(8), 5, "normal")
    part = latent.draw(key, jnp.arange(6, 8), 5, "normal")
    np.testing.assert_array_equal(whole[6:], part)
    assert not np.array_equal(whole, latent.draw(latent.key(3, latent.TRAIN, 8), jnp.arange(8), 5, "normal"))
    assert not np.array_equal(whole, latent.draw(latent.key(3, latent.SAMPLE, 7), jnp.arange(8), 5, "normal"))


@pytest.mark.parametrize(("prior", "variance", "largest"), [("normal", 1, 6), ("uniform", 1 / 3, 1)])
def test_priors(prior, variance, largest):
    z = latent.draw(latent.key(0, latent.TRAIN), jnp.arange(1000), 100, prior)
    assert z.mean() == pytest.approx(0, abs=0.02)
    assert z.var() == pytest.approx(variance, rel=0.02)
    assert abs(z).max() <= largest


def test_the_moving_average_starts_at_once_and_slows_down(tiny):
    def keep(step, **fields):
        return float(optimizers.average_decay(tiny(**fields))(jnp.int32(step)))

    assert keep(0, ema_decay=0.999) == pytest.approx(0.1)
    assert keep(10**6, ema_decay=0.999) == pytest.approx(0.999)
    assert keep(10**6, ema_decay=0.0) == 0
    # By half-life: what was there before as many images as the half-life counts half as much; at the start, those
    # before the last `ema_rampup` of all.
    assert keep(10**6, ema_half_life=800) ** (800 / 8) == pytest.approx(0.5, rel=1e-5)
    assert keep(99, ema_half_life=800, ema_rampup=0.2) ** (0.2 * 100) == pytest.approx(0.5, rel=1e-5)
    ones, zeros = {"w": jnp.ones(3)}, {"w": jnp.zeros(3)}
    assert optimizers.moving_average(ones, zeros, jnp.float32(0.75))["w"][0] == 0.75


def test_without_an_average_images_come_from_the_latest_weights(tiny):
    after, _ = run(tiny(ema_decay=0.0), 3)
    assert equal(after.ema.params, after.generator.params)


@pytest.mark.parametrize("num_classes", [0, 3])
def test_statistics_of_the_average_fit_its_parameters(tiny, num_classes):
    # Rule 4: with its running statistics the averaged generator makes what it makes with a large batch's own.
    config = tiny(num_classes=num_classes)
    after, _ = run(config, 10)
    ema = inference.recalibrate(config, after.ema)
    generator, _ = models.from_config(config)
    z = latent.draw(latent.key(9, latent.SAMPLE), jnp.arange(512), config.latent_dim, config.prior)
    labels = jnp.arange(512) % num_classes if num_classes else None
    variables = ema.variables()
    running = generator.apply(variables, z, labels)
    batch, _ = generator.apply(variables, z, labels, train=True, mutable=["batch_stats"])
    spread = batch.std()
    assert jnp.abs(running - batch).mean() < 0.1 * spread
    again = inference.recalibrate(config, ema)
    assert equal(again.stats, ema.stats), "a function of parameters and seed alone"


def test_scaling_covers_minus_one_to_one():
    np.testing.assert_array_equal(pixels.to_unit_range(jnp.array([0, 255], jnp.uint8)), [-1, 1])


def test_first_replica_is_not_touched_by_later_steps(tiny):
    config = tiny()
    step = devices.map_step(functools.partial(steps.train_step, steps.from_config(config, devices.AXIS)))
    current = devices.replicate(jax.device_get(state.create(config)))
    current, _ = step(current, devices.shard(batch_of(config)))
    kept = devices.first_replica(current)
    copy = jax.tree.map(np.copy, kept)
    for i in range(3):
        current, _ = step(current, devices.shard(batch_of(config, i)))
    assert equal(kept, copy)
    assert not equal(kept.generator.params, devices.first_replica(current).generator.params)


def test_both_placements_of_the_images_train_the_same(tiny, tmp_path):
    states = []
    for placement in ("host", "device"):
        config = tiny(num_steps=3, num_classes=10, dtype="float64")
        config.data.update(placement=placement, flip=True)
        with jax.enable_x64(True):
            states.append(train.train(config, tmp_path / placement))
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)


def test_a_flip_mirrors_half_of_the_images_by_their_index():
    images = jax.random.normal(jax.random.key(0), (200, 4, 6, 3))
    flipped = augment.flip(images, latent.example_keys(jax.random.key(1), jnp.arange(200)), jnp.int32(0))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (flipped == images).all((1, 2, 3))).all()
    assert 70 < mirrored.sum() < 130
    # An image's lot does not depend on who shares its replica.
    np.testing.assert_array_equal(
        flipped[50:60],
        augment.flip(images[50:60], latent.example_keys(jax.random.key(1), jnp.arange(50, 60)), jnp.int32(0)),
    )


def test_only_a_loss_that_reads_them_has_real_logits_computed_for_the_generator(tiny):
    config = tiny()
    relativistic = losses.Loss(
        lambda real, fake: jax.nn.softplus(fake - real), lambda fake, real: jax.nn.softplus(real - fake)
    )
    plain = steps.from_config(config)
    convolutions, traced = [], []

    def augmented(*arguments):
        traced[-1] += 1
        return plain.augment(*arguments)

    for loss in (plain.loss, relativistic):
        traced.append(0)
        method = dataclasses.replace(plain, loss=loss, augment=augmented)
        lowered = jax.jit(functools.partial(steps.train_step, method)).lower(state.create(config), batch_of(config))
        convolutions.append(lowered.as_text().count("convolution"))
    assert convolutions[1] == convolutions[0] + 2, "the discriminator's two layers, once more"
    assert traced == [3, 4], "how often images were traced on their way to the discriminator"


def test_each_of_several_discriminator_steps_has_images_of_its_own(tiny):
    # Two steps on the two halves of a batch are one step on each half, the generator's updates left out.
    config = tiny(generator_lr=1e-30)
    method = dataclasses.replace(steps.from_config(config), discriminator_steps=2)
    batches = [batch_of(config, seed) for seed in (0, 1)]
    both = {"images": np.concatenate([batch["images"] for batch in batches])}
    twice, _ = jax.jit(functools.partial(steps.train_step, method))(state.create(config), both)
    step, once = train_step(config), state.create(config)
    for batch in batches:
        once, _ = step(once, batch)
    assert_close(twice.discriminator.params, once.discriminator.params, 1e-6)
    assert int(twice.step) == 1


# What each recipe's step computes, in float64 on one device. These numbers change when the method changes: another
# loss, initialisation, order of random numbers, rule of batch norm or optimizer. If that is what you want, print the
# new ones from the failure below, and say in CHANGELOG.md that runs of the earlier version cannot be repeated.
GOLDEN = {
    "default": (
        3.53966084282,
        2.89009960594,
        2.80778954088,
        2.2910320786,
        3.53965076260,
        1.39070464956,
        0.68827062907,
    ),
    "paper": (11.506219984, 2.91401209133, 9.30837040881, 2.29103740884, 11.506219984, 1.33354553564, 0.7987701114),
    "torch": (3.53963847946, 2.89035302665, 2.8077847027, 2.29103184601, 3.53963847946, 1.39543099832, 0.6884698998),
    "conditional": (
        0.84935800481,
        0.863740527057,
        3.3418783083,
        2.92620410516,
        0.849362828354,
        1.38924659481,
        0.682823977472,
    ),
}
SMALLER = dict(image_size=(16, 16), channels=1, width=4, batch_size=8, latent_dim=6, dtype="float64")


@pytest.mark.parametrize("name", GOLDEN)
def test_one_step_of_each_recipe_is_what_it_was(name):
    config = configuration.recipe("default" if name == "conditional" else name)
    config.update(SMALLER)
    if name == "conditional":
        config.update(dict(num_classes=3, dense=(5,), output="sigmoid", norm_affine=False))
        config.data.flip = True
    with jax.enable_x64(True):
        after, metrics = run(configuration.validate(config), 2)
    sizes = [
        float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(part))))
        for part in (
            after.generator.params,
            after.discriminator.params,
            after.generator.stats,
            after.discriminator.stats,
            after.ema.params,
        )
    ]
    found = (*sizes, float(metrics["d_loss"]), float(metrics["g_loss"]))
    np.testing.assert_allclose(found, GOLDEN[name], rtol=1e-8, err_msg=f"the step of {name!r} has changed: {found}")


def test_the_metrics_are_those_that_are_declared(tiny):
    config = tiny()
    _, metrics = jax.eval_shape(train_step(config), state.abstract(config), batch_of(config))
    assert set(metrics) == set(METRICS)
