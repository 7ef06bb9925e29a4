"""Whether quality metrics rank images correctly: a half of a real set, a run's samples, and noise.

    python benchmarks/measures.py --workdir=runs/cifar10 [--features=classifier] [--seed=0]

Each is compared with the other half of the run's training images, with equally many images. Noise is the first half
with each image's pixels shuffled: brightness and colours are right, and nothing else.
"""

import measure
import numpy as np

import dcgan_jax
from dcgan_jax import data
from dcgan_jax.evaluation import extractors
from dcgan_jax.evaluation.evaluate import Evaluator
from dcgan_jax.evaluation.metric_names import parse_without_splits
from dcgan_jax.evaluation.reference import Reference
from dcgan_jax.runtime.files import digest

MAX_IMAGES = 10_000  # of each kind


def main() -> None:
    parser = measure.plain_parser(
        __doc__, features="classifier", metrics="fid,kid,prdc,is,memorisation", inception_weights="", seed=0
    )
    parser.add_argument("--workdir", required=True)
    options = parser.parse_args()

    gan = dcgan_jax.load(options.workdir)
    whole = data.load(gan.config, labelled=True)
    extractor = extractors.by_name(
        options.features, whole, data.held_out(gan.config), weights=options.inception_weights
    )
    rng = np.random.default_rng(options.seed)
    count = min(MAX_IMAGES, len(whole.images) // 2)
    order = rng.permutation(len(whole.images))
    first, second = (whole.images[np.sort(half)] for half in (order[:count], order[count : 2 * count]))
    real = whole._replace(images=second, labels=None, card={"sha256": {"images": digest(second)}})
    specs = parse_without_splits(options.metrics, count)
    evaluator = Evaluator(specs, extractor, {"train": Reference(real, extractor)}, options.seed)

    pixels = first.reshape(count, -1, first.shape[-1])
    noise = np.stack([rng.permutation(image) for image in pixels]).reshape(first.shape)
    compared = {
        "other half": lambda indices: first[indices],
        "samples": lambda indices: gan.sample_at(indices, options.seed),
        "noise": lambda indices: noise[indices],
        "itself": lambda indices: second[indices],
    }
    names = [name for spec in specs for name in spec.result_names]
    print(f"{count} images each, step {gan.step}, {extractor.name} {extractor.about}")
    print("| | " + " | ".join(names) + " |\n|---" + "|---" * len(names) + "|")
    for title, read in compared.items():
        values = {line["metric"]: line["value"] for line in evaluator(read)}
        print(f"| {title} | " + " | ".join(f"{values[name]:.4g}" for name in names) + " |", flush=True)


if __name__ == "__main__":
    main()
