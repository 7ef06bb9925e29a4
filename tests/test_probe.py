"""The probe, the supervised baseline and the nearest neighbour: on real digits, and through their launchers."""

import runpy

import jax
import numpy as np
import pytest
from conftest import ROOT, SMALL, call
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from dcgan_jax import config as configuration
from dcgan_jax import data, models, state
from dcgan_jax.data import ImageSet
from dcgan_jax.evaluation import report
from dcgan_jax.evaluation.tables import nearest_neighbour, probe, supervised, svm
from dcgan_jax.evaluation.tables.nearest_neighbour import NearestNeighbour
from dcgan_jax.inference import _features, load
from dcgan_jax.runtime.errors import UserError


def digits(start, stop, side=16):
    """Scikit-learn's digits, 1797 of them in all, enlarged."""
    bunch = load_digits()
    small = (bunch.images[start:stop] * 15.9).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((side, side))) for image in small])[..., None]
    return ImageSet(images, bunch.target[start:stop].astype(np.int32), {"sha256": {"images": "x"}, "classes": []})


TRAIN, TEST = digits(0, 1300), digits(1300, 1797)


@pytest.mark.parametrize(("name", "count"), [("imagenet32", 28_672), ("svhn", 7_168)])
def test_the_papers_networks_have_as_many_features_as_it_says(name, count):
    get_config = runpy.run_path(ROOT / "configs" / f"{name}.py")["get_config"]
    config = configuration.validate(get_config("paper"))
    _, discriminator = models.from_config(config)
    network = state.abstract(config).discriminator
    images = jax.ShapeDtypeStruct((5, 32, 32, 3), np.float32)
    features = jax.eval_shape(
        lambda variables, images: _features(discriminator, variables, images, None), network.variables(), images
    )
    assert features.shape == (5, count)


@pytest.fixture(autouse=True)
def _small_preconditioner(monkeypatch):
    """Its eigenvectors take most of the time here, and do not change the result."""
    monkeypatch.setattr(svm, "PRECONDITIONER_EXAMPLES", 256)


@pytest.fixture(scope="module")
def pixel_probe():
    return probe.Probe(probe.pixel_features, TRAIN, TEST, probe.Split(TRAIN, TEST))


def test_digits_are_classified_by_their_pixels(pixel_probe):
    whole, few = pixel_probe.all_labels(), pixel_probe.few_labels(20, 4)
    assert whole.accuracy > 0.9
    assert 0.7 < few.accuracy < whole.accuracy
    assert few.draws == 4
    assert few.interval == pytest.approx(1.96 * few.deviation / 2)
    assert whole.c in probe.GRID
    again = probe.Probe(probe.pixel_features, TRAIN, TEST, probe.Split(TRAIN, TEST))
    assert again.few_labels(20, 4) == few, "a function of the seed"


def test_no_held_out_image_is_learned_from():
    split = probe.Split(TRAIN, TEST)
    assert split.num_held_out == 260
    assert sorted(split.order) == list(range(1300))
    for places in split.draws(30, 5):
        assert len(set(places)) == 300
        assert places.min() >= split.num_held_out
        np.testing.assert_array_equal(np.bincount(split.labels[places]), 30)
    first, other_seed = (next(probe.Split(TRAIN, TEST, seed).draws(30, 1)) for seed in (0, 1))
    assert not np.array_equal(first, other_seed)
    assert not np.array_equal(first, next(split.draws(30, 1, purpose=1)))
    np.testing.assert_array_equal(first, next(split.draws(30, 1)), "whatever was drawn before")


def test_the_best_c_is_that_of_all_draws(pixel_probe, monkeypatch):
    """The second draw is best at the second C, and ends after the third; the others do better at the fourth."""
    accuracies = [[0.5, 0.6, 0.7, 0.69, 0.5], [0.5, 0.6, 0.5], [0.1, 0.2, 0.5, 0.9, 0.5]]
    tried = []

    class Fitted:
        passes = 1

        def __init__(self, value):
            self.accuracy = lambda features, labels: value

    class Solver:
        def __init__(self, features, labels, classes):
            self.draw = len(features)

        def fit(self, c):
            tried.append((self.draw, probe.GRID.index(c)))
            return Fitted(accuracies[self.draw][probe.GRID.index(c)])

    monkeypatch.setattr(probe.svm, "Solver", Solver)
    assert pixel_probe._best_c([np.arange(draw) for draw in range(3)]) == probe.GRID[3]
    assert [tried.count((draw, 3)) for draw in range(3)] == [1, 0, 1]


