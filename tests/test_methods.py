"""Methods as wholes: what their steps do, that devices do not matter, and what may not be combined."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_steps
from conftest import SMALL, Job, launch
from test_steps import assert_close, equal

import dcgan_jax
from dcgan_jax import config as configuration
from dcgan_jax import latent, models, state, steps, train
from dcgan_jax.evaluation.tables import supervised
from dcgan_jax.fields import GRADIENT_PENALTIES
from dcgan_jax.ops.spectral_norm import SpectralNorm
from dcgan_jax.run import checkpoint
from dcgan_jax.runtime.errors import UserError

_strict = test_steps._strict

NETWORKS = ("generator", "discriminator")

# Together they have every part of a method at least once.
METHODS = {
    "stable": configuration.STABLE | dict(num_steps=4, image_size=(8, 8), features=(4, 6), strides=(2, 2)),
    "relativistic": dict(
        loss="relativistic", r1=1.0, r2=1.0, penalty_every=2, discriminator_norm="none", augment="color,translation",
        ema_half_life=100, image_size=(8, 8), channels=3, features=(4,), strides=(2,),
    ),
    "spectral": dict(loss="hinge", discriminator_norm="spectral", discriminator_steps=2, num_classes=3),
    "wasserstein": dict(
        loss="wasserstein", gradient_penalty=10.0, discriminator_norm="layer", generator_norm="layer", fresh_z=True,
        burn_in_steps=2, b1_end=0.0, b2_end=0.9, penalty_end=0.5, lr_warmup_steps=2, lr_decay_steps=2, num_steps=4,
        lr_decay_shape="cosine",
    ),
    "dragan": dict(
        label_smoothing=0.1, dragan=10.0, discriminator_norm="group", generator_norm="none", instance_noise=0.2,
        burn_in_steps=3, discriminator_activation="softplus", consistency_fake=10.0, augment="cutout", l2=1e-3,
    ),
    "least squares": dict(
        loss="least_squares", r1=0.1, gradient_penalty=1.0, dragan=1.0, penalty_every=3, consistency_real=1.0,
        discriminator_norm="spectral", generator_norm="group", discriminator_steps=2, dense=(16,), num_classes=3,
        output="sigmoid",
    ),
}  # fmt: skip


def often(*daily, nightly):
    """Parameters of a test; some for the nightly run alone."""
    cases = [case if isinstance(case, tuple) else (case,) for case in nightly if case not in daily]
    return [*daily, *(pytest.param(*case, marks=pytest.mark.nightly) for case in cases)]


def batch_of(config, seed):
    """A global batch for each update of the discriminator: arrays [discriminator_steps * B, ...]."""
    count = config.discriminator_steps
    parts = [test_steps.batch_of(config, seed * count + i) for i in range(count)]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def create(config):
    with jax.numpy_dtype_promotion("standard"):  # optax has int32 / float
        return state.create(config)


class Plain:
    """Training on one device without any axis, step by step."""

    def __init__(self, config):
        self.config, self.state, self.metrics = config, create(config), None
        self.start = self.state
        self.step = jax.jit(functools.partial(steps.train_step, steps.from_config(config)))

    def until(self, count):
        for i in range(int(self.state.step), count):
            self.state, self.metrics = self.step(self.state, batch_of(self.config, i))
        return jax.device_get((self.state, self.metrics))


def on_devices(config, start, count, devices):
    """State and metrics after some steps on several devices."""
    sharding = jax.sharding.NamedSharding(
        jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("replica",)), jax.sharding.PartitionSpec("replica")
    )
    step = functools.partial(steps.train_step, steps.from_config(config, "replica"))
    step = jax.pmap(step, axis_name="replica", devices=jax.devices()[:devices])

    def spread(array):
        """[updates * B, ...] to [devices, updates * B / devices, ...]: a share of each update's batch."""
        shares = array.reshape(config.discriminator_steps, devices, -1, *array.shape[1:])
        return np.moveaxis(shares, 1, 0).reshape(devices, -1, *array.shape[1:])

    current = jax.device_put(jax.tree.map(lambda x: np.stack([x] * devices), jax.device_get(start)), sharding)
    for i in range(count):
        batch = jax.device_put(jax.tree.map(spread, batch_of(config, i)), sharding)
        current, metrics = jax.block_until_ready(step(current, batch))
    for leaf in jax.tree.leaves(jax.device_get(current)):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape), err_msg="replicas drift apart")
    return jax.tree.map(lambda x: np.asarray(x[0]), jax.device_get((current, metrics)))


