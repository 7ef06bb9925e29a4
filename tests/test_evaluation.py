"""Metrics of runs and images: equal on all devices and processes, equal in training and afterwards, cached safely."""

import os
import pickle

import numpy as np
import pytest
from conftest import ROOT, SMALL, Job, call, launch
from matplotlib.axes import Axes
from own_features import blocks, blocks_and_logits
from PIL import Image
from sklearn.datasets import load_digits

from dcgan_jax.config import default_config
from dcgan_jax.data import ImageSet, held_out
from dcgan_jax.evaluation import cache, evaluate, extractors, features, report
from dcgan_jax.evaluation.image_files import open_images
from dcgan_jax.evaluation.metric_names import parse_without_splits
from dcgan_jax.evaluation.reference import Reference
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import digest

OWN = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])}
METRICS = "fid100_train,prdc100_train,memorisation100"
EVALUATED = ("--config.eval_features=own_features:blocks", "--config.eval_every=20", f"--config.eval_metrics={METRICS}")


def pictures(count, seed=0, side=8):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def image_set(count, seed=0):
    images = pictures(count, seed)
    return ImageSet(images, None, {"sha256": {"images": digest(images)}})


def extractor(function=blocks):
    return extractors.from_function(function, "tests:blocks", pictures(2))


def test_features_come_in_order_whatever_the_batches():
    images = pictures(300)
    own = extractor()
    expected = np.asarray(blocks(images))
    for sizes in ([300], [1, 7, 292], [150, 150]):
        parts = np.split(images, np.cumsum(sizes)[:-1])
        np.testing.assert_array_equal(features.concatenate(list(own.stream(parts))).vectors, own(images).vectors)
    np.testing.assert_allclose(own(images).vectors, expected, rtol=1e-6)


def test_the_moments_of_a_stream_are_those_of_its_vectors(monkeypatch):
    monkeypatch.setattr(features, "BLOCK", 64)
    images = pictures(300)
    moments = features.extract_moments(extractor(), lambda indices: images[indices], np.arange(300), "")
    vectors = extractor()(images).vectors.astype(np.float64)
    np.testing.assert_allclose(moments.mean, vectors.mean(0), rtol=1e-9)
    np.testing.assert_allclose(moments.covariance, np.cov(vectors.T), rtol=1e-9, atol=1e-15)


def test_functions_of_one_name_have_different_digests():
    assert extractor().digest != extractors.from_function(lambda x: blocks(x) * 2, "tests:blocks", pictures(2)).digest
    with pytest.raises(UserError, match=r"expected \(2, F\)"):
        extractors.from_function(lambda x: blocks(x)[:1], "tests:blocks", pictures(2))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "one of inception, classifier"),
        ("inceptoin", "one of inception, classifier"),
        ("no_such:thing", "cannot be imported"),
        ("math:no", "imported"),
        (":", "imported"),
        ("..:x", "imported"),
        ("math:pi", "is float, expected a function"),
        ("os:getcwd", "fails .*takes no arguments"),
        ("json:dumps", "fails .*not JSON serializable"),
        ("jax.numpy:mean", r"gave float32 \(\) for uint8"),
        ("jax.numpy:shape", r"gave int32 .* for uint8"),
        ("classifier", "images without labels.*pass --config.eval_features=inception"),
    ],
)
def test_features_that_cannot_be_had_are_named_in_one_line(name, expected):
    with pytest.raises(UserError, match=f"^config.eval_features: .*{expected}") as raised:
        extractors.by_name(name, image_set(10))
    assert "\n" not in str(raised.value)


def test_features_that_are_not_finite_are_no_result():
    with pytest.raises(features.NotFinite, match="numbers for the samples that are not finite"):
        measured("prdc", image_set(20), image_set(20, 1), lambda x: blocks(x) / 0)


def test_a_result_that_is_not_finite_is_an_error(monkeypatch):
    monkeypatch.setattr(evaluate.metrics, "frechet_distance", lambda *moments: float("nan"))
    with pytest.raises(features.NotFinite, match="fid is nan by the features tests:blocks"):
        measured("fid", image_set(20), image_set(20, 1))


def test_images_that_are_all_alike_have_finite_measures():
    alike = image_set(20)._replace(images=np.full((20, 8, 8, 3), 9, np.uint8))

    def sure(images):
        vectors, logits = blocks_and_logits(images)
        return vectors, logits * 1e30

    for real in (alike, image_set(20)):
        assert np.isfinite(list(measured("fid,prdc,is,memorisation", alike, real, sure).values())).all()


