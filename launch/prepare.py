"""Prepares images for training: python launch/prepare.py --config=configs/NAME.py [--config.KEY=VALUE ...]

Takes the flags of launch/train.py, which prepares by itself what is not prepared yet: this does it beforehand, or on
another machine. It prints the folder of the prepared set. The same command goes on where it was stopped.

dcgan_jax/config.py explains every KEY, docs/data.md the sources.

--deduplicate: also makes a set without near-duplicates beside it, with pictures of what fell out, and prints how to
train on it. It trains a small network to find them: minutes, not seconds.
--verify: compares all bytes of the set with the hashes on its card; with --config.data.source=prepared, of any set.
"""

import cli
import configuration
from absl import flags

WORKERS = flags.DEFINE_integer("workers", None, "threads that decode; as many as cores by default", lower_bound=1)
DEDUPLICATE = flags.DEFINE_bool("deduplicate", False, "leave near-duplicates out")
VERIFY = flags.DEFINE_bool("verify", False, "compare the whole set with its hashes")


def main() -> None:
    from dcgan_jax import data
    from dcgan_jax.config import validate
    from dcgan_jax.data.prepared import prepared_path

    config = validate(configuration.given()[0])
    if config.data.source == "prepared":
        path = prepared_path(config)
    else:
        path = data.find_or_prepare(config, workers=WORKERS.value)
    image_set = data.load(config)
    if VERIFY.value:
        data.open_set(path, verify=True)
    verified = ", verified" if VERIFY.value else ""
    print(f"{path}: {len(image_set.images)} images of {image_set.images.shape[1:]}{verified}")
    if DEDUPLICATE.value:
        from dcgan_jax import compilation
        from dcgan_jax.data import duplicates  # with JAX, which takes a second to import

        compilation.remember()
        path = duplicates.deduplicate(path, config.seed)
        count, height, width, channels = data.open_set(path).images.shape
        print(f"{path}: {count} images without near-duplicates; train on them with")
        print(
            f"--config.data.source=prepared --config.data.path={path} "
            f"--config.image_size={height},{width} --config.channels={channels}"
        )


if __name__ == "__main__":
    cli.run(main, __doc__, check=configuration.check)
