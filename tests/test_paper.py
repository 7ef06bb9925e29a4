"""Recipe `paper` of every configuration against the paper's table, which docs/paper.md has."""

import jax
import pytest
from conftest import ROOT
from test_models import from_file

from dcgan_jax.config import layers
from dcgan_jax.models import WEIGHT_INIT, from_config
from dcgan_jax.ops.conv import padding


def table():
    """{configuration: {row: cell}}"""
    text = (ROOT / "docs" / "paper.md").read_text().split("## Networks and training")[1]
    lines = [line for line in text.split("## Experiments")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|---")]
    names = cells[0][1:]
    return {name: {row[0]: row[i + 1] for row in cells[1:]} for i, name in enumerate(names)}


TABLE = table()


def numbers(cell):
    return tuple(float(part) for part in cell.replace(",000", "000").split(",") if part.strip())


def whole(cell):
    return int(cell.replace(",", ""))


@pytest.mark.parametrize("name", TABLE)
def test_every_cell_is_the_recipes(name):
    cells = dict(TABLE[name])
    config = from_file(name, "paper")
    features, strides = layers(config)
    height, width, channels = map(int, cells.pop("image").split("x"))
    assert (tuple(config.image_size), config.channels) == ((height, width), channels)
    length, prior = cells.pop("z").split()
    assert (config.latent_dim, config.prior) == (int(length), prior)
    assert config.num_classes == int(cells.pop("labels at every layer"))
    assert features == numbers(cells.pop("discriminator's convolutions"))
    assert strides == numbers(cells.pop("strides"))
    assert (config.kernel_size, padding(config.kernel_size, 2)) == numbers(cells.pop("kernel, padding at stride 2"))
    assert tuple(config.dense) == numbers(cells.pop("hidden dense layers"))
    rows, columns, maps = map(int, cells.pop("first map of the generator").split("x"))
    total = 1
    for stride in strides:
        total *= stride
    assert (height // total, width // total, features[-1]) == (rows, columns, maps)
    assert config.output == cells.pop("output")
    affine = {"yes": True, "no": False}[cells.pop("gains and biases of batch norm")]
    assert config.norm_affine is affine
    assert config.norm_per_unit is (cells.pop("the generator's first batch norm: of each") == "unit")
    assert config.norm_epsilon == float(cells.pop("epsilon of batch norm"))
    assert config.batch_size == int(cells.pop("batch"))
    assert config.generator_lr == config.discriminator_lr == float(cells.pop("learning rate"))
    assert (config.b1, config.b2) == numbers(cells.pop("b1, b2"))
    assert config.l2 == float(cells.pop("L2 on every parameter"))
    assert config.fresh_z is (cells.pop("a z of its own for the generator's update") == "yes")
    assert (config.ema_decay == 0) is (cells.pop("moving average") == "no")
    images, epochs, falling = (
        whole(cells.pop(row)) for row in ("images", "epochs", "of which the learning rate falls")
    )
    # Two of the released code's batches are one step.
    assert config.num_steps == pytest.approx(images * epochs / config.batch_size / 2, rel=0.02)
    assert config.lr_decay_steps == pytest.approx(images * falling / config.batch_size / 2, rel=0.02)
    assert not config.data.flip
    assert not cells, "a row of the table that is not compared"


def test_what_all_share():
    assert WEIGHT_INIT(jax.random.key(0), (1000, 1000)).std() == pytest.approx(0.02, rel=0.01)
    for name in TABLE:
        generator, discriminator = from_config(from_file(name, "paper"))
        assert generator.features == discriminator.features
