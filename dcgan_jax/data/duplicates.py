"""Near-duplicates of a prepared set, found and left out as the paper did with LSUN (section 4.1.1).

A denoising, dropout-regularised ReLU autoencoder (3072-128-3072) learns 32x32 centre crops. Its code, binarised by
thresholding, is a semantic hash. Images whose hashes agree in a random choice of their bits lie in one bucket; there,
neighbours with like codes are compared pixel by pixel, one laid over crops of the other. Time and memory (300 bytes an
image) are linear in the number of images.

The paper took equal hashes alone, and all of them. Several random choices of bits also find copies whose hashes differ
in some; comparing the pixels keeps images apart that are only alike, such as faces before a dark wall.
"""

import functools
import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import trange

from dcgan_jax.data import prepared
from dcgan_jax.data.images import grid

log = logging.getLogger("dcgan_jax")

SIDE = 32  # of the crops that are compared
BITS = 128
TRAINING_STEPS, TRAINING_BATCH = 3000, 256
NOISE, DROPOUT = 0.3, 0.2
BUCKETINGS = 128  # random choices of bits
NEAREST = 2  # others of its bucket that an image is compared with
LEAST_CODE_CORRELATION = 0.7  # pairs whose codes correlate less are not compared pixel by pixel
# Crops of one image are laid over the other: these shares of its side, each at three places a side.
ZOOMS = (0.97, 0.94, 0.91)
# Two images are near-duplicates where the best of these correlates so much; benchmarks/duplicates.py measures it.
LEAST_CORRELATION = 0.96
WORTH_A_LOOK = 0.7  # pairs that correlate less before anything is cropped are not looked at again
CHUNK, PAIRS = 4096, 512  # images, and pairs of them, at a time
SHOWN = 60  # pairs in a picture of the report


class DenoisingAutoencoder(nn.Module):
    """Pixels [B, P] to a code of `bits` ReLU activations and back."""

    bits: int = BITS

    @nn.compact
    def __call__(self, pixels: Array, *, train: bool = False) -> tuple[Array, Array]:
        """The code before its ReLU, [B, bits], and the reconstruction, [B, P]. Training needs the rng 'dropout'."""
        noisy = pixels
        if train:
            noisy = pixels + NOISE * jax.random.normal(self.make_rng("dropout"), pixels.shape)
        code = nn.Dense(self.bits)(noisy)
        hidden = nn.Dropout(DROPOUT, deterministic=not train)(nn.relu(code))
        return code, nn.Dense(pixels.shape[-1])(hidden)


def _normal(pixels: Array) -> Array:
    """Pixels [..., H, W, C] with mean 0 in each channel, and norm 1."""
    pixels = pixels - pixels.mean((-3, -2), keepdims=True)
    return pixels / (jnp.sqrt(jnp.sum(pixels**2, (-3, -2, -1), keepdims=True)) + 1e-3)


@jax.jit
def crops(images: Array) -> Array:
    """Images uint8 [B, H, W, C] to their centre squares at 32x32, float32 [B, 32 * 32 * C].

    Each channel has mean 0, and each image variance 1: a brighter or paler copy is equal, and what two pictures of a
    blue sea have in common, their blue, is not seen.
    """
    _, height, width, channels = images.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    squares = images[:, top : top + side, left : left + side].astype(jnp.float32)
    small = jax.image.resize(squares, (len(images), SIDE, SIDE, channels), "linear", antialias=True)
    return _normal(small).reshape(len(images), -1) * np.sqrt(SIDE * SIDE * channels)


@functools.cache
def _zooms() -> np.ndarray:
    """What crops of a row of 32 pixels show, enlarged back, as matrices [sizes, places, 32, 32]."""
    pixels = np.arange(SIDE)
    maps = []
    for share in ZOOMS:
        for left in (0, (1 - share) / 2, 1 - share):
            # Here is the middle of each new pixel in the old row; between two old ones it is interpolated.
            middle = np.clip((left + (pixels + 0.5) / SIDE * share) * SIDE - 0.5, 0, SIDE - 1)
            maps.append(np.maximum(0, 1 - abs(middle[:, None] - pixels[None])))
    return np.stack(maps).reshape(len(ZOOMS), 3, SIDE, SIDE).astype(np.float32)