def test_a_classifier_needs_labels_of_two_classes():
    labelled = image_set(10)._replace(labels=np.zeros(10, np.int32))
    with pytest.raises(UserError, match="images of a single class"):
        extractors.by_name("classifier", labelled)


def test_too_few_images_are_told_before_a_classifier_is_trained(monkeypatch):
    monkeypatch.setattr(extractors.feature_classifier, "classifier_extractor", lambda *_: pytest.fail("trained"))
    real = image_set(24)._replace(labels=np.arange(24, dtype=np.int32) % 2)
    for metric, told in (("is", "at least 10"), ("prdc", "at least 6"), ("fid", "more than the 192"), ("kid", "1000")):
        with pytest.raises(UserError, match=f"found 5 generated images, expected .*{told}"):
            evaluate.from_image_sets(image_set(5), real, metric, "classifier")


def test_mistakes_with_two_sets_are_told_before_these_are_read(tmp_path):
    images = ("--images=nowhere", "--images=nowhere", f"--prepared={tmp_path}")
    for arguments, told in (
        (("--metrics=fdi",), "--metrics: 'fdi' is no measure"),
        (("--metrics=fid", "--features=inceptoin"), "--features: found 'inceptoin'"),
        (("--metrics=fid", "--inception_weights=nowhere"), "--inception_weights: 'nowhere' cannot be read"),
        (("--metrics=fid", "--features=classifier", "--step=3"), "--step: found 3, expected none with --images"),
    ):
        done = call("evaluate", *images, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {told}")
        assert done.stderr.count("\n") == 1


def test_cached_features_are_used_for_nothing_else(monkeypatch):
    computed = []
    original = features.extract

    def counting(*arguments):
        computed.append(arguments)
        return original(*arguments)

    monkeypatch.setattr("dcgan_jax.evaluation.reference.extract", counting)

    def vectors(image_set, extractor, count=50):
        return Reference(image_set, extractor).vectors(count)

    first = vectors(image_set(100), extractor())
    np.testing.assert_array_equal(first, vectors(image_set(100), extractor()))
    assert len(computed) == 1
    vectors(image_set(100), extractor(), 60)  # another count
    vectors(image_set(100, seed=1), extractor())  # other images
    vectors(
        image_set(100), extractors.from_function(lambda x: blocks(x) * 2, "tests:blocks", pictures(2))
    )  # other features
    assert len(computed) == 4


def test_damaged_or_exchanged_cache_files_are_computed_again(caplog):
    first = Reference(image_set(100), extractor()).vectors(100)
    (file,) = cache.folder().glob("vectors-*.npz")
    for content in (b"", b"PK\3\4 nothing", file.read_bytes()[:-100]):
        file.write_bytes(content)
        np.testing.assert_array_equal(Reference(image_set(100), extractor()).vectors(100), first)
        assert "computing it again" in caplog.text
        caplog.clear()
    Reference(image_set(90), extractor()).vectors(90)
    (other,) = (path for path in cache.folder().glob("vectors-*.npz") if path != file)
    file.write_bytes(other.read_bytes())
    np.testing.assert_array_equal(Reference(image_set(100), extractor()).vectors(100), first)
    assert "computed for something else" in caplog.text


def evaluator(metrics, fake, real, function=blocks):
    own = extractor(function)
    specs = parse_without_splits(metrics, len(fake.images))
    return evaluate.Evaluator(specs, own, {"train": Reference(real, own)})


def measured(metrics, fake, real, function=blocks):
    lines = evaluator(metrics, fake, real, function)(lambda indices: fake.images[indices])
    return {line["metric"]: line["value"] for line in lines}


def test_real_digits_score_better_than_noise():
    digits = (load_digits().images[..., None] * 15.9).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(digits))
    halves = [ImageSet(half, None, {"sha256": {"images": digest(half)}}) for half in np.split(digits[order[:-1]], 2)]
    noise = halves[0]._replace(images=np.random.default_rng(0).permuted(halves[0].images.reshape(898, 64), axis=1))
    noise = noise._replace(images=noise.images.reshape(898, 8, 8, 1))
    same, other = (
        measured("fid,prdc,memorisation,is", fake, halves[1], blocks_and_logits) for fake in (halves[0], noise)
    )
    copied = measured("memorisation", halves[1], halves[1])
    assert same["fid"] < 0.2 * other["fid"]
    for name in ("precision", "recall", "density", "coverage"):
        assert same[name] > 0.7 > other[name]
    assert 0.4 < same["memorisation"] < 0.6
    assert other["memorisation"] < 0.1
    assert copied["memorisation"] == 1
    assert 1 < same["is"] < 2


