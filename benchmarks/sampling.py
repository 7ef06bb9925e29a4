"""Sampled images per second, against PyTorch, and features of images per second.

    python benchmarks/sampling.py [--config=...] [--peer=torch] [--features=inception,quality]

Untrained networks take as long as trained ones. `TrainedGAN.sample` draws z and returns uint8 images;
`TrainedGAN.generate` is given z and returns float32 images; both on the host, in chunks of a size that suits the device
(`dcgan_jax/ops/chunks.py`). The peer is PyTorch's generator (benchmarks/torch_dcgan.py) in eval mode, without
gradients, in chunks of that size and of --chunk, in turns with it. --features: of as many images of this size, for FID
('inception') and for `quality` at checkpoints.
"""

import argparse
import statistics
from functools import partial

import flops
import jax
import measure
import numpy as np
from flax import serialization
from ml_collections import ConfigDict

from dcgan_jax import inference, state
from dcgan_jax.evaluation import feature_classifier, inception, inception_weights, quality
from dcgan_jax.evaluation.features import Extractor


def main() -> None:
    parser = measure.parser(__doc__, "configs/celeba.py:torch")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--peer", choices=["torch"])
    parser.add_argument("--modes", default="eager,channels_last,compiled_last", help="of the peer")
    parser.add_argument("--chunk", type=int, default=512, help="of the peer, besides ours")
    parser.add_argument("--features", default="", help="some of inception,quality")
    options = parser.parse_args()
    config = measure.configuration(options)
    print(f"{measure.title(config, options)}, {options.count} images", flush=True)

    gan = inference.TrainedGAN(config, serialization.to_state_dict(state.create(config)))
    z = np.random.default_rng(0).standard_normal((options.count, config.latent_dim), np.float32)
    runs = {
        "ours, sample": repeated(partial(gan.sample, options.count)),
        "ours, generate": repeated(partial(gan.generate, z)),
    }
    for name in filter(None, options.features.split(",")):
        runs[f"features, {name}"] = repeated(partial(FEATURES[name](config), random_images(config, options.count)))
    rows = []
    if options.peer:
        theirs, rows = peers(options, config, gan.chunk)
        runs |= theirs
    times = measure.in_turns(runs, options.repeats, 0.0)
    work = flops.generator_forward(config) * options.count
    for name, column in times.items():
        seconds = statistics.median(column)
        ratio = measure.ratio(column, times["ours, sample"])
        row = {"who": name, "seconds": seconds, "images/s": options.count / seconds}
        if not name.startswith("features"):
            row |= {"GFLOP/s": work / seconds / 1e9, "ours, sample is": ratio}
        rows.append(row)
    measure.report(options, rows, seconds=times, chunk=gan.chunk)


def peers(options: argparse.Namespace, config: ConfigDict, chunk: int) -> tuple[dict[str, measure.Run], list[dict]]:
    """PyTorch's runs by name, and a row for each that fails."""
    try:
        import torch_dcgan
    except ImportError as error:
        return {}, [{"who": "torch", "failed": f"not installed ({error.name})"}]
    torch_dcgan.set_precision(options.precision)
    runs, rows = {}, []
    for mode in options.modes.split(","):
        for size in dict.fromkeys((chunk, options.chunk)):
            name = f"torch {mode}, {size}"
            try:
                run = torch_dcgan.sampling(config, mode, options.count, size)
                run(1)
                runs[name] = run
            except Exception as error:  # whatever PyTorch raises: the other modes are still worth comparing
                rows.append({"who": name, "failed": torch_dcgan.one_line(error)})
    return runs, rows


def random_images(config: ConfigDict, count: int) -> np.ndarray:
    """Images of the configuration's size, uint8 [count, H, W, C]."""
    shape = (count, *config.image_size, config.channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def untrained(shapes):
    """Parameters of these shapes, small enough for finite features."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0, 0.01, leaf.shape).astype(leaf.dtype), shapes)


def of_inception(config: ConfigDict) -> Extractor:
    """Inception with random parameters."""
    return inception_weights.extractor_of(untrained(inception.shapes()))


def of_quality(config: ConfigDict) -> Extractor:
    """The network that `quality` is measured with, with random parameters."""
    network = feature_classifier.FeatureClassifier(quality.TURNS, quality.WIDTHS)
    variables = untrained(feature_classifier.shapes(network, (*config.image_size, config.channels)))
    return Extractor("quality", "", partial(quality._features, network), variables, sum(quality.WIDTHS))


FEATURES = {"inception": of_inception, "quality": of_quality}


def repeated(make) -> measure.Run:
    """A run of a function that returns numpy arrays, so it is finished when it returns."""

    def run(calls: int) -> None:
        for _ in range(calls):
            make()

    return run


if __name__ == "__main__":
    main()