def test_features_beyond_16_bits_are_refused():
    marked = TRAIN._replace(images=TRAIN.images.astype(np.float32))
    marked.images[777] *= 1000
    with pytest.raises(UserError, match="beyond what 16 bits hold"):
        probe.Probe(lambda block: block.reshape(len(block), -1), marked, TEST, probe.Split(marked, TEST))


def test_features_and_labels_belong_together():
    marked = TRAIN._replace(images=np.broadcast_to(TRAIN.labels[:, None, None, None], (1300, 4, 4, 1)))
    split = probe.Split(marked, TEST)
    test = TEST._replace(images=marked.images[:497])
    marked_probe = probe.Probe(lambda block: block.reshape(len(block), -1), marked, test, split)
    np.testing.assert_array_equal(marked_probe.features[:, 0], marked_probe.labels)


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (TRAIN._replace(labels=None), TEST, "training images without labels"),
        (TRAIN, TEST._replace(labels=None), "test images without labels"),
        (TRAIN, TEST._replace(labels=TEST.labels + 5), "labels up to 14"),
        (
            TRAIN._replace(card=TRAIN.card | {"classes": ["cat", "dog", "fox"]}),
            TEST._replace(card=TEST.card | {"classes": ["cat", "fox"]}),
            "found 2 classes, expected the 3 of the training images; not in both: dog",
        ),
    ],
)
def test_unsuitable_sets_are_refused(train, test, expected):
    with pytest.raises(UserError, match=expected):
        probe.Split(train, test)


def test_too_few_images_are_refused():
    with pytest.raises(UserError, match="expected at most"):
        next(probe.Split(TRAIN, TEST).draws(1000, 1))
    few = TRAIN._replace(images=TRAIN.images[:4], labels=TRAIN.labels[:4])
    with pytest.raises(UserError, match="found 4 training images"):
        probe.Split(few, few)


def test_a_discriminator_learns_digits_from_labels(tiny):
    _, architecture = models.from_config(tiny(width=8))
    learned, test = (supervised.LabelledImages(images.images, images.labels) for images in (TRAIN, TEST))
    trial = supervised.Trial(learning_rate=2e-3, b1=0.9, weight_decay=1e-4, batch_size=64)
    classifier = supervised.train(architecture, 10, learned, trial, 6_400, seed=0)
    assert classifier.accuracy(test) > 0.85
    trials = [supervised.draw_trial(np.random.default_rng(0)) for _ in range(2)]
    assert trials[0] == trials[1]
    assert 1e-4 <= trials[0].learning_rate <= 1e-2


def test_the_nearest_neighbour_is_exact():
    rng = np.random.default_rng(0)
    queries, images = (rng.integers(0, 256, (count, 9, 50, 3), np.uint8) for count in (7, 5000))
    assert queries[0].size > nearest_neighbour.BLOCK_PIXELS
    images[4100] = images[40] = queries[3]
    images[2000] = 255 - queries[0]  # far away
    search = NearestNeighbour(queries)
    labels = np.arange(5000) % 10
    for start, stop in ((0, 3000), (3000, 3001), (3001, 5000)):
        search.add(images[start:stop], labels[start:stop])
    differences = queries[:, None].astype(np.int64) - images[None, :2500].astype(np.int64)
    first = np.square(differences).sum((2, 3, 4))
    differences = queries[:, None].astype(np.int64) - images[None, 2500:].astype(np.int64)
    distances = np.concatenate([first, np.square(differences).sum((2, 3, 4))], axis=1)
    np.testing.assert_array_equal(search.distance, distances.min(1))
    np.testing.assert_array_equal(search.index, distances.argmin(1))
    np.testing.assert_array_equal(search.label, labels[distances.argmin(1)])
    assert search.index[3] == 40
    assert search.count == 5000


