"""What a new run starts from: untrained networks, or those of another run (`config.init`)."""

import logging
from typing import Any

import jax
from flax import serialization
from ml_collections import ConfigDict

from dcgan_jax import state as states
from dcgan_jax.config import flatten
from dcgan_jax.fields import FIELDS, SECTIONS
from dcgan_jax.run import places, trees
from dcgan_jax.runtime.errors import UserError, rename_fields
from dcgan_jax.runtime.progress import Progress
from dcgan_jax.state import GANState

log = logging.getLogger("dcgan_jax")

Tree = dict[str, Any]

# The fields that networks follow from.
DESCRIBING = ("image_size", "channels", "num_classes", *SECTIONS["Networks"])


def networks(config: ConfigDict) -> Tree:
    """Both networks and the moving average in the newest checkpoint of `config.init`; {} if that is ''.

    Raises UserError if there is no such run, or its networks have other shapes.
    """
    if not config.init:
        return {}
    with rename_fields({"workdir": "config.init"}):
        tree, meta = places.read(config.init)
        if "discriminator" not in tree:
            raise UserError(
                f"workdir: {config.init!r} holds a generator alone, expected both networks; pass the run that it is "
                "from, or its export in the format hub"
            )
    tree = {"generator": tree["ema"]} | tree  # a folder of weights has the average alone
    found = _without_optimizers(tree)
    expected = _without_optimizers(serialization.to_state_dict(states.abstract(config)))
    differing = trees.differences(found, expected)
    if differing:
        theirs, ours = flatten(meta["config"]), flatten(config.to_dict())
        wanted = {name: theirs.get(name, FIELDS[name].default) for name in DESCRIBING}
        wanted = {name: tuple(value) if isinstance(value, list) else value for name, value in wanted.items()}
        advice = " ".join(f"--config.{name}={_typed(value)}" for name, value in wanted.items() if value != ours[name])
        raise UserError(
            f"config.init: the networks in {config.init!r} have other shapes ({'; '.join(differing[:3])}; "
            f"{len(differing)} leaves in all); pass {advice}"
        )
    log.info("the networks are those of step %d in %s", tree["step"], config.init)
    return found


def _typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def state(config: ConfigDict, started_from: Tree) -> GANState:
    """The state at step 0, as numpy arrays. started_from: of `networks`."""
    # Its small programs wait for the compiler, which is busy with the step.
    with Progress("making the networks", compiles={name: config[name] for name in DESCRIBING}):
        created = jax.device_get(states.create(config))
    tree = serialization.to_state_dict(created)
    return serialization.from_state_dict(
        created, tree | {name: tree[name] | part for name, part in started_from.items()}
    )


def _without_optimizers(tree: Tree) -> Tree:
    return {
        name: {collection: value for collection, value in tree[name].items() if collection != "opt_state"}
        for name in ("generator", "discriminator", "ema")
    }
