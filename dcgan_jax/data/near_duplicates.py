"""Finds the near-duplicates of a prepared set and leaves them out, as the paper did with LSUN (section 4.1.1).

Each image has a semantic hash of 128 bits (`semantic_hash`). Images whose hashes agree in a random choice of bits form
a bucket. In each bucket, neighbours with similar codes are compared pixel by pixel: crops of one with the other. Time
and memory (300 bytes per image) are linear in the number of images.

The paper compared equal hashes only, and counted all of them as near-duplicates. Several random choices of bits also
find copies whose hashes differ in a few bits. The comparison of pixels keeps images that are only similar, such as
different faces before a dark wall.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dcgan_jax.data import prepared
from dcgan_jax.data.captions import captioned
from dcgan_jax.data.images import grid
from dcgan_jax.data.semantic_hash import BITS, SIDE, crops, hash_all, normalize, train_autoencoder, zoom_matrices
from dcgan_jax.ops.chunks import chunks
from dcgan_jax.runtime import files
from dcgan_jax.runtime.progress import Progress, progress

log = logging.getLogger("dcgan_jax")

BUCKETINGS = 128  # random choices of bits
NEIGHBOURS = 2  # following images in its bucket that an image is compared with
MIN_CODE_CORRELATION = 0.7  # pairs whose codes correlate less are not compared pixel by pixel
# Two images are near-duplicates if their best crops correlate at least this much. benchmarks/duplicates.py measures it.
MIN_CORRELATION = 0.96
MIN_UNCROPPED_CORRELATION = 0.7  # pairs that correlate less without any crop are not compared with crops
PAIR_BATCH = 512  # pairs compared at a time
ROW_BATCH = 4096  # images copied, and pairs of codes compared, at a time
MAX_PAIRS_SHOWN = 60  # in a picture of the report
PAIRS = "Pairs: the image on the right falls out, as it is like the one on the left."


class Duplicates(NamedTuple):
    """Near-duplicates among N images.

    kept: int64 [K], the images that stay, one of each group.
    pairs: int64 [P, 2], an image that stays or falls out, and one that falls out because of it.
    correlations: float [P], of each pair.
    """

    kept: np.ndarray
    pairs: np.ndarray
    correlations: np.ndarray


def deduplicate(path: Path, seed: int) -> Path:
    """The folder of a copy of the prepared set in `path` without near-duplicates, beside it; made if not there.

    It also holds `duplicates.jsonl`, with a line per pair, and pictures of pairs side by side:
    duplicates_least_alike.png, in which mistakes would be seen, and duplicates_random.png.

    Raises UserError if `path` is not a prepared set, or if the disk is too small.
    """
    image_set = prepared.open_set(path)
    key = hashlib.sha256(f"{image_set.card['sha256']['images']} {seed}".encode()).hexdigest()[:12]
    target = path.with_name(f"{path.name}-deduplicated-{key}")
    with prepared.building(target) as partial:
        if partial is None:
            return target
        prepared.check_space(partial, image_set.images.nbytes)
        count = len(image_set.images)
        log.info("looking for near-duplicates among %d images", count)
        duplicates = find_duplicates(image_set.images, seed)
        log.info("%d of %d images are near-duplicates and left out", count - len(duplicates.kept), count)
        names = prepared.read_names(path)
        _write_report(partial, image_set.images, names, duplicates, seed)
        _write_set(partial, image_set, names, duplicates.kept)
    return target


def find_duplicates(images: np.ndarray, seed: int) -> Duplicates:
    """The near-duplicates among images, uint8 [N, H, W, C]. The first image of each connected group stays."""
    network, params = train_autoencoder(images, seed)
    with Progress("near-duplicates: comparing images"):  # in parts, of which each may be short
        pairs = candidates(*hash_all(images, network, params), seed)
        correlations = correlation(images, pairs)
    duplicate = correlations >= MIN_CORRELATION
    # Images of one colour correlate with nothing, not even with their copies, so equal images are added.
    equal = equal_pairs(images)
    pairs = np.concatenate([pairs[duplicate], equal])
    pairs, first_places = np.unique(pairs, axis=0, return_index=True)
    correlations = np.concatenate([correlations[duplicate], np.ones(len(equal))])[first_places]
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(images), len(images)))
    _, groups = connected_components(links, directed=False)
    _, kept = np.unique(groups, return_index=True)
    return Duplicates(np.sort(kept), pairs, correlations)


def candidates(codes: np.ndarray, packed: np.ndarray, seed: int) -> np.ndarray:
    """Pairs of images in a common bucket with similar codes: int64 [P, 2], first < second, sorted, each pair once.

    codes: float16 [N, 128] of norm 1. packed: their signs as packed bits, uint8 [N, 16].
    """
    rng = np.random.default_rng(seed)
    count = len(packed)
    bits = min(BITS, int(np.log2(max(count, 2))) + 4)  # enough that few images share a bucket by chance
    pairs = np.empty(0, np.int64)  # each as one number, first * count + second
    for _ in progress(range(BUCKETINGS), "near-duplicates: matching", "rounds"):
        buckets = np.zeros(count, np.uint64)
        for bit in rng.choice(BITS, bits, replace=False):
            buckets = buckets * np.uint64(2) + ((packed[:, bit // 8] >> np.uint8(bit % 8)) & np.uint8(1))
        order = np.argsort(buckets, kind="stable").astype(np.int32)
        for distance in range(1, NEIGHBOURS + 1):
            first, second = order[:-distance], order[distance:]
            same_bucket = buckets[first] == buckets[second]
            pairs = np.union1d(pairs, _similar(codes, first[same_bucket], second[same_bucket]))
    return np.stack(np.divmod(pairs, count), axis=1)


def _similar(codes: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The pairs (first[i], second[i]) with similar codes, each as the number first * N + second: int64 [P]."""
    pairs = [np.empty(0, np.int64)]
    for start in range(0, len(first), ROW_BATCH):
        one, other = first[start : start + ROW_BATCH], second[start : start + ROW_BATCH]
        similar = np.einsum("pc,pc->p", codes[one], codes[other], dtype=np.float32) > MIN_CODE_CORRELATION
        pairs.append(one[similar].astype(np.int64) * len(codes) + other[similar])
    return np.concatenate(pairs)


