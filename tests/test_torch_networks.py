"""Weights of PyTorch's DCGAN example, imported and exported.

python tests/test_torch_networks.py      rewrites golden/torch_dcgan.pth; it needs PyTorch
"""

import functools
import itertools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ROOT, call

from dcgan_jax import inference, models
from dcgan_jax.interop import torch_export, torch_file, torch_layers, torch_networks, torch_writer
from dcgan_jax.run import checkpoint
from dcgan_jax.runtime import safetensors_file
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import new_folder, unused_path

GOLDEN = ROOT / "tests" / "golden" / "torch_dcgan.pth"
NETS = ("netG", "netD")


def pictures(count=3):
    """Images float32 [N, 64, 64, 3] in [-1, 1], from a formula."""
    positions = np.arange(count * 64 * 64 * 3, dtype=np.float64).reshape(count, 64, 64, 3)
    return np.sin(positions**1.3 / 97).astype(np.float32)


@pytest.fixture(scope="module")
def golden():
    return torch_file.read(GOLDEN)


@pytest.fixture(scope="module")
def files(golden, tmp_path_factory):
    """A folder with netG.pth and netD.pth, made by `torch_writer`."""
    folder = tmp_path_factory.mktemp("torch")
    for name in NETS:
        torch_writer.write(folder / f"{name}.pth", golden[name])
    return folder


@pytest.fixture(scope="module")
def workdir(files):
    done = call(
        "import_weights",
        "--format=torch",
        *(f"--file={files / name}.pth" for name in NETS),
        f"--out={files / 'imported'}",
    )
    assert done.returncode == 0, done.stderr
    return files / "imported"


def test_both_networks_compute_what_pytorch_computes(golden, workdir):
    gan = inference.load(workdir)
    np.testing.assert_allclose(gan.generate(golden["z"])[:, ::7, ::5], golden["netG_eval"], atol=1e-5)
    np.testing.assert_allclose(jax.nn.sigmoid(gan.discriminate(pictures())), golden["netD_eval"], atol=1e-5)
    tree, _ = checkpoint.read(workdir)
    for name, network, x, item in (
        ("netG", gan.generator, golden["z"], "generator"),
        ("netD", gan.discriminator, pictures(), "discriminator"),
    ):
        variables = {key: tree[item][key] for key in ("params", "batch_stats")}
        output = jax.jit(functools.partial(network.apply, train=True, mutable=["batch_stats"]))(variables, x)[0]
        output = output[:, ::7, ::5] if name == "netG" else jax.nn.sigmoid(output)
        np.testing.assert_allclose(output, golden[f"{name}_train"], atol=1e-5)


@pytest.mark.parametrize("flag", ["--images=nowhere", "--strides=2,2"])
def test_what_would_be_ignored_is_refused(files, tmp_path, flag):
    done = call("import_weights", "--format=torch", f"--file={files / 'netD.pth'}", f"--out={tmp_path / 'run'}", flag)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{flag.split('=')[0]}: found some, expected none" in done.stderr


def test_their_training_images_are_not_known(workdir):
    done = call("figure", "neighbours", f"--workdir={workdir}")
    assert done.returncode == 2
    assert "--data" in done.stderr


def test_there_and_back_is_the_same(golden, workdir, tmp_path):
    done = call("export_weights", "--format=torch", f"--workdir={workdir}", f"--out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    for name in NETS:
        exported = torch_file.read(tmp_path / "out" / f"{name}.pth")
        assert exported.keys() == golden[name].keys()
        for key, array in golden[name].items():
            if not key.endswith("num_batches_tracked"):
                np.testing.assert_array_equal(exported[key], array, key)
    again = call("export_weights", "--format=torch", f"--workdir={workdir}", f"--out={tmp_path / 'out'}")
    assert (again.returncode, "exists" in again.stderr) == (2, True)


def test_safetensors_hold_the_same(golden, workdir, tmp_path):
    done = call(
        "export_weights", "--format=torch", "--safetensors", f"--workdir={workdir}", f"--out={tmp_path / 'out'}"
    )
    assert done.returncode == 0, done.stderr
    for name in NETS:
        exported = safetensors_file.read(tmp_path / "out" / f"{name}.safetensors", "--file")
        assert exported.keys() == golden[name].keys()
        np.testing.assert_array_equal(exported["main.0.weight"], golden[name]["main.0.weight"])


def random_variables(network, shape):
    """Random positive numbers in the place of a network's variables."""
    init = functools.partial(network.init, train=True)
    expected = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32), expected)


