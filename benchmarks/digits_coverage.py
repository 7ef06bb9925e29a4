"""Which digits a run on scikit-learn's digits generates: python benchmarks/digits_coverage.py --workdir=runs/digits

A support vector machine is trained on the real digits, prepared as for training. Printed are its accuracy on a held-out
fifth and the share of samples that it assigns to each digit (10% would be even). 'sure' is the share of samples whose
class has a probability of at least 0.9, beside that of held-out real digits.
"""

import measure
import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

import dcgan_jax
from dcgan_jax import data


def main() -> None:
    parser = measure.plain_parser(__doc__, workdir="runs/digits", samples=1000, seed=0)
    parser.add_argument("--step", type=int)
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
    sure, sure_real = ((probabilities.max(1) >= 0.9).mean() for probabilities in (samples, held_out))
    print(f"sure: {sure:.1%} of samples, {sure_real:.1%} of real digits")


if __name__ == "__main__":
    main()