@pytest.mark.parametrize(
    ("metrics", "count", "expected"),
    [
        ("fid", 16, "expected more than the 16 features"),
        ("is", 200, "needs classes"),
        ("kid", 200, "at least 1000"),
    ],
)
def test_too_few_images_are_named_with_the_reason(metrics, count, expected):
    with pytest.raises(UserError, match=expected):
        evaluate.check_counts(parse_without_splits(metrics, count), extractor(), {"train": count}, samples=count)


def values(file):
    return {(line["step"], line["metric"]): line["value"] for line in report.read(file)}


@pytest.fixture(scope="module")
def evaluated_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    best = ("--config.best_metric=fid100_train", "--config.keep=1", "--config.num_steps=60")
    done = call("train", *SMALL, *EVALUATED, *best, f"--workdir={folder / 'run'}", XDG_CACHE_HOME=str(folder / "cache"))
    assert done.returncode == 0, done.stderr
    return folder / "run"


def test_training_measures_what_is_measured_afterwards(evaluated_run, tmp_path):
    in_training = values(evaluated_run / report.NAME)
    assert {step for step, _ in in_training} == {20, 40, 60}
    steps = sorted(int(path.name) for path in (evaluated_run / "checkpoints").iterdir())
    best = min((20, 40, 60), key=lambda step: in_training[step, "fid100_train"])
    assert steps == sorted({best, 60})
    copy = copy_of(evaluated_run, tmp_path / "run")
    done = call("evaluate", *measuring(copy), "--step=all")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"\n{copy}/evaluation.jsonl\n")
    assert values(copy / report.NAME) == {key: value for key, value in in_training.items() if key[0] in steps}
    assert (evaluated_run / "evaluation" / "fid100_train.png").stat().st_size > 1000
    width, height = Image.open(copy / "evaluation" / f"memorisation100_step_{best:08d}.png").size
    assert width >= 4 * (32 + 2 * 4 + 2) - 2, "four pairs a row, apart"
    assert height > 4 * 18 - 2, "and a caption"


def copy_of(run, copy):
    """A copy of a run's folder with nothing but its checkpoints."""
    copy.mkdir()
    (copy / "checkpoints").symlink_to(run / "checkpoints")
    return copy


def measuring(workdir):
    prepared = os.environ["DCGAN_TEST_PREPARED"]
    return f"--workdir={workdir}", f"--metrics={METRICS}", "--features=own_features:blocks", f"--prepared={prepared}"


@pytest.mark.parametrize(("processes", "devices"), [(1, 1), (2, 2)])
def test_devices_and_processes_measure_the_same(evaluated_run, tmp_path, processes, devices):
    """The run itself was measured on four devices."""
    copy = copy_of(evaluated_run, tmp_path / "run")
    if processes == 1:
        done = launch("evaluate", *measuring(copy), "--step=best", devices=devices, **OWN)
        assert done.returncode == 0, done.stderr
    else:
        arguments = (*measuring(copy), "--step=best")
        with Job(copy / "job", processes, devices, *arguments, script="evaluate", **OWN) as job:
            assert job.wait() == [0] * processes, job.told()
    measured, expected = values(copy / report.NAME), values(evaluated_run / report.NAME)
    assert len(measured) == 6
    for key, value in measured.items():
        assert value == pytest.approx(expected[key], rel=1e-9)