@pytest.mark.parametrize("side", [32, 150])
def test_the_largest_distance_is_exact(side, monkeypatch):
    monkeypatch.setattr(nearest_neighbour, "CHUNK", 3)
    black, white = (np.full((2, side, side, 3), value, np.uint8) for value in (0, 255))
    search = NearestNeighbour(black)
    search.add(white)
    assert search.distance.tolist() == [side * side * 3 * 255**2] * 2
    assert search.label.tolist() == [-1, -1]


def test_it_classifies_as_scikit_learn_does():
    search = NearestNeighbour(TEST.images)
    search.add(TRAIN.images, TRAIN.labels)
    reference = KNeighborsClassifier(1).fit(TRAIN.images.reshape(1300, -1).astype(float), TRAIN.labels)
    expected = reference.predict(TEST.images.reshape(497, -1).astype(float))
    assert (search.label == expected).mean() > 0.995, "of several that are equally near, another may be taken"


@pytest.mark.nightly
def test_mnist_by_its_training_images(data_dir, tiny):
    """The paper's reference row, 3.09% of all 10,000 test images (docs/results.md), on the first 1,000 of them."""
    config = tiny(image_size=(28, 28), num_classes=10)
    config.data.source, config.data.path = "idx", str(data_dir / "mnist")
    train, test = data.load(config), data.held_out(config)
    search = NearestNeighbour(np.asarray(test.images[:1000]))
    search.add(train.images, train.labels)
    assert (search.label != test.labels[:1000]).sum() == 38


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Digits as image files, a folder for each class, in `train` and `test`."""
    root = tmp_path_factory.mktemp("digits")
    for split, images, count in (("train", TRAIN, 200), ("test", TEST, 50)):
        for i in range(count):
            folder = root / split / str(images.labels[i])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.images[i, ..., 0]).save(folder / f"{i:04d}.png")
    (root / "no_lmdb").mkdir()
    (root / "no_lmdb" / "data.mdb").write_bytes(b"no lmdb")
    return root


@pytest.fixture(scope="module")
def conditional_run(folders):
    workdir = folders / "run"
    done = call(
        "train",
        *SMALL,
        *("--config.data.source=folder", f"--config.data.path={folders / 'train'}", "--config.num_classes=10"),
        *("--config.num_steps=2", f"--workdir={workdir}"),
    )
    assert done.returncode == 0, done.stderr
    return workdir


def test_the_probe_by_its_launcher(straight_run, folders):
    before = len(report.read(straight_run / report.NAME))
    arguments = ("--labels_per_class=all,5", "--draws=2", "--features=discriminator,random,pixels")
    done = call("probe", f"--workdir={straight_run}", f"--data={folders / 'train'}", *arguments)
    assert done.returncode == 0, done.stderr
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == 2 * ["discriminator"] + 2 * ["random"] + 2 * [
        "pixels"
    ] + [f"{straight_run}/evaluation.jsonl"]
    lines = report.read(straight_run / report.NAME)[before:]
    assert [(line["metric"], line["features"], line["size"]) for line in lines[:2] + lines[-1:]] == [
        ("probe_accuracy_all_test", "discriminator", 192),
        ("probe_accuracy_5_test", "discriminator", 192),
        ("probe_accuracy_5_test", "pixels", 256),
    ]
    assert all(0 <= line["value"] <= 1 for line in lines)


def test_the_supervised_baseline_by_its_launcher(straight_run, folders):
    done = call(
        "supervised",
        *(f"--workdir={straight_run}", f"--data={folders / 'train'}", "--trials=2", "--images_seen=640"),
        "--labels_per_class=10",
    )
    assert done.returncode == 0, done.stderr
    assert "trial 2 of 2" in done.stdout
    assert done.stdout.endswith(f"\n{straight_run}/evaluation.jsonl\n")
    *trials, result = report.read(straight_run / report.NAME)[-3:]
    assert [line["metric"] for line in trials] == ["probe_accuracy_10_held_out"] * 2, "each as it ends"
    assert result["metric"] == "probe_accuracy_10_test"
    assert result["held_out"] == max(line["value"] for line in trials)
    assert {line["features"] for line in (*trials, result)} == {"supervised"}


def test_the_nearest_neighbour_by_its_launcher(conditional_run):
    done = call("nearest_neighbour", f"--workdir={conditional_run}", "--samples=100,30", "--real")
    assert done.returncode == 0, done.stderr
    assert [line.split(", error")[0] for line in done.stdout.splitlines()] == [
        "training images: 30 images, 50 held out",
        "training images: 100 images, 50 held out",
        "training images: 200 images, 50 held out",
        "samples of step 2: 30 images, 50 held out",
        "samples of step 2: 100 images, 50 held out",
        f"{conditional_run}/evaluation.jsonl",
    ]
    lines = report.read(conditional_run / report.NAME)
    assert [(line["metric"], line["features"]) for line in lines] == [
        *((f"nearest_neighbour_error{count}_test", "pixels of training images") for count in (30, 100, 200)),
        *((f"nearest_neighbour_error{count}_test", "pixels") for count in (30, 100)),
    ]


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("nearest_neighbour", ("RUN",), "has no classes"),
        ("nearest_neighbour", ("CONDITIONAL", "--samples=0"), "--samples: found '0'"),
        ("nearest_neighbour", ("CONDITIONAL", f"--samples={'9' * 5000}"), "--samples: found '999"),
        ("probe", ("CONDITIONAL",), "takes labels"),
        ("probe", ("RUN", "--features=pixles"), "--features: found 'pixles'"),
        ("probe", ("RUN", "--seed=-1"), "seed"),
        ("probe", ("--workdir=README.md/run",), "--workdir: 'README.md/run' cannot be used"),
        ("probe", ("RUN", "--data=FOLDERS/nowhere"), "--data"),
        ("probe", ("RUN", "--data=FOLDERS/no_lmdb"), "expected an lmdb"),
        ("probe", ("RUN", "--data=digits"), "--data: digits has no held-out images"),
        ("probe", ("RUN", "--data=FOLDERS/train", "--labels_per_class=0"), "--labels_per_class: found '0'"),
        ("supervised", ("RUN", "--data=FOLDERS/train", "--labels_per_class=500"), "expected at most"),
    ],
)
def test_mistakes_are_one_line(straight_run, conditional_run, folders, script, arguments, expected):
    names = {"RUN": f"--workdir={straight_run}", "CONDITIONAL": f"--workdir={conditional_run}"}
    done = call(script, *(names.get(text, text.replace("FOLDERS", str(folders))) for text in arguments))
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    # Beside the error, preparing images is reported, unless a test before this one has done so.
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith(("preparing ", "labels: "))]
    assert len(lines) == 1


def test_a_conditional_network_makes_figures_of_a_class(conditional_run, tmp_path):
    done = call("figure", "walk", f"--workdir={conditional_run}", f"--out={tmp_path}", "--label=3")
    assert done.returncode == 0, done.stderr
    assert "label_3" in done.stdout
    classes = load(conditional_run).classes
    named = call("sample", f"--workdir={conditional_run}", f"--labels={classes[7]},{classes[2]}", f"--out={tmp_path}/x")
    assert named.returncode == 0, named.stderr
    wrong = call("sample", f"--workdir={conditional_run}", "--labels=nobody")
    assert (wrong.returncode, f"one of {', '.join(classes)}" in wrong.stderr) == (2, True)
    missing = call("figure", "walk", f"--workdir={conditional_run}", f"--out={tmp_path}")
    assert missing.returncode == 2
    assert f"--label: missing, expected one of {', '.join(classes)}" in missing.stderr
    gan = load(conditional_run)
    np.testing.assert_array_equal(gan.sample(2, labels=[classes[7], classes[2]]), gan.sample(2, labels=[7, 2]))
    np.testing.assert_array_equal(gan.sample(2, labels=classes[7]), gan.sample(2, labels=7))
    for wrong in ("nobody", ["nobody", 1], [[classes[1]], [classes[2]]], [None, classes[1]], {classes[1]: 1}, b"1"):
        with pytest.raises(UserError, match=r"labels: found .*, expected "):
            gan.sample(2, labels=wrong)


def test_statistics_of_images_are_those_that_training_would_take(straight_run):
    gan = load(straight_run)
    fitted = gan.with_statistics_of(TRAIN.images[:128])
    images = np.float32(TRAIN.images[:128] / 127.5 - 1)
    by_batch, _ = gan.discriminator.apply(gan.discriminator_variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(fitted.discriminate(images), by_batch, atol=1e-4)
    assert np.abs(gan.discriminate(images) - by_batch).max() > 1e-3, "the GAN itself has not changed"