def updates(network):
    """How many updates Adam has made."""
    return optax.tree_utils.tree_get_all_with_path(network.opt_state, "count")[0][1]


TRAININGS = {}


@pytest.fixture
def plain(tiny):
    """plain(name): a method's training in float64, the same one for all tests; to be used with 64 bits enabled."""

    def training(name):
        if name not in TRAININGS:
            TRAININGS[name] = Plain(tiny(dtype="float64", **METHODS[name]))
        return TRAININGS[name]

    return training


# `stable` is what default trains by, of which test_steps.py has this.
EXACT = often(nightly=[(name, devices) for name in METHODS for devices in (1, 4)])


@pytest.mark.parametrize(("name", "devices"), EXACT)
def test_devices_do_not_matter(plain, name, devices):
    with jax.enable_x64(True):
        alone = plain(name)
        found = on_devices(alone.config, alone.start, 3, devices)
        expected = alone.until(3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
    assert expected[0].discriminator.params["conv_0"]["kernel"].dtype == np.float64
    assert ("d_penalty" in expected[1]) == (name not in ("stable", "spectral"))
    assert_close(found, expected, 1e-8)
    expected_updates = {"relativistic": 3 + 1, "spectral": 6, "least squares": 6 + 2}.get(name, 3)
    assert updates(expected[0].discriminator) == expected_updates


@pytest.mark.parametrize("name", METHODS)
def test_state_and_metrics_are_float32_beside_bfloat16(tiny, name):
    config = tiny(dtype="bfloat16", **METHODS[name])
    before = jax.eval_shape(functools.partial(create, config))
    step = functools.partial(steps.train_step, steps.from_config(config))
    after, metrics = jax.eval_shape(step, before, batch_of(config, 0))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), before
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((after, metrics)) if leaf.dtype != np.int32} == {np.dtype("float32")}


@pytest.mark.parametrize("name", often(nightly=METHODS))
def test_steps_in_bfloat16_are_finite_and_move_both(tiny, name):
    training = Plain(tiny(dtype="bfloat16", **METHODS[name]))
    after, metrics = training.until(2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, metrics)))
    for network in NETWORKS:
        assert not equal(getattr(after, network).params, getattr(training.start, network).params)
    assert metrics.get("d_penalty", 1) > 0


# Networks that are compiled in a second, with a discriminator whose slope depends on the image.
DENSE = dict(
    image_size=(2, 2), convolutional=False, dense=(4,), discriminator_norm="none", discriminator_activation="tanh",
    dtype="float64",
)  # fmt: skip


class BySgd:
    """One step of a method whose discriminator learns by plain gradients, with a learning rate of 1."""

    def __init__(self, config, start):
        method = steps.from_config(config)
        sgd = method.optimizers._replace(discriminator=optax.sgd(1.0))
        self.method = dataclasses.replace(method, optimizers=sgd)
        self.batch = batch_of(config, 0)
        # Large weights, so that slopes are not small.
        params = jax.tree.map(lambda leaf: 30 * leaf, start.discriminator.params)
        discriminator = state.NetworkState(params, start.discriminator.stats, sgd.discriminator.init(params))
        self.start = start.replace(discriminator=discriminator)
        self._step = jax.jit(functools.partial(steps.train_step, self.method))

    def __call__(self, number):
        """The discriminator's parameters after the step of this number, and its metrics."""
        after, metrics = self._step(self.start.replace(step=jnp.int32(number)), self.batch)
        return after.discriminator.params, metrics

    @functools.partial(jax.jit, static_argnums=0)
    def penalty(self, number, params, weights):
        """Half the squared slopes at real and at generated images, by these weights; and its gradient."""
        real = jnp.asarray(self.batch["images"], float) / 127.5 - 1
        key = latent.key(self.method.seed, latent.TRAIN, number)
        z = latent.draw(key, jnp.arange(len(real)), self.method.latent_dim, self.method.prior)
        generator = self.start.generator.variables()
        fake, _ = self.method.generator.apply(generator, z, train=True, mutable=["batch_stats"])

        def mean(params, images):
            def logit(image):
                return self.method.discriminator.apply({"params": params}, image[None])[0]

            return jnp.mean(jnp.sum(jax.vmap(jax.grad(logit))(images) ** 2, (1, 2, 3))) / 2

        return jax.value_and_grad(lambda p: weights[0] * mean(p, real) + weights[1] * mean(p, fake))(params)


