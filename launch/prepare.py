"""Prepares images for training: python launch/prepare.py --config=configs/NAME.py [--config.KEY=VALUE ...]

Takes the flags of launch/train.py, which prepares by itself what is not prepared yet: this does it beforehand, or on
another machine. It prints the folder of the prepared set. The same command goes on where it was stopped.

--deduplicate: also makes a set without near-duplicates beside it, with pictures of what fell out, and prints that.
--verify: compares all bytes of the set with the hashes on its card.
"""

import cli
import configuration
from absl import flags

from dcgan_jax.errors import UserError

WORKERS = flags.DEFINE_integer("workers", None, "threads that decode; as many as cores by default", lower_bound=1)
DEDUPLICATE = flags.DEFINE_bool("deduplicate", False, "leave near-duplicates out")
VERIFY = flags.DEFINE_bool("verify", False, "compare the whole set with its hashes")


def main() -> None:
    from dcgan_jax import data
    from dcgan_jax.config import validate

    config = validate(configuration.given()[0])
    if config.data.source == "prepared":
        raise UserError(
            "config.data.source: found 'prepared', expected a source to prepare; pass one, such as 'folder'"
        )
    path = data.find_or_prepare(config, workers=WORKERS.value)
    image_set = data.open_set(path, verify=VERIFY.value)
    if DEDUPLICATE.value:
        from dcgan_jax.data import duplicates  # with JAX, which takes a second to import

        path = duplicates.deduplicate(path, config.seed)
        image_set = data.open_set(path)
        print(f"train on it with --config.data.source=prepared --config.data.path={path}")
    print(f"{path}: {len(image_set.images)} images of {image_set.images.shape[1:]}")


if __name__ == "__main__":
    cli.run(main, __doc__, check=configuration.check)