@pytest.fixture(scope="module")
def pictures_of_many_kinds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "mixed").mkdir()
    (folder / "empty").mkdir()
    for side in (8, 16):
        Image.fromarray(pictures(1, side=side)[0]).save(folder / "mixed" / f"{side}.png")
    np.savez(folder / "good.npz", images=pictures(200))
    np.savez(folder / "larger.npz", images=pictures(200, side=16))
    np.savez(folder / "floats.npz", images=pictures(2) / 255)
    np.savez(folder / "unnamed.npz", pictures=pictures(2))
    np.savez(folder / "none.npz", images=pictures(2)[:0])
    np.save(folder / "objects.npy", np.array([{}]))
    np.save(folder / "grey.npy", pictures(2)[..., 0])
    for name, content in {
        "page.npz": b"\n<!DOCTYPE html><html></html>",
        "page.npy": b"<html>",
        "pointer.npz": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "zero.npy": b"",
        "zero.npz": b"",
        "pickle.npy": pickle.dumps({}),
        "text.npz": b"hello",
        "picture.npz": (folder / "mixed" / "8.png").read_bytes(),
    }.items():
        (folder / name).write_bytes(content)
    np.save(folder / "short.npy", pictures(20))
    (folder / "short.npy").write_bytes((folder / "short.npy").read_bytes()[:500])
    (folder / "cut.npz").write_bytes((folder / "good.npz").read_bytes()[:500])
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mixed", r"8x8 \(8.png\) and 16x16 \(16.png\), expected one size|16x16 .* and 8x8"),
        ("empty", "holds no image.*another --images=FOLDER"),
        ("nowhere", "does not exist.*pass --images="),
        ("nowhere.npz", "does not exist"),
        ("floats.npz", "expected uint8"),
        ("unnamed.npz", "holds pictures, none of images, arr_0"),
        ("none.npz", r"holds uint8 \(0, 8, 8, 3\); expected uint8"),
        ("grey.npy", r"holds uint8 \(2, 8, 8\); expected uint8"),
        ("objects.npy", "cannot be read .*Python objects, which are not opened"),
        ("cut.npz", "is cut short, or damaged"),
        ("short.npy", "cannot be read"),
        ("page.npz", r"is a web page \(HTML\); download it again"),
        ("page.npy", "is a web page"),
        ("pointer.npz", "is a pointer of git-lfs; run git lfs pull"),
        ("zero.npy", "is empty"),
        ("zero.npz", "is empty"),
        ("pickle.npy", "is a pickle, which is not opened"),
        ("text.npz", "is neither .npz nor .npy"),
        ("picture.npz", "is a PNG image"),
    ],
)
def test_images_that_cannot_be_measured_are_named(pictures_of_many_kinds, tmp_path, name, expected):
    with pytest.raises(UserError, match=f"^--images: .*({expected})") as raised:
        open_images(str(pictures_of_many_kinds / name), str(tmp_path))
    assert "config." not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "unsafe" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_images_of_two_sizes_are_not_compared(pictures_of_many_kinds, tmp_path):
    fake, real = (
        open_images(str(pictures_of_many_kinds / f"{name}.npz"), str(tmp_path)) for name in ("good", "larger")
    )
    with pytest.raises(UserError, match=r"images of \(8, 8, 3\) and real ones of \(16, 16, 3\), expected one size"):
        evaluate.from_image_sets(fake, real, "fid", "own_features:blocks")


def test_two_sets_of_images_by_the_launcher(pictures_of_many_kinds):
    images = f"--images={pictures_of_many_kinds / 'good.npz'}"
    done = call("evaluate", images, images, "--metrics=fid,memorisation", "--features=own_features:blocks")
    assert done.returncode == 0, done.stderr
    fid, memorisation = done.stdout.splitlines()
    assert abs(float(fid.split()[1])) < 1e-6
    assert memorisation.startswith("memorisation 1 ")


def test_missing_held_out_images_are_reported_by_their_own_field(tmp_path):
    config = default_config()
    config.data.source, config.data.path, config.data.test = "folder", str(tmp_path), str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"^config.data.test: .*pass --config.data.test="):
        held_out(config)


def test_curves_are_of_the_metrics_that_were_measured_and_of_each_seed(tmp_path, monkeypatch):
    labels = []
    draw = Axes.errorbar

    def errorbar(*arguments, label, **more):
        labels.append(label)
        return draw(*arguments, label=label, **more)

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    lines = [
        {"metric": metric, "features": "classifier", "seed": seed, "step": step, "value": 1.0}
        for metric, seed, steps in (("fid", 0, 2), ("fid", 1, 1), ("kid", 0, 2), ("probe", 0, 2), ("is", 0, 1))
        for step in range(steps)
    ]
    files = report.curves(lines, tmp_path, {"fid", "kid", "is"})  # of which `is` is of one step
    assert [file.name for file in files] == ["fid.png", "kid.png"]
    assert labels == ["classifier, seed 0", "classifier, seed 1", "classifier"]
