"""Winograd's minimal filtering for convolutions of stride 2: the same sums with half the multiplications.

Along one axis, call padded pixel 2c + q phase q of cell c, and kernel tap 2t + q phase q of tap t. Then the convolution
is
    maps[p] = sum over t of cells[p + t] * taps[t],  summed over the two phases too,
a correlation of stride 1 with r = 2 taps (kernels of 3 and 4) or 3 (kernels of 5 and 6), two neighbouring outputs of
which need r + 1 multiplications, not 2r (Winograd 1980; Lavin and Gray 2016, arXiv 1509.09308, section 4):
    (maps[0], maps[1]) = A^T [(B cells) * (G taps)],  A, B, G constant.
An odd kernel lacks the last tap of phase 1; its product there is zero and left out. On both axes together that leaves
9/16 of the multiplications of a 4x4 kernel and 49/100 of a 5x5 one. Each product becomes a matrix product over tiles
of 2x2 outputs, [tiles, phases * I] by [phases * I, O].

Seen as one number, linear in each of three, <conv(images, kernel), maps> is the sum over products and tiles of
    V * U * M  with  V = B images, U = G kernel, M = A maps,
so the three functions of `dcgan_jax.ops.conv` are the three ways to leave one factor open. The transposes could be
written as `jax.linear_transpose` of their partners, but that turns slices into sums of padded arrays, which XLA runs
ten times slower on a CPU than stacked arrays.

Shapes as in `dcgan_jax.ops.conv`: images [B, H, W, I] with even sides, kernel [k, k, I, O] with k from 3 to 6, maps
[B, H/2, W/2, O]; `pad` pixels of zeros on each side.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

KERNEL_SIZES = range(3, 7)
# Of images with more numbers than this, which no CPU's second cache holds, V is summed phase by phase: up to twice as
# fast for the largest, but four times as many loops to compile, for which small ones are not worth waiting.
LARGE = 2**21
# Columns of zeros then stand behind V where it is read by columns, for the kernel's gradient: with rows as long as a
# power of two, which share a few sets of a cache, the product takes 1.1 to 1.5 times as long.
SPARE = 16

# For r taps: A [products, 2], B [products, cells] and G [products, taps]; products r + 1, cells r + 1.
_A = {2: np.array([[1, 0], [1, 1], [0, 1]]), 3: np.array([[1, 0], [1, 1], [1, -1], [0, 1]])}
_B = {
    2: np.array([[1, -1, 0], [0, 1, 0], [0, -1, 1]]),
    3: np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]),
}
_G = {2: np.array([[1, 0], [1, 1], [0, 1]]), 3: np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2}

Products = list[list[Array]]  # a matrix for each product on the one axis and on the other


def conv(images: Array, kernel: Array, pad: int) -> Array:
    """Strided convolution: images [B, H, W, I], kernel [k, k, I, O] -> maps [B, H/2, W/2, O]."""
    batch, height, width, _ = images.shape
    products = _multiply(_of_images(images, kernel.shape[0], pad), _of_kernel(kernel), ((1,), (0,)))
    return _to_maps(products, kernel.shape[0], (batch, height // 2, width // 2, kernel.shape[3]))


def conv_transpose(maps: Array, kernel: Array, pad: int) -> Array:
    """Its transpose in the images: maps [B, H, W, O], kernel [k, k, I, O] -> images [B, 2H, 2W, I]."""
    batch, height, width, _ = maps.shape
    products = _multiply(_of_maps(maps, kernel.shape[0]), _of_kernel(kernel), ((1,), (1,)))
    return _to_images(products, kernel.shape[0], pad, (batch, 2 * height, 2 * width, kernel.shape[2]))


def kernel_gradient(images: Array, maps: Array, kernel_size: int, pad: int) -> Array:
    """Its transpose in the kernel: images [B, H, W, I], maps [B, H/2, W/2, O] -> [k, k, I, O]."""
    products = _multiply(_of_images(images, kernel_size, pad, SPARE), _of_maps(maps, kernel_size), ((0,), (0,)))
    return _to_kernel(products, (kernel_size, kernel_size, images.shape[-1], maps.shape[-1]))


def _multiply(left: Products, right: Products, axes: tuple[tuple[int], tuple[int]]) -> Products:
    return [
        [lax.dot_general(a, b, (axes, ((), ()))) for a, b in zip(*rows, strict=True)]
        for rows in zip(left, right, strict=True)
    ]


def _taps(kernel_size: int) -> int:
    return (kernel_size + 1) // 2


def _phases(kernel_size: int) -> list[int]:
    """How many phases each product has: only the last can lack one."""
    return [2] * _taps(kernel_size) + [2 - kernel_size % 2]


def _tiles(maps_shape: Sequence[int]) -> tuple[int, int]:
    return (maps_shape[1] + 1) // 2, (maps_shape[2] + 1) // 2


def _sum(coefficients: Iterable[float], arrays: Iterable[Array]) -> Array:
    """The sum of coefficient * array, of which one coefficient is not 0."""
    total = None
    for coefficient, x in zip(coefficients, arrays, strict=True):
        if coefficient == 0:
            continue
        # Operations of lax: tracing those of jnp takes several times as long, which is the most of a second start.
        if abs(coefficient) != 1:
            x = lax.mul(x, lax.full_like(x, abs(coefficient)))
        x = x if coefficient > 0 else lax.neg(x)
        total = x if total is None else lax.add(total, x)
    assert total is not None
    return total


def _first(x: Array, counts: dict[int, int]) -> Array:
    """The first entries along some axes: counts by axis."""
    for axis, count in counts.items():
        x = lax.slice_in_dim(x, 0, count, axis=axis) if count < x.shape[axis] else x
    return x


def _of_images(images: Array, kernel_size: int, pad: int, spare: int = 0) -> Products:
    """V: for each pair of products [tiles, phases * phases * I].

    spare: of large images, columns of zeros behind these.
    """
    batch, height, width, channels = images.shape
    r, phases, matrix = _taps(kernel_size), _phases(kernel_size), _B[_taps(kernel_size)]
    rows, columns = _tiles((batch, height // 2, width // 2))
    after = (4 * (rows + 1) - pad - height, 4 * (columns + 1) - pad - width)
    images = jnp.pad(images, ((0, 0), (pad, after[0]), (pad, after[1]), (0, 0)))
    places = [(c, d) for c in range(r + 1) for d in range(r + 1)]

    @functools.cache
    def cell(c: int, d: int) -> Array:
        """Cell (c, d) of each tile with all its phases: [B, rows, 2, columns, 2, I]. Tile a begins with pixel 4a."""
        cells = images.reshape(batch, rows + 1, 4, columns + 1, 4, channels)
        first = (0, c // 2, 2 * (c % 2), d // 2, 2 * (d % 2), 0)
        sizes = (batch, rows, 2, columns, 2, channels)
        return lax.slice(cells, first, [start + size for start, size in zip(first, sizes, strict=True)])

    @functools.cache
    def pixel(y: int, x: int) -> Array:
        """Pixel (y, x) of each tile: [B, rows, columns, I]."""
        stop = (batch, y + 4 * rows - 3, x + 4 * columns - 3, channels)
        return lax.slice(images, (0, y, x, 0), stop, (1, 4, 4, 1))

    def at_once(i: int, j: int) -> Array:
        having = (_first(cell(*place), {2: phases[i], 4: phases[j]}) for place in places)
        return _sum(np.outer(matrix[i], matrix[j]).flat, having).transpose(0, 1, 3, 2, 4, 5)

    def one_by_one(i: int, j: int) -> Array:
        zeros = [lax.full((batch, rows, columns, spare), 0, images.dtype)] if spare else []
        parts = [
            _sum(np.outer(matrix[i], matrix[j]).flat, (pixel(2 * c + p, 2 * d + q) for c, d in places))
            for p in range(phases[i])
            for q in range(phases[j])
        ]
        return lax.concatenate([*parts, *zeros], 3)

    product = one_by_one if images.size > LARGE else at_once
    tiles = batch * rows * columns
    return [[product(i, j).reshape(tiles, -1) for j in range(r + 1)] for i in range(r + 1)]


def _to_images(products: Products, kernel_size: int, pad: int, shape: tuple[int, int, int, int]) -> Array:
    """The transpose of `_of_images`; `shape` is the images'."""
    batch, height, width, channels = shape
    r, phases, matrix = _taps(kernel_size), _phases(kernel_size), _B[_taps(kernel_size)]
    rows, columns = _tiles((batch, height // 2, width // 2))

    def pixels(axis: int, get: Callable[[int, int], Array]) -> Array:
        """The four pixels of each tile, stacked behind the tiles' `axis`; get(product, phase)."""
        found = []
        for offset in range(4):
            # Pixel 4a + offset of the image is 4(a + ahead) + rest with its padding.
            ahead, rest = divmod(offset + pad, 4)
            cell, phase = divmod(rest, 2)
            having = [i for i in range(r + 1) if phase < phases[i]]
            total: Array | float = 0.0
            for c in range(cell, r + 1, 2):  # the same pixel is cell c of its own tile, and c + 2 of the one before
                if matrix[having, c].any():
                    x = _sum(matrix[having, c], (get(i, phase) for i in having))
                    total = total + _shifted(x, ahead - c // 2, axis)
            found.append(total)
        return jnp.stack(found, axis + 1)

    across = []
    for i, row in enumerate(products):
        row = [x.reshape(batch, rows, columns, phases[i], phases[j], channels) for j, x in enumerate(row)]
        across.append(jnp.moveaxis(pixels(2, functools.partial(_phase, row)), 4, 2))  # [B, rows, phases, columns, 4, I]
    images = pixels(1, lambda i, phase: lax.index_in_dim(across[i], phase, axis=2, keepdims=False))
    return images.reshape(batch, 4 * rows, 4 * columns, channels)[:, :height, :width]


def _phase(row: list[Array], j: int, phase: int) -> Array:
    return lax.index_in_dim(row[j], phase, axis=4, keepdims=False)


def _shifted(x: Array, by: int, axis: int) -> Array:
    """x[a + by] at a along the axis, zeros where there is none; by is -1, 0 or 1."""
    if by == 0:
        return x
    length = x.shape[axis]
    zeros = jnp.zeros_like(lax.slice_in_dim(x, 0, 1, axis=axis))
    if by > 0:
        return jnp.concatenate([lax.slice_in_dim(x, 1, length, axis=axis), zeros], axis)
    return jnp.concatenate([zeros, lax.slice_in_dim(x, 0, length - 1, axis=axis)], axis)


def _of_maps(maps: Array, kernel_size: int) -> Products:
    """M: for each pair of products [tiles, O]."""
    matrix = _A[_taps(kernel_size)]
    batch, height, width, features = maps.shape
    rows, columns = _tiles(maps.shape)
    maps = jnp.pad(maps, ((0, 0), (0, 2 * rows - height), (0, 2 * columns - width), (0, 0)))
    maps = maps.reshape(batch, rows, 2, columns, 2, features)

    pixels = [maps[:, :, s, :, t] for s in range(2) for t in range(2)]

    def product(a: np.ndarray, b: np.ndarray) -> Array:
        return _sum(np.outer(a, b).flat, pixels).reshape(-1, features)

    return [[product(a, b) for b in matrix] for a in matrix]


def _to_maps(products: Products, kernel_size: int, shape: tuple[int, int, int, int]) -> Array:
    """The transpose of `_of_maps`; `shape` is the maps'."""
    matrix = _A[_taps(kernel_size)]
    batch, height, width, features = shape
    rows, columns = _tiles(shape)

    flat = [x for row in products for x in row]

    def output(s: int, t: int) -> Array:
        return _sum(np.outer(matrix[:, s], matrix[:, t]).flat, flat).reshape(batch, rows, columns, features)

    maps = jnp.stack([jnp.stack([output(s, t) for t in range(2)], 3) for s in range(2)], 2)
    return maps.reshape(batch, 2 * rows, 2 * columns, features)[:, :height, :width]


def _of_kernel(kernel: Array) -> Products:
    """U: for each pair of products [phases * phases * I, O]."""
    size, _, channels, features = kernel.shape
    r, phases, matrix = _taps(size), _phases(size), _G[_taps(size)]
    missing = 2 * r - size
    kernel = jnp.pad(kernel, ((0, missing), (0, missing), (0, 0), (0, 0))).reshape(r, 2, r, 2, channels, features)

    all_taps = [kernel[s, :, t] for s in range(r) for t in range(r)]

    def product(i: int, j: int) -> Array:
        taps = (_first(tap, {0: phases[i], 1: phases[j]}) for tap in all_taps)
        return _sum(np.outer(matrix[i], matrix[j]).flat, taps).reshape(-1, features)

    return [[product(i, j) for j in range(r + 1)] for i in range(r + 1)]


def _to_kernel(products: Products, shape: tuple[int, int, int, int]) -> Array:
    """The transpose of `_of_kernel`; `shape` is the kernel's. Rows of a product beyond those are left out."""
    size, channels = shape[0], shape[2]
    r, phases, matrix = _taps(size), _phases(size), _G[_taps(size)]

    def phase(i: int, j: int, p: int, q: int) -> Array:
        first = (p * phases[j] + q) * channels
        return lax.slice_in_dim(products[i][j], first, first + channels)

    def tap(y: int, x: int) -> Array:
        (s, p), (t, q) = divmod(y, 2), divmod(x, 2)
        down = [i for i in range(r + 1) if p < phases[i]]
        right = [j for j in range(r + 1) if q < phases[j]]
        coefficients = np.outer(matrix[down, s], matrix[right, t])
        return _sum(coefficients.flat, (phase(i, j, p, q) for i in down for j in right))

    return lax.concatenate([tap(y, x) for y in range(size) for x in range(size)], 0).reshape(shape)
