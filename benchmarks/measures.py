"""Whether measures put images in order: half of a real set against the other half, samples of a run, and noise.

    python benchmarks/measures.py --workdir=runs/cifar10 [--features=classifier] [--seed=0]

Each stands against the same half of the run's training images, as many images each. Noise is the first half with
each image's pixels in another order: brightness and colours are right, and nothing else.
"""

import argparse

import numpy as np

import dcgan_jax
from dcgan_jax import data
from dcgan_jax.evaluation.evaluate import Evaluator
from dcgan_jax.evaluation.extractors import named
from dcgan_jax.evaluation.features import digest
from dcgan_jax.evaluation.recipes import parse_bare
from dcgan_jax.evaluation.reference import Reference

MOST = 10_000  # images of each kind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--features", default="classifier")
    parser.add_argument("--metrics", default="fid,kid,prdc,is,memorisation")
    parser.add_argument("--inception_weights", default="")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    gan = dcgan_jax.load(arguments.workdir)
    whole = data.load(gan.config, labelled=True)
    features = named(arguments.features, whole, data.held_out(gan.config), weights=arguments.inception_weights)
    rng = np.random.default_rng(arguments.seed)
    count = min(MOST, len(whole.images) // 2)
    order = rng.permutation(len(whole.images))
    first, second = (whole.images[np.sort(half)] for half in (order[:count], order[count : 2 * count]))
    real = whole._replace(images=second, labels=None, card={"sha256": {"images": digest(second)}})
    reference = Reference(real, features)
    recipes = parse_bare(arguments.metrics, count)
    evaluator = Evaluator(recipes, features, {"train": reference}, arguments.seed)

    pixels = first.reshape(count, -1, first.shape[-1])
    noise = np.stack([rng.permutation(image) for image in pixels]).reshape(first.shape)
    compared = {
        "other half": lambda indices: first[indices],
        "samples": lambda indices: gan.sample_at(indices, arguments.seed),
        "noise": lambda indices: noise[indices],
        "itself": lambda indices: second[indices],
    }
    names = [name for recipe in recipes for name in recipe.values]
    print(f"{count} images each, step {gan.step}, {features.name} {features.about}")
    print("| | " + " | ".join(names) + " |\n|---" + "|---" * len(names) + "|")
    for title, read in compared.items():
        values = {line["metric"]: line["value"] for line in evaluator(read)}
        print(f"| {title} | " + " | ".join(f"{values[name]:.4g}" for name in names) + " |", flush=True)


if __name__ == "__main__":
    main()
