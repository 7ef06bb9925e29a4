"""What a run needs before its first step: a configuration alike on all processes, a state, images, measures."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dcgan_jax import config as configuration
from dcgan_jax import data
from dcgan_jax import state as states
from dcgan_jax.evaluation import evaluate, extractors
from dcgan_jax.evaluation.evaluate import Evaluator
from dcgan_jax.evaluation.quality import Quality
from dcgan_jax.fields import METRICS
from dcgan_jax.run import profile, trackers
from dcgan_jax.run.workdir import Claim, check_data
from dcgan_jax.runtime import devices, dispatch
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.multihost import broadcast, check_equal, fail_on_all, run_on_all
from dcgan_jax.runtime.versions import versions
from dcgan_jax.state import GANState

log = logging.getLogger("dcgan_jax")


class Run(NamedTuple):
    """What training works with from its first step to its last, through all rollbacks."""

    config: ConfigDict
    workdir: Path
    image_set: data.ImageSet
    placement: str
    evaluator: Evaluator | None
    quality: Quality | None


def validated(config: ConfigDict) -> ConfigDict:
    """The checked configuration, which must be the same on all processes, and so must the versions of packages."""
    with fail_on_all():
        config = configuration.validate(config)
        if config.dtype == "float64" and jnp.result_type(float) != jnp.float64:
            raise UserError(
                "config.dtype: found 'float64' without 64-bit JAX, expected 'float32'; or set JAX_ENABLE_X64=1"
            )
        devices.check_batch_size(config.batch_size, synchronised=config.sync_batch_norm)
    settings = {f"config.{name}": value for name, value in configuration.flatten(config.to_dict()).items()}
    for name in ("config.data.path", "config.data.prepared"):  # images may lie in another place on each
        del settings[name]
    check_equal(settings | {f"versions.{name}": value for name, value in versions().items()})
    return config


def broadcast_start(config: ConfigDict, state: GANState | None) -> tuple[int, GANState | None]:
    """The step to go on from, and the state there (None at the start), of process 0, on all processes."""
    start = int(broadcast(np.int32(state.step if state else 0)))
    if not start:
        return 0, None
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), states.abstract(config))
    return start, broadcast(state or empty)


def check_source_and_measures(config: ConfigDict) -> None:
    """Raises UserError for what can be found wrong before images are prepared, and anything is traced or compiled."""
    run_on_all(lambda: _check_measures(config))
    run_on_all(lambda: data.check_source(config) if jax.process_index() == 0 else None)


def prepare(config: ConfigDict, workdir: Path, claimed: Claim, compiled: Callable[[], object]) -> Run:
    """Images and measures, checked against the run that is resumed. compiled: returns when the steps are."""
    image_set = _load_images(config)
    with fail_on_all():
        if claimed.card:  # first: of images that have changed, the classes may have changed too
            check_data(image_set.card, claimed.card, workdir, config)
        image_set = data.for_training(image_set, config)
        placed = dispatch.placement(config.data.placement, image_set.images.nbytes, config.data.device_share)
    check_equal({"config.data.placement": placed})
    evaluator = run_on_all(lambda: _evaluator(config))
    # Of a single image nothing can be learned. Its own seed: numbers of runs on the same images can be compared.
    quality = Quality(image_set, after=compiled) if config.quality and len(image_set.images) > 1 else None
    kind = jax.devices()[0].device_kind
    where = f"{jax.device_count()} device(s) ({kind}), {jax.process_count()} process(es)"
    count, *shape = image_set.images.shape
    log.info("%d images of %s on %s, read from the %s's memory", count, tuple(shape), where, placed)
    return Run(config, workdir, image_set, placed, evaluator, quality)


def _load_images(config: ConfigDict) -> data.ImageSet:
    # Process 0 first: if the disk is shared, the others find what would collide if all prepared it at once.
    first = jax.process_index() == 0
    loaded = run_on_all(lambda: data.load_any(config) if first else None)
    image_set = run_on_all(lambda: loaded or data.load_any(config))
    check_equal({f"data.{name}": image_set.card[name] for name in ("count", "sha256")})
    return image_set


def _check_measures(config: ConfigDict) -> None:
    trackers.check(config.logger)
    profile.check(config)
    if not config.eval_every:
        return
    specs = evaluate.check_names(config.eval_metrics, config.eval_features)
    known = ["quality", *METRICS, *(name for spec in specs for name in spec.result_names)]
    if config.best_metric and config.best_metric not in known:
        raise UserError(f"config.best_metric: found {config.best_metric!r}, expected one of {', '.join(known)}")
    extractors.find_weights(config.eval_features, config.inception_weights, config.channels)


def _evaluator(config: ConfigDict) -> Evaluator | None:
    if not config.eval_every:
        return None
    return evaluate.from_config(
        config, config.eval_metrics, config.eval_features, weights=config.inception_weights, seed=config.seed
    )