def test_lazy_penalties_have_updates_of_their_own_each_so_many_times_as_strong(tiny):
    # So light that updates with a rate of 1 do not run away.
    penalties, weights = dict(r1=0.003, r2=0.007), (0.003, 0.007)
    with jax.enable_x64(True):
        start = create(tiny(**DENSE))
        each = BySgd(tiny(**DENSE, **penalties), start)
        lazy = BySgd(tiny(**DENSE, **penalties, penalty_every=3), start)
        for number, due in ((0, False), (1, False), (2, True), (3, False), (5, True)):
            # Without an interval, the penalty is a part of each update's objective.
            after, metrics = each(number)
            value, gradient = each.penalty(number, each.start.discriminator.params, weights)
            assert_close(metrics["d_penalty"], value, 1e-12)
            assert optax.tree.norm(gradient) > 1e-3
            by_loss = jax.tree.map(jnp.add, after, gradient)
            # A lazy one has an update of its own, which follows that by the loss.
            after, metrics = lazy(number)
            value, gradient = each.penalty(number, by_loss, weights)
            assert_close(metrics["d_penalty"], value if due else 0.0, 1e-12)
            step = jax.tree.map(lambda leaf, strength=3.0 * due: strength * leaf, gradient)
            assert_close(after, jax.tree.map(jnp.subtract, by_loss, step), 1e-10)


def test_several_discriminator_steps_and_lazy_penalties_end_with_the_schedule(tiny):
    fields = DENSE | dict(r1=1.0, penalty_every=4, discriminator_steps=2, num_steps=4, lr_decay_steps=4)
    with jax.enable_x64(True):
        training, moved, paid = Plain(tiny(**fields)), [], []
        for step in range(1, 6):
            before = training.state
            after, metrics = training.until(step)
            paid.append(bool(metrics["d_penalty"] > 0))
            moved.append([not equal(getattr(before, name).params, getattr(after, name).params) for name in NETWORKS])
    assert moved == [[True, True]] * 4 + [[False, False]]
    assert paid == [False, True, False, True, False], "at every fourth update, two a step"
    assert updates(after.discriminator) == 10 + 2
    assert updates(after.generator) == 5


def test_after_training_with_spectral_norm_the_largest_singular_values_are_1(plain):
    def largest(network, **mode):
        """The largest singular value of each layer's weight, as the network uses it."""
        values = {}
        for name, layer in network.params.items():
            vectors = {"spectral": network.stats["spectral"][name]["weight_norm"]}
            weight, _ = SpectralNorm(**mode).apply(vectors, layer["kernel"], mutable=["spectral"])
            values[name] = np.linalg.svd(weight.reshape(-1, weight.shape[-1]), compute_uv=False)[0]
        return values

    with jax.enable_x64(True):
        training = plain("spectral")
        after, _ = training.until(30)
        assert largest(after.discriminator) == pytest.approx(dict.fromkeys(("conv_0", "conv_1", "logit"), 1), abs=1e-2)
        in_training = largest(after.discriminator, train=True).values()
        at_start = largest(jax.device_get(training.start.discriminator), train=True).values()
    # One iteration an update does not quite follow weights that move fast.
    assert 1 - 1e-6 < min(in_training) <= max(in_training) < 1.1 < max(at_start)
    assert set(after.discriminator.stats) == {"batch_stats", "spectral"}
    assert after.discriminator.stats["batch_stats"] == {}
    assert set(after.generator.stats) == {"batch_stats"}