@pytest.mark.parametrize(("size", "channels", "width"), [(16, 1, 3), (32, 3, 2), (16, 4, 2), (128, 1, 1)])
def test_other_depths_and_widths_are_read_from_the_shapes(tiny, size, channels, width):
    first_bias = channels == 3
    config = tiny(recipe="torch", image_size=(size, size), channels=channels, width=width, first_bias=first_bias)
    config.last_bias = width == 2
    generator, discriminator = models.from_config(config)
    variables = [
        random_variables(network, shape)
        for network, shape in ((generator, (2, config.latent_dim)), (discriminator, (2, size, size, channels)))
    ]
    tree = {"ema": variables[0], "discriminator": variables[1]}
    state_dicts = torch_export.to_state_dicts(config, tree, 3)
    networks = torch_networks.convert(dict(sorted(state_dicts.items())))
    for network, expected in zip((networks.generator, networks.discriminator), variables, strict=True):
        assert jax.tree.structure(network.params) == jax.tree.structure(expected["params"])
        jax.tree.map(np.testing.assert_array_equal, network.params, expected["params"])
        jax.tree.map(np.testing.assert_array_equal, network.batch_stats, expected["batch_stats"])
    assert networks.fields["image_size"] == (size, size)
    assert networks.fields["latent_dim"] == config.latent_dim
    assert (networks.fields["first_bias"], networks.fields["last_bias"]) == (first_bias, width == 2)


def test_a_generator_alone_is_enough(files, tmp_path):
    done = call("import_weights", "--format=torch", f"--file={files / 'netG.pth'}", f"--out={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "no weights of a discriminator" in done.stderr
    meta = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (meta["image_size"], meta["width"], meta["features"]) == ([64, 64], 2, [])


def damaged(arrays):
    """Weights that differ from the example's, each with a part of the error message."""
    first = "main.0.weight"
    second = next(name for name in list(arrays)[1:] if arrays[name].ndim == 4)
    norm = next(name for name in arrays if name.endswith("running_mean")).removesuffix("running_mean")
    yield {**arrays, "main.0.bias": np.zeros(3, np.float32)}, "'main.0.bias' has shape 3, expected"
    yield {**arrays, "main.0.scale": np.zeros(3, np.float32)}, "'main.0.scale' has shape 3, expected"
    yield {**arrays, "main.40.weight": np.zeros(1, np.float32)}, "'main.40.weight' has shape 1, expected"
    yield {name: array for name, array in arrays.items() if "running_mean" not in name}, f"'{norm}weight' has shape"
    yield {name: array for name, array in arrays.items() if not name.startswith(norm)}, "batch norms .*, expected"
    yield {**arrays, f"{norm}bias": np.zeros(7, np.float32)}, f"'{norm}bias' has shape 7, expected"
    yield {**arrays, first: arrays[first][:, :-1]}, f"{first!r} has shape"
    yield {**arrays, first: arrays[first][..., 0]}, f"{first!r} has shape"
    yield {**arrays, second: arrays[second][:, :, :3, :3]}, f"{second!r} has shape .*3x3, expected"
    yield {**arrays, second: arrays[second][:0]}, f"{second!r} has shape"
    yield {first: arrays[first]}, "found 1 convolutions"
    yield {**arrays, "epoch": 3}, "epoch"
    yield {**arrays, first: np.full_like(arrays[first], np.nan)}, "values that are not finite in 'main.0.weight'"
    variance = next(name for name in arrays if name.endswith("running_var"))
    yield {**arrays, variance: -arrays[variance]}, f"negative values in {variance!r}"
    yield {**arrays, "main.\u0660.weight": arrays[first]}, "has shape"
    yield {}, "found 0 convolutions"


@pytest.mark.parametrize("name", NETS)
def test_other_weights_are_refused(golden, name):
    for arrays, expected in damaged(golden[name]):
        with pytest.raises(UserError, match=expected) as error:
            torch_networks.convert({"FILE": arrays})
        assert "\n" not in str(error.value)


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    def fail():
        with new_folder(tmp_path / "out", "--out") as folder:
            (folder / "netG.pth").write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert not list(tmp_path.iterdir())
    with new_folder(tmp_path / "out", "--out") as folder:
        (folder / "netG.pth").write_text("whole")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "netG.pth"]
    with pytest.raises(UserError, match="exists"):
        unused_path(tmp_path / "out", "--out")


def test_two_that_do_not_belong_together_are_refused(golden, tiny):
    with pytest.raises(UserError, match="one file each"):
        torch_networks.convert({"A": golden["netG"], "B": golden["netG"]})
    config = tiny(recipe="torch", image_size=(64, 64), channels=3, width=3)
    discriminator = models.from_config(config)[1]
    variables = random_variables(discriminator, (2, 64, 64, 3))
    with pytest.raises(UserError, match=r"features \(2, 4, 8, 16\) in netG, \(3, 6, 12, 24\) in netD"):
        torch_networks.convert({"A": golden["netG"], "B": _example(variables)})


