"""De-duplication: copies fall out, images that are only alike stay."""

import json
import re

import numpy as np
import pytest
from conftest import call, launch
from PIL import Image, ImageEnhance

from dcgan_jax import config as configuration
from dcgan_jax import data
from dcgan_jax.data import near_duplicates, prepared, semantic_hash

ORIGINALS = 120


def smooth(rng):
    colours = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8))
    return colours.resize((48, 48), Image.Resampling.BICUBIC)


def draw(folder, count):
    """Saves so many different images, and an altered copy of every fourth."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        image = smooth(rng)
        image.save(folder / f"{i:03d}_original.png")
        if i % 12 == 0:
            image.save(folder / f"{i:03d}_recompressed.jpg", quality=40)
        elif i % 12 == 4:
            image.resize((48, 48), box=(1, 0, 47, 46)).save(folder / f"{i:03d}_cropped.png")
        elif i % 12 == 8:
            ImageEnhance.Brightness(image).enhance(0.8).save(folder / f"{i:03d}_darker.png")
    return folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A prepared set of 120 images and altered copies of 30 of them, and its folder."""
    folder = draw(tmp_path_factory.mktemp("planted") / "pictures", ORIGINALS)
    config = configuration.default_config()
    config.image_size = (32, 32)
    config.data.update(source="folder", path=str(folder), prepared=str(folder.parent / "prepared"))
    return data.find_or_prepare(config)


@pytest.fixture(scope="module")
def result(planted):
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return near_duplicates.deduplicate(planted, seed=0)


def shorten(patch):
    """Trains the hash for a moment; the last test does all of it."""
    patch.setattr(semantic_hash, "TRAINING_STEPS", 100)
    patch.setattr(semantic_hash, "TRAINING_BATCH", 64)
    patch.setattr(near_duplicates, "PAIR_BATCH", 32)


def test_copies_fall_out_and_all_others_stay(result):
    names = prepared.read_names(result)
    assert len({name[:3] for name in names}) == ORIGINALS, "of each group one stays"
    assert len(names) <= ORIGINALS + 2, "of the 30 copies hardly one is missed"


def test_what_stays_is_whole_and_says_where_it_comes_from(planted, result):
    before, after = data.open_set(planted), data.open_set(result, verify=True)
    places = {name: i for i, name in enumerate(prepared.read_names(planted))}
    for name, image in zip(prepared.read_names(result), after.images, strict=True):
        np.testing.assert_array_equal(image, before.images[places[name]])
    assert after.card["deduplicated"] == before.card["sha256"]["images"]


def test_the_report_shows_what_fell_out(result):
    lines = [json.loads(line) for line in (result / "duplicates.jsonl").read_text().splitlines()]
    assert len(lines) >= 28
    assert all(line["stays"][:3] == line["falls_out"][:3] for line in lines)
    assert [line["correlation"] for line in lines] == sorted(line["correlation"] for line in lines)
    for title in ("least_alike", "random"):
        with Image.open(result / f"duplicates_{title}.png") as picture:
            assert (picture.width, picture.height > 5 * 34 - 2) == (6 * 66 - 2, True), "the pairs, and a caption"


def test_the_undeduplicated_set_is_still_the_one_that_training_finds(planted, result):
    config = configuration.default_config()
    config.image_size = (32, 32)
    card = json.loads((planted / "card.json").read_text())
    config.data.update(source="folder", path=card["path"], prepared=str(planted.parent))
    assert data.find_or_prepare(config) == planted
    config.data.update(source="prepared", path=str(result))
    assert len(data.load(config).images) == len(prepared.read_names(result))


def test_pairs_of_one_bucket_are_found_once_and_others_never():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(1000, 128)).astype(np.float16)
    codes[500] = codes[7]
    codes[900] = codes[7]
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    pairs = near_duplicates.candidates(codes, np.packbits(codes > 0, axis=1), seed=0)
    assert pairs.tolist() == [[7, 500], [7, 900], [500, 900]]


def test_the_correlation_sees_through_crops_and_brightness(monkeypatch):
    monkeypatch.setattr(near_duplicates, "PAIR_BATCH", 4)
    rng = np.random.default_rng(0)
    image = smooth(rng)
    kinds = [
        image,
        image.resize((48, 48), box=(2, 2, 46, 46)),
        ImageEnhance.Brightness(image).enhance(0.7),
        smooth(rng),
    ]
    images = np.stack([np.asarray(one) for one in kinds])
    same, cropped, darker, other = near_duplicates.correlation(images, np.array([[0, 0], [0, 1], [0, 2], [0, 3]]))
    assert same > 0.999
    assert min(cropped, darker) > near_duplicates.MIN_CORRELATION > 0.7 > other
    # Whichever of the two was cropped.
    np.testing.assert_allclose(near_duplicates.correlation(images, np.array([[1, 0]])), [cropped], atol=1e-5)


def test_grey_and_plain_images_are_no_trouble(monkeypatch):
    monkeypatch.setattr(near_duplicates, "PAIR_BATCH", 4)
    images = np.zeros((40, 20, 24, 1), np.uint8)
    images[20:] = np.random.default_rng(0).integers(0, 256, (20, 20, 24, 1))
    correlations = near_duplicates.correlation(images, np.array([[0, 1], [0, 20], [20, 21]]))
    assert np.isfinite(correlations).all()
    assert np.isfinite(semantic_hash.crops(images)).all()
    # Plain ones correlate with nothing, but equal ones are duplicates all the same.
    assert near_duplicates.equal_pairs(images).tolist() == [[0, i] for i in range(1, 20)]


@pytest.mark.parametrize("fully_trained", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_the_launcher_deduplicates(tmp_path, monkeypatch, fully_trained):
    folder = draw(tmp_path / "pictures", 36)
    arguments = ("--config=configs/folder.py", f"--config.data.path={folder}", "--config.image_size=32")
    arguments += ("--config.channels=1", f"--config.data.prepared={tmp_path}", "--deduplicate")
    if fully_trained:
        done = launch("prepare", *arguments, optimize=True)
    else:
        shorten(monkeypatch)
        done = call("prepare", *arguments)
    assert done.returncode == 0, done.stderr
    assert "of 45 images are near-duplicates" in done.stderr
    assert "--config.data.source=prepared --config.data.path=" in done.stdout
    assert "--config.image_size=32,32 --config.channels=1" in done.stdout
    assert re.search(r"deduplicated-\w{12}: 3[67] images without", done.stdout)