def test_state_that_a_method_adds_is_saved_and_restored(plain, tmp_path):
    with jax.enable_x64(True):
        training = plain("spectral")
        training.until(3)
        save(tmp_path, training)
        restored, _ = checkpoint.restore(tmp_path, jax.eval_shape(lambda: training.state))
        assert jax.tree.structure(restored) == jax.tree.structure(training.state)
        assert equal(restored, training.state)
        tree, _ = checkpoint.read(tmp_path)
        assert set(tree["discriminator"]) == {"params", "batch_stats", "spectral", "opt_state"}
        assert set(tree["discriminator"]["spectral"]) == set(tree["discriminator"]["params"])
        assert set(tree["generator"]) == {"params", "batch_stats", "opt_state"}
        gan = dcgan_jax.load(tmp_path)
        # What is made of a run works with these networks too.
        labels, images = np.arange(8) % 3, test_steps.batch_of(training.config)["images"]
        expected = gan.discriminator.apply(gan.discriminator_variables, images / 127.5 - 1, labels)
        np.testing.assert_allclose(gan.discriminate(images, labels), expected, atol=1e-5)
        assert gan.features(images, labels).shape == (8, 4 * 4 * (4 + 8))
        assert equal(gan.with_statistics_of(images).discriminator_variables, gan.discriminator_variables)


def save(folder, training):
    checkpoints = checkpoint.Checkpoints(folder, keep=1)
    checkpoints.save(int(training.state.step), training.state, {"config": training.config.to_dict(), "data": {}})
    checkpoints.wait()
    checkpoints.close()


@pytest.mark.nightly
@pytest.mark.parametrize("name", METHODS)
def test_a_run_goes_on_as_if_it_had_not_stopped(tiny, tmp_path, name):
    classes = 10 if "num_classes" in METHODS[name] else 0
    fields = METHODS[name] | dict(num_steps=4, num_classes=classes, checkpoint_every=2, quality=False)
    config = tiny(**fields)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        straight = train.train(config, tmp_path / "straight")
        shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
        shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "4")
        resumed = train.train(config, tmp_path / "resumed")
    assert jax.tree.structure(straight) == jax.tree.structure(resumed)
    assert equal(straight, resumed)
    assert equal(checkpoint.read(tmp_path / "straight")[0], checkpoint.read(tmp_path / "resumed")[0])


