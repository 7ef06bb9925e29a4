"""Which digits a run on scikit-learn's digits makes: python benchmarks/digits_coverage.py --workdir=runs/digits

A support vector machine learns the real digits, prepared as for training; its accuracy on a held-out fifth is printed,
then what it takes the samples for. Ten classes of equal share are 10% each; 'sure' is the share of samples whose class
it gives a probability of at least 0.9 (for comparison: of held-out real digits).
"""

import argparse

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

import dcgan_jax
from dcgan_jax import data


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", default="runs/digits")
    parser.add_argument("--step", type=int)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    gan = dcgan_jax.load(options.workdir, options.step)
    config = gan.config.copy_and_resolve_references()
    config.num_classes = 10  # for the labels
    real = data.load(config)

    def pixels(images):
        return images.reshape(len(images), -1) / 255.0

    train_x, test_x, train_y, test_y = train_test_split(
        pixels(real.images), real.labels, test_size=0.2, random_state=0, stratify=real.labels
    )
    classifier = CalibratedClassifierCV(SVC(gamma="scale", C=10), ensemble=False).fit(train_x, train_y)
    samples = classifier.predict_proba(pixels(gan.sample(options.samples, options.seed)))
    held_out = classifier.predict_proba(test_x)
    shares = np.bincount(samples.argmax(1), minlength=10) / len(samples)

    print(f"{options.workdir}, step {gan.step}, {options.samples} samples of seed {options.seed}")
    print(f"accuracy on held-out real digits {(held_out.argmax(1) == test_y).mean():.1%}")
    print("share of each digit " + "  ".join(f"{digit}: {share:.1%}" for digit, share in enumerate(shares)))
    print(f"smallest share {shares.min():.1%}")
    print(
        f"sure: {(samples.max(1) >= 0.9).mean():.1%} of samples, {(held_out.max(1) >= 0.9).mean():.1%} of real digits"
    )


if __name__ == "__main__":
    main()