def train_autoencoder(images: np.ndarray, seed: int) -> tuple[DenoisingAutoencoder, Any]:
    """The network and its parameters, trained on random batches of prepared images."""
    network = DenoisingAutoencoder()
    optimizer = optax.adam(1e-3)
    rng = np.random.default_rng(seed)
    key = jax.random.key(seed)

    @jax.jit
    def step(params: Any, opt_state: Any, batch: Array, key: Array) -> tuple[Any, Any, Array]:
        pixels = crops(batch)
        # Another crop of the image is a kind of noise too: its code shall be the same.
        size, rows, columns = jax.random.randint(key, (3,), 0, len(ZOOMS))
        maps = jnp.asarray(_zooms())[size]
        corrupted = pixels.reshape(len(pixels), SIDE, SIDE, -1)
        corrupted = jnp.einsum("ij,kl,njlc->nikc", maps[rows], maps[columns], corrupted).reshape(pixels.shape)

        def loss(params: Any) -> Array:
            _, reconstruction = network.apply(params, corrupted, train=True, rngs={"dropout": key})
            return jnp.mean((reconstruction - pixels) ** 2)

        value, gradients = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(gradients, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    batch = min(TRAINING_BATCH, len(images))
    params = network.init(key, crops(images[:1]))
    opt_state = optimizer.init(params)
    with trange(TRAINING_STEPS, desc="learning hashes", disable=None, leave=False) as steps:
        for i in steps:
            chosen = np.sort(rng.integers(0, len(images), batch))
            params, opt_state, _ = step(params, opt_state, images[chosen], jax.random.fold_in(key, i))
    return network, params


def hash_all(images: np.ndarray, network: DenoisingAutoencoder, params: Any) -> tuple[np.ndarray, np.ndarray]:
    """The codes of all images, each of norm 1, float16 [N, 128], and their signs, packed: uint8 [N, 16].

    A code counts from the median of each of its units over a sample, in units of the spread there, so that each bit is
    0 for half of the images.
    """
    encode = jax.jit(lambda batch: network.apply(params, crops(batch))[0])
    sample = np.asarray(encode(images[np.linspace(0, len(images) - 1, min(len(images), CHUNK)).astype(int)]))
    middle, spread = np.median(sample, axis=0), sample.std(0) + 1e-6
    codes, packed = np.empty((len(images), BITS), np.float16), np.empty((len(images), BITS // 8), np.uint8)
    for start in trange(0, len(images), CHUNK, desc="hashing", unit=" batches", disable=None, leave=False):
        part = (np.asarray(encode(images[start : start + CHUNK])) - middle) / spread
        packed[start : start + CHUNK] = np.packbits(part > 0, axis=1)
        codes[start : start + CHUNK] = part / (np.linalg.norm(part, axis=1, keepdims=True) + 1e-6)
    return codes, packed


def candidates(codes: np.ndarray, packed: np.ndarray, seed: int) -> np.ndarray:
    """Pairs of images that share a bucket and have like codes: int64 [P, 2], first < second, each once, in order."""
    rng = np.random.default_rng(seed)
    count = len(packed)
    taken = min(BITS, int(np.log2(max(count, 2))) + 4)  # bits: few images share a bucket by chance
    found = np.empty(0, np.int64)  # pairs, each as one number
    for _ in trange(BUCKETINGS, desc="matching", disable=None, leave=False):
        keys = np.zeros(count, np.uint64)
        for bit in rng.choice(BITS, taken, replace=False):
            keys = keys * np.uint64(2) + ((packed[:, bit // 8] >> np.uint8(bit % 8)) & np.uint8(1))
        order = np.argsort(keys, kind="stable").astype(np.int32)
        for distance in range(1, NEAREST + 1):
            first, second = order[:-distance], order[distance:]
            places = np.flatnonzero(keys[first] == keys[second])
            new = [np.empty(0, np.int64)]
            for start in range(0, len(places), CHUNK):
                part = places[start : start + CHUNK]
                alike = np.einsum("pc,pc->p", codes[first[part]], codes[second[part]], dtype=np.float32)
                chosen = part[alike > LEAST_CODE_CORRELATION]
                new.append(first[chosen].astype(np.int64) * count + second[chosen])
            found = np.union1d(found, np.concatenate(new))
    return np.stack(np.divmod(found, count), axis=1)


@jax.jit
def _correlation(first: Array, second: Array) -> Array:
    """Of crops [B, P] with one another, as they are: [B]."""
    return jnp.mean(first * second, axis=1)


@jax.jit
def _best_correlation(first: Array, second: Array) -> Array:
    """The largest correlation of crops of either image with the other: [B]."""
    first, second = (pixels.reshape(len(pixels), SIDE, SIDE, -1) for pixels in (first, second))

    def best(one: Array, other: Array) -> Array:
        found = [jnp.sum(_normal(one) * _normal(other), (1, 2, 3))]
        for maps in _zooms():
            cropped = jnp.einsum("aij,bkl,njlc->nabikc", maps, maps, one)
            found.append(jnp.sum(_normal(cropped) * _normal(other)[:, None, None], (-3, -2, -1)).max((1, 2)))
        return jnp.stack(found).max(0)

    return jnp.maximum(best(first, second), best(second, first))


def correlation(images: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """How alike the two of each pair are, float32 [P]: the largest correlation of crops of one with the other."""
    found = np.ones(len(pairs), np.float32)
    for measure in (_correlation, _best_correlation):  # the second is dear, and few pairs come that far
        chosen = np.flatnonzero(found > WORTH_A_LOOK)
        for start in trange(0, len(chosen), PAIRS, desc="comparing", unit=" batches", disable=None, leave=False):
            part = chosen[start : start + PAIRS]
            filled = np.resize(part, PAIRS)  # one shape, compiled once
            first, second = (crops(images[pairs[filled, side]]) for side in (0, 1))
            found[part] = np.asarray(measure(first, second))[: len(part)]
    return found


def equal(images: np.ndarray) -> np.ndarray:
    """Pairs of images that are equal to the byte, int64 [P, 2], the first of such images with each of the others."""
    digests = np.array([hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images], "V16")
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    pairs = np.stack([first[group], np.arange(len(images))], axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


class Found(NamedTuple):
    """Near-duplicates: `kept`, int64 [K], stay; `pairs`, [P, 2], hold an image that stays or falls out and one that
    falls out because of it; `alike`, [P], is their correlation.
    """

    kept: np.ndarray
    pairs: np.ndarray
    alike: np.ndarray


def find(images: np.ndarray, seed: int) -> Found:
    """Near-duplicates among prepared images, uint8 [N, H, W, C]. Of each group that hangs together the first stays."""
    network, params = train_autoencoder(images, seed)
    pairs = candidates(*hash_all(images, network, params), seed)
    alike = correlation(images, pairs)
    chosen = alike >= LEAST_CORRELATION
    # Plain images correlate with nothing, not even with their copies.
    same = equal(images)
    pairs, alike = np.concatenate([pairs[chosen], same]), np.concatenate([alike[chosen], np.ones(len(same))])
    pairs, places = np.unique(pairs, axis=0, return_index=True)
    alike = alike[places]
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(images), len(images)))
    _, groups = connected_components(links, directed=False)
    _, kept = np.unique(groups, return_index=True)
    return Found(np.sort(kept), pairs, alike)


def deduplicate(path: Path, seed: int) -> Path:
    """A prepared set like that in the folder `path`, without its near-duplicates, beside it; made if not there.

    Its folder also holds `duplicates.jsonl`, a line for each pair that was found, and pictures of pairs, side by side:
    duplicates_least_alike.png, where mistakes would show, and duplicates_random.png.

    Raises UserError where `path` is no prepared set, or the disk is too small.
    """
    image_set = prepared.open_set(path)
    key = hashlib.sha256(f"{image_set.card['sha256']['images']} {seed}".encode()).hexdigest()[:12]
    target = path.with_name(f"{path.name}-deduplicated-{key}")
    with prepared.building(target) as partial:
        if partial is None:
            return target
        prepared.check_space(partial, image_set.images.nbytes)
        log.info("looking for near-duplicates among %d images", len(image_set.images))
        found = find(image_set.images, seed)
        count = len(image_set.images)
        log.info("%d of %d images are near-duplicates and left out", count - len(found.kept), count)
        _report(partial, path, image_set.images, found, seed)
        _write(partial, path, image_set, found.kept)
    return target


def _write(partial: Path, path: Path, image_set: prepared.ImageSet, kept: np.ndarray) -> None:
    """The set of the images that stay."""
    images = np.lib.format.open_memmap(partial / "images.npy", "w+", np.uint8, (len(kept), *image_set.images.shape[1:]))
    for start in range(0, len(kept), CHUNK):
        images[start : start + CHUNK] = image_set.images[kept[start : start + CHUNK]]
    images.flush()
    for name in ("labels", "attributes"):
        array = getattr(image_set, name)
        if array is not None:
            prepared.write_array(partial / f"{name}.npy", array[kept])
    names = prepared.read_names(path)
    prepared.write_names(partial, (names[i] for i in kept.tolist()))
    hashes = {name: prepared.sha256(partial / f"{name}.npy") for name in image_set.card["sha256"]}
    card = image_set.card | {"count": len(kept), "sha256": hashes, "deduplicated": image_set.card["sha256"]["images"]}
    prepared.write_card(partial, card)


def _report(partial: Path, path: Path, images: np.ndarray, found: Found, seed: int) -> None:
    names = prepared.read_names(path)
    order = np.argsort(found.alike)
    with (partial / "duplicates.jsonl").open("w") as file:
        for first, second, alike in zip(*found.pairs[order].T.tolist(), found.alike[order].tolist(), strict=True):
            line = {"stays": names[first], "falls_out": names[second], "correlation": round(alike, 4)}
            file.write(json.dumps(line) + "\n")
    chosen = np.random.default_rng(seed).permutation(order)
    for title, shown in (("least_alike", order[:SHOWN]), ("random", chosen[:SHOWN])):
        if len(shown):
            both = np.concatenate([images[found.pairs[shown, 0]], images[found.pairs[shown, 1]]], axis=2)
            grid(both).save(partial / f"duplicates_{title}.png")
