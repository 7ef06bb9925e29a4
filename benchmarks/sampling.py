"""Sampled images per second, against PyTorch: python benchmarks/sampling.py [--config=...] [--peer=torch]

An untrained network takes as long as a trained one. `TrainedGAN.sample` draws z and returns uint8 images;
`TrainedGAN.generate` is given z and returns float32 images; both on the host, in chunks of 64. The peer is PyTorch's
generator (benchmarks/torch_dcgan.py) in eval mode, without gradients, in chunks of 64 and of --chunk, in turns with it.
"""

import statistics
from functools import partial

import flops
import measure
import numpy as np
from flax import serialization

from dcgan_jax import inference, state


def main() -> None:
    parser = measure.parser(__doc__, "configs/celeba.py:torch")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--peer", choices=["torch"])
    parser.add_argument("--modes", default="eager,channels_last,compiled_last", help="of the peer")
    parser.add_argument("--chunk", type=int, default=512, help="of the peer, besides 64")
    options = parser.parse_args()
    config = measure.configuration(options)
    print(f"{measure.title(config, options)}, {options.count} images", flush=True)

    gan = inference.TrainedGAN(config, serialization.to_state_dict(state.create(config)))
    z = np.random.default_rng(0).standard_normal((options.count, config.latent_dim), np.float32)
    runs = {
        "ours, sample": repeated(partial(gan.sample, options.count)),
        "ours, generate": repeated(partial(gan.generate, z)),
    }
    rows = []
    if options.peer:
        import torch_dcgan

        torch_dcgan.set_precision(options.precision)
        for mode in options.modes.split(","):
            for chunk in dict.fromkeys((inference.CHUNK, options.chunk)):
                name = f"torch {mode}, {chunk}"
                try:
                    run = torch_dcgan.sampling(config, mode, options.count, chunk)
                    run(1)
                    runs[name] = run
                except Exception as error:  # whatever PyTorch raises: the other modes are still worth comparing
                    rows.append({"who": name, "failed": torch_dcgan.one_line(error)})
    times = measure.in_turns(runs, options.repeats, 0.0)
    work = flops.generator_forward(config) * options.count
    for name, column in times.items():
        seconds = statistics.median(column)
        ratio = measure.ratio(column, times["ours, sample"])
        row = {"who": name, "seconds": seconds, "images/s": options.count / seconds, "GFLOP/s": work / seconds / 1e9}
        rows.append(row | {"ours, sample is": ratio})
    measure.report(options, rows, seconds=times)


def repeated(make) -> measure.Run:
    """A run of a function that returns numpy arrays, so it is finished when it returns."""

    def run(calls: int) -> None:
        for _ in range(calls):
            make()

    return run


if __name__ == "__main__":
    main()
