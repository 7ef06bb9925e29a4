"""Prepares images for training: python launch/prepare.py --config=configs/NAME.py [--config.KEY=VALUE ...]

    python launch/prepare.py --config=configs/celeba.py --config.data.path=img_align_celeba.zip
    python launch/prepare.py --config=configs/folder.py --config.data.path=FOLDER --config.image_size=64 --deduplicate

Takes the configuration of launch/train.py, which prepares images by itself if necessary: use this to do it beforehand,
or on another machine. It prints the folder of the prepared set. If it was interrupted, the same command continues.

--help_config explains every KEY, docs/data.md the sources.

--deduplicate: also makes a set without near-duplicates, with pictures of what was removed, and prints how to train on
it. It trains a small network to find them, which takes minutes.
--verify: compares all bytes of the set with the hashes on its card; with --config.data.source=prepared, of any set.
"""

import cli
import configuration
from absl import flags

WORKERS = flags.DEFINE_integer(
    "workers", None, "threads that decode images; by default one for each core", lower_bound=1
)
DEDUPLICATE = flags.DEFINE_bool("deduplicate", False, "also make a set without near-duplicates")
VERIFY = flags.DEFINE_bool("verify", False, "compare all bytes of the set with its hashes")


def main() -> None:
    from dcgan_jax import data
    from dcgan_jax.config import validate
    from dcgan_jax.data import prepared_path

    config = validate(configuration.from_flags()[0])
    if DEDUPLICATE.value:
        from dcgan_jax.runtime import devices  # with JAX, which takes a second to import

        devices.check()
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
        from dcgan_jax.data import near_duplicates
        from dcgan_jax.runtime import compile_cache

        compile_cache.enable()
        path = near_duplicates.deduplicate(path, config.seed)
        count, height, width, channels = data.open_set(path).images.shape
        print(f"{path}: {count} images without near-duplicates; train on them with")
        print(
            f"--config.data.source=prepared --config.data.path={path} "
            f"--config.image_size={height},{width} --config.channels={channels}"
        )


if __name__ == "__main__":
    cli.run(main, __doc__, read=configuration.read)