def _example(discriminator):
    """The example's names for a discriminator of four layers."""
    params, stats = discriminator["params"], discriminator["batch_stats"]
    arrays = {"main.0.weight": params["conv_0"]["kernel"].transpose(3, 2, 0, 1)}
    for i, place in zip((1, 2, 3), itertools.count(2, 3), strict=False):
        arrays[f"main.{place}.weight"] = params[f"conv_{i}"]["kernel"].transpose(3, 2, 0, 1)
        norm, stat = params[f"norm_{i}"], stats[f"norm_{i}"]
        values = (norm["scale"], norm["bias"], stat["mean"], stat["var"])
        arrays |= {f"main.{place + 1}.{key}": value for key, value in zip(torch_layers.NORM[:4], values, strict=True)}
    arrays["main.11.weight"] = params["logit"]["kernel"].reshape(4, 4, -1, 1).transpose(3, 2, 0, 1)
    return arrays


@pytest.mark.parametrize(
    ("field", "expected"),
    [({"kernel_size": 5}, "kernel_size is 5, not 4"), ({"norm_per_unit": True}, "norm_per_unit is True, not False")],
)
def test_networks_of_another_form_are_not_exported(tiny, field, expected):
    with pytest.raises(UserError, match=expected):
        torch_export.to_state_dicts(tiny(**field), {}, 1)


def test_pytorch_reads_what_is_written(files, golden):
    pytest.importorskip("torch")
    program = (
        "import sys, torch\n"
        "for name in ('netG', 'netD'):\n"
        "    tensors = torch.load(f'{sys.argv[1]}/{name}.pth', weights_only=True)\n"
        "    print(sum(float(tensor.double().sum()) for tensor in tensors.values()))\n"
    )
    output = subprocess.run([sys.executable, "-c", program, files], capture_output=True, text=True, check=True).stdout
    expected = [sum(float(array.astype(np.float64).sum()) for array in golden[name].values()) for name in NETS]
    np.testing.assert_allclose([float(line) for line in output.split()], expected, rtol=1e-12)


def write_golden():
    """Writes the outputs of PyTorch for the example's networks of width 2, with statistics from five batches."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    latent_dim, width = 6, 2

    def layer(kind, *sizes, stride=2, padding=1):
        return kind(*sizes, 4, stride, padding, bias=False)

    def block(kind, sizes, activation, **padding):
        return [layer(kind, *sizes, **padding), nn.BatchNorm2d(sizes[1]), activation]

    up, down = nn.ConvTranspose2d, nn.Conv2d
    widths = [width, 2 * width, 4 * width, 8 * width]
    generator = block(up, (latent_dim, widths[3]), nn.ReLU(), stride=1, padding=0)
    discriminator = [layer(down, 3, width), nn.LeakyReLU(0.2)]
    for outer, inner in itertools.pairwise(widths):
        discriminator += block(down, (outer, inner), nn.LeakyReLU(0.2))
    for outer, inner in list(itertools.pairwise(widths))[::-1]:
        generator += block(up, (inner, outer), nn.ReLU())
    generator += [layer(up, width, 3), nn.Tanh()]
    discriminator += [layer(down, widths[3], 1, stride=1, padding=0), nn.Sigmoid()]
    networks = dict(zip(NETS, (nn.Sequential(*generator), nn.Sequential(*discriminator)), strict=True))
    for network in networks.values():
        for module in network:
            if hasattr(module, "weight"):
                nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, 0.2)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, 0, 0.2)
    z = torch.randn(3, latent_dim)
    inputs = {"netG": z[:, :, None, None], "netD": torch.from_numpy(pictures().transpose(0, 3, 1, 2))}
    content = {"z": z}
    with torch.no_grad():
        for _ in range(5):
            networks["netD"](networks["netG"](torch.randn(16, latent_dim, 1, 1)))
        for name, network in networks.items():
            content[name] = {f"main.{key}": value.clone() for key, value in network.state_dict().items()}
        for name, network in networks.items():
            for mode in ("eval", "train"):
                output = getattr(network, mode)()(inputs[name])
                output = output.permute(0, 2, 3, 1)[:, ::7, ::5].contiguous() if name == "netG" else output.reshape(-1)
                content[f"{name}_{mode}"] = output
    torch.save(content, GOLDEN)


if __name__ == "__main__":
    write_golden()