def correlation(images: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The largest correlation of crops of one image of each pair with the other: float32 [P]."""
    correlations = np.ones(len(pairs), np.float32)
    for measure in (_correlation, _best_correlation):  # the second is expensive, and few pairs get that far
        places = np.flatnonzero(correlations > MIN_UNCROPPED_CORRELATION)
        total = -(-len(places) // PAIR_BATCH)
        compared = chunks(PAIR_BATCH, pairs[places])
        for part, (chunk,) in progress(compared, "near-duplicates: comparing", "batches", total, compiles=True):
            values = measure(crops(images[chunk[:, 0]]), crops(images[chunk[:, 1]]))
            correlations[places[part]] = np.asarray(values)[: part.stop - part.start]
    return correlations


@jax.jit
def _correlation(first: Array, second: Array) -> Array:
    """The correlation of crops [B, P] with others: [B]."""
    return jnp.mean(first * second, axis=1)


@jax.jit
def _best_correlation(first: Array, second: Array) -> Array:
    """The largest correlation of zooms into either crop with the other: [B]."""
    first, second = (pixels.reshape(len(pixels), SIDE, SIDE, -1) for pixels in (first, second))

    def best(one: Array, other: Array) -> Array:
        correlations = [jnp.sum(normalize(one) * normalize(other), (1, 2, 3))]
        for matrices in zoom_matrices():
            zoomed = jnp.einsum("aij,bkl,njlc->nabikc", matrices, matrices, one)
            products = normalize(zoomed) * normalize(other)[:, None, None]
            correlations.append(jnp.sum(products, (-3, -2, -1)).max((1, 2)))
        return jnp.stack(correlations).max(0)

    return jnp.maximum(best(first, second), best(second, first))


def equal_pairs(images: np.ndarray) -> np.ndarray:
    """Pairs of equal images, int64 [P, 2]: the first of each group of equal images with each other one."""
    told = progress(images, "near-duplicates: equal images", "images")
    digests = np.array([hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in told], "V16")
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    pairs = np.stack([first[group], np.arange(len(images))], axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


def _write_set(partial: Path, image_set: prepared.ImageSet, names: list[str], kept: np.ndarray) -> None:
    shape = (len(kept), *image_set.images.shape[1:])
    images = np.lib.format.open_memmap(partial / "images.npy", "w+", np.uint8, shape)
    for start in progress(range(0, len(kept), ROW_BATCH), "writing the set without near-duplicates", "parts"):
        images[start : start + ROW_BATCH] = image_set.images[kept[start : start + ROW_BATCH]]
    images.flush()
    for name in ("labels", "attributes"):
        array = getattr(image_set, name)
        if array is not None:
            files.write_array(partial / f"{name}.npy", array[kept])
    prepared.write_names(partial, (names[i] for i in kept.tolist()))
    hashes = {name: files.sha256(partial / f"{name}.npy") for name in image_set.card["sha256"]}
    card = image_set.card | {"count": len(kept), "sha256": hashes, "deduplicated": image_set.card["sha256"]["images"]}
    prepared.write_card(partial, card)


def _write_report(partial: Path, images: np.ndarray, names: list[str], duplicates: Duplicates, seed: int) -> None:
    order = np.argsort(duplicates.correlations)
    lines = [
        json.dumps({"stays": names[first], "falls_out": names[second], "correlation": round(value, 4)}) + "\n"
        for (first, second), value in zip(
            duplicates.pairs[order].tolist(), duplicates.correlations[order].tolist(), strict=True
        )
    ]
    files.write_text(partial / "duplicates.jsonl", "".join(lines))
    random_order = np.random.default_rng(seed).permutation(order)
    for title, shown in (("least_alike", order[:MAX_PAIRS_SHOWN]), ("random", random_order[:MAX_PAIRS_SHOWN])):
        if len(shown):
            first, second = duplicates.pairs[shown].T
            picture = grid(np.concatenate([images[first], images[second]], axis=2))
            captioned(picture, PAIRS).save(partial / f"duplicates_{title}.png")
