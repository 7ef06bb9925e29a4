"""Arrays in chunks: of one size on a device, several of them in flight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax.evaluation.features import Extractor
from dcgan_jax.ops import chunks


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


def test_a_cpu_takes_the_size_that_it_always_took():
    assert [chunks.suitable(64, size) for size in ((1, 1), (64, 64), (4096, 4096))] == [64] * 3


@pytest.mark.parametrize(
    ("size", "count"), [((28, 28), 512), ((128, 128), 512), ((128, 129), 256), ((256, 256), 128), ((4096, 4096), 1)]
)
def test_an_accelerator_takes_more_but_of_bounded_pixels(on_gpu, size, count):
    assert chunks.suitable(64, size) == count


def test_a_device_has_a_few_chunks_ahead_and_never_more():
    dispatched, fetched, lead = [], [], []

    def results():
        for i in range(8):
            dispatched.append(i)
            yield i, (jnp.full(3, i), None)

    for i, (array, nothing) in chunks.ahead(results()):
        lead.append(len(dispatched) - len(fetched))
        fetched.append(i)
        assert nothing is None
        np.testing.assert_array_equal(array, [i] * 3)
    assert fetched == list(range(8))
    assert max(lead) == lead[0] == chunks.IN_FLIGHT > 1


def test_rows_belong_to_their_entries():
    values = np.arange(23)
    sizes = set()

    def double(chunk):
        sizes.add(len(chunk))
        return jnp.asarray(2 * chunk)

    done = []
    np.testing.assert_array_equal(chunks.map_chunks(double, 4, values, done=done.append), 2 * values)
    assert sizes == {4}
    assert done == [4, 4, 4, 4, 4, 3]


def test_features_come_in_the_devices_chunks_and_in_order(on_gpu):
    shapes = []

    def means(variables, images):
        shapes.append(images.shape)
        return images.mean((1, 2), dtype=jnp.float32) + variables, None

    images = np.random.default_rng(0).integers(0, 256, (1000, 8, 8, 1), np.uint8)
    for resized, chunk in (((), 16), ((2048, 2048), 2)):
        extractor = Extractor("means", "", means, np.zeros(1, np.float32), 1, chunk=2, resized=resized)
        parts = list(extractor.stream([images[:100], images[100:]]))
        np.testing.assert_allclose(np.concatenate([part.vectors for part in parts]), images.mean((1, 2)), rtol=1e-5)
        assert shapes == [(chunk, 8, 8, 1)]
        shapes.clear()
    assert list(extractor.stream([])) == []