@pytest.mark.nightly
def test_the_supervised_baseline_takes_a_discriminator_with_spectral_norm(tiny):
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
    learned = supervised.LabelledImages(images, np.arange(16) % 3)
    trial = supervised.Trial(learning_rate=1e-2, b1=0.5, weight_decay=1e-3, batch_size=8)
    network = models.from_config(tiny(image_size=(8, 8), discriminator_norm="spectral"))[1]
    with jax.numpy_dtype_promotion("standard"):
        classifier = supervised.train(network, 3, learned, trial, 30 * 8, 0)
        assert set(classifier.variables) == {"params", "batch_stats", "spectral"}
        assert classifier.accuracy(learned) > 0.5


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        *(
            (
                {name: 1.0},
                "config.discriminator_norm: found 'batch', expected 'none', 'spectral', 'layer' or 'group' with "
                f"{name}: with batch norm a logit depends on the whole batch",
            )
            for name in GRADIENT_PENALTIES
        ),
        ({"r1": 1.0, "r2": 1.0, "penalty_every": 16}, "with r1 and r2: with batch norm"),
        ({"label_smoothing": 0.1, "loss": "hinge"}, "config.label_smoothing: found 0.1, expected 0 with another loss"),
        ({"loss": "hinges"}, "config.loss: found 'hinges', expected one of 'non_saturating', 'hinge'"),
        ({"discriminator_norm": "instance"}, "'batch', 'spectral', 'layer', 'group', 'none'"),
        ({"generator_norm": "spectral"}, "'batch', 'layer', 'group', 'none'"),
        ({"generator_activation": "gelu"}, "'relu', 'leaky_relu', 'tanh', 'softplus'"),
        ({"augment": "color,cutouts"}, "config.augment: found 'color,cutouts', expected '', or some of color"),
        ({"lr_decay_shape": "step"}, "'linear', 'cosine'"),
        ({"penalty_every": 0}, "at least 1"),
        ({"discriminator_steps": 0}, "1 to 100"),
        ({"r1": -0.5}, "-1, or 0 or more"),
        ({"b1_end": 1.0}, "-1, or a number in [0, 1)"),
        ({"dragon": 1.0}, "config.dragon: unknown field; did you mean config.dragan?"),
    ],
)
def test_what_may_not_be_combined_is_told_in_one_line(fields, told):
    config = configuration.default_config()
    with config.unlocked():
        config.update(fields)
    with pytest.raises(UserError) as error:
        configuration.validate(config)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "r1", "every"),
    [
        *(({"discriminator_norm": norm}, 1.0, 4) for norm in ("layer", "group", "none")),
        *(({"discriminator_norm": norm}, 0.0, 1) for norm in ("batch", "spectral")),
        *(({"discriminator_norm": "layer", "generator_norm": norm}, 0.0, 1) for norm in ("batch", "layer")),
        ({"discriminator_norm": "none", "gradient_penalty": 10.0}, 0.0, 1),
        ({"discriminator_norm": "none", "r1": 0.0}, 0.0, 1),
        ({"discriminator_norm": "none", "r1": 0.5}, 0.5, 1),
    ],
)
def test_stable_has_r1_where_no_normalisation_holds_the_networks(fields, r1, every):
    config = configuration.recipe("stable")
    config.update({"generator_norm": "none"} | fields)
    validated = configuration.validate(config)
    assert (validated.r1, validated.penalty_every) == (r1, every)
    assert configuration.validate(validated) == validated


def test_a_resumed_run_keeps_its_method(tiny):
    old = tiny(r1=1.0, discriminator_norm="none")
    changes = dict(
        loss="hinge", r1=2.0, r2=1.0, dragan=1.0, gradient_penalty=1.0, consistency_real=1.0, consistency_fake=1.0,
        penalty_every=16, penalty_end=0.5, burn_in_steps=10, b1_end=0.0, b2_end=0.9, augment="color",
        instance_noise=0.1, discriminator_steps=2, discriminator_norm="spectral", generator_norm="none",
        discriminator_activation="relu", generator_activation="tanh", lr_warmup_steps=5, lr_end=0.5,
        lr_decay_shape="cosine", ema_half_life=100,
    )  # fmt: skip
    for name, value in changes.items():
        new = tiny(**dict(r1=1.0, discriminator_norm="none") | {name: value})
        assert configuration.differences(old.to_dict(), new.to_dict()) == [
            f"{name}: {old[name]!r} there, {value!r} here"
        ]
    assert configuration.differences(old.to_dict(), old.to_dict()) == []


TWICE = (
    *SMALL, "--config.num_steps=4", "--config.dtype=float64", "--config.discriminator_steps=2", "--config.loss=hinge",
    "--config.discriminator_norm=spectral", "--config.num_classes=10", "--config.data.flip=True",
    "--config.checkpoint_every=1000", "--config.sample_every=1000", "--config.quality=False",
)  # fmt: skip


@pytest.mark.nightly
def test_two_processes_train_the_same_with_spectral_norm_and_two_discriminator_steps(tmp_path):
    done = launch("train", *TWICE, f"--workdir={tmp_path}/alone", JAX_ENABLE_X64="1")
    assert done.returncode == 0, done.stderr
    with Job(tmp_path, 2, 2, *TWICE, f"--workdir={tmp_path}/together", JAX_ENABLE_X64="1") as job:
        assert job.wait() == [0, 0], job.told()
    alone, together = (checkpoint.read(tmp_path / name)[0] for name in ("alone", "together"))
    assert alone["discriminator"]["spectral"]["conv_0"]["weight_norm"]["left"].dtype == np.float64
    assert_close(alone, together, 1e-8)
