"""State dicts of many forms: however they are named, nested and parametrized, the outputs are PyTorch's.

What PyTorch computes is written down here in numpy.
"""

import itertools
import zipfile

import jax
import numpy as np
import pytest
from conftest import call

from dcgan_jax import models
from dcgan_jax.interop import imported, state_dicts, torch_networks, torch_writer
from dcgan_jax.interop.pickle_machine import Object
from dcgan_jax.runtime import safetensors_file
from dcgan_jax.runtime.errors import UserError

LATENT_DIM, WIDTHS, CHANNELS = 3, (4, 2), 3  # images of 16x16
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def layers(kind, *, bias=False, norm=True, spectral=False, lengths=False, dense=False, per_unit=False):
    """A network's layers, each a dictionary of arrays; norms have a running_mean."""
    units, shapes = 16 * WIDTHS[0], [*itertools.pairwise((*WIDTHS, CHANNELS))]
    result = [{"weight": normal(LATENT_DIM if kind == "G" else 1, WIDTHS[0], 4, 4)}]
    if dense:
        result = [{"weight": normal(units, LATENT_DIM) if kind == "G" else normal(1, units)}]
    result += [{"weight": normal(*shape, 4, 4)} for shape in shapes]
    outputs = (units if dense else WIDTHS[0], *WIDTHS[1:], CHANNELS) if kind == "G" else (1, *WIDTHS)
    for layer, width in zip(result, outputs, strict=True):
        if bias:
            layer["bias"] = normal(width)
        if spectral:
            weight = layer.pop("weight")
            matrix = np.moveaxis(weight, 1 if kind == "G" else 0, 0).reshape(width, -1)
            u, _, v = np.linalg.svd(matrix)
            layer |= {"weight_orig": weight, "weight_u": u[:, 0] * 0.9, "weight_v": v[0]}  # 0.9: an estimate
        if lengths:  # weight norm, of which PyTorch's has a length for each entry of the first axis
            layer["weight_v"] = layer.pop("weight")
            layer["weight_g"] = 1 + normal(len(layer["weight_v"]), *[1] * (layer["weight_v"].ndim - 1))
    result = result if kind == "G" else result[::-1]
    if not norm:
        return result
    widths = (units if per_unit else WIDTHS[0], *WIDTHS[1:]) if kind == "G" else WIDTHS[:1]
    norms = [
        {"weight": normal(n), "bias": normal(n), "running_mean": normal(n), "running_var": normal(n) ** 2}
        for n in widths
    ]
    places = range(len(norms)) if kind == "G" else [1]
    for count, (place, of_layer) in enumerate(zip(places, norms, strict=True)):
        result.insert(place + count + 1, of_layer)
    return result


def state_dict(sequence, name="main.{}"):
    return {f"{name.format(i)}.{key}": array for i, layer in enumerate(sequence) for key, array in layer.items()}


def weight_of(layer, axis):
    if "weight" in layer:
        return layer["weight"]
    if "weight_g" in layer:
        rows = layer["weight_v"].reshape(len(layer["weight_g"]), -1)
        return layer["weight_v"] * layer["weight_g"] / np.linalg.norm(rows, axis=1).reshape(layer["weight_g"].shape)
    weight = layer["weight_orig"]
    matrix = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return weight / (layer["weight_u"] @ matrix @ layer["weight_v"])


def conv_transpose(x, weight, stride, padding):
    """x [in, H, W], weight [in, out, k, k] -> [out, ...], by definition."""
    size, k = x.shape[1], weight.shape[-1]
    full = np.zeros((weight.shape[1], *((size - 1) * stride + k,) * 2))
    for row, column in itertools.product(range(size), repeat=2):
        window = (slice(row * stride, row * stride + k), slice(column * stride, column * stride + k))
        full[:, *window] += np.tensordot(x[:, row, column], weight, 1)
    return full[:, padding : full.shape[1] - padding, padding : full.shape[2] - padding]


def conv(x, weight, stride, padding):
    """x [in, H, W], weight [out, in, k, k] -> [out, ...], by definition."""
    x, k = np.pad(x, ((0, 0), (padding, padding), (padding, padding))), weight.shape[-1]
    size = (x.shape[1] - k) // stride + 1
    result = np.zeros((len(weight), size, size))
    for row, column in itertools.product(range(size), repeat=2):
        window = x[:, row * stride : row * stride + k, column * stride : column * stride + k]
        result[:, row, column] = np.tensordot(weight, window, 3)
    return result


def pytorch(kind, sequence, x):
    """The output for one example in eval mode: z [Z] -> image [C, H, W], or image -> logit."""
    x = x.reshape(-1, 1, 1) if kind == "G" else x
    followed = [*sequence[1:], {}]
    last = len(sequence) - 1
    for i, (layer, following) in enumerate(zip(sequence, followed, strict=True)):
        if "running_mean" in layer:
            gain, bias, mean, var = (layer[key].reshape(-1, 1, 1) for key in torch_networks.NORM[:4])
            shape = x.shape
            x = x.reshape(-1, 1, 1) if gain.size == x.size else x
            x = ((x - mean) / np.sqrt(var + 1e-5) * gain + bias).reshape(shape)
        else:
            inner = i == (0 if kind == "G" else last)
            weight = weight_of(layer, 1 if kind == "G" else 0)
            bias = layer.get("bias", np.zeros(1))
            if weight.ndim == 2:
                x = (weight @ x.reshape(-1) + bias).reshape((-1, 4, 4) if kind == "G" else (1, 1, 1))
            else:
                convolve = conv_transpose if kind == "G" else conv
                x = convolve(x, weight, *((1, 0) if inner else (2, 1))) + bias.reshape(-1, 1, 1)
        if "running_mean" not in following and i < last:
            x = np.maximum(x, 0) if kind == "G" else np.where(x > 0, x, 0.2 * x)
    return np.tanh(x) if kind == "G" else x


ARCHITECTURES = {
    "as the example": {},
    "biases and batch norm": {"bias": True},
    "no batch norm": {"norm": False},
    "biases, no batch norm": {"bias": True, "norm": False},
    "spectral norm": {"spectral": True},
    "spectral norm, biases, no batch norm": {"spectral": True, "bias": True, "norm": False},
    "weight norm": {"lengths": True, "bias": True},
    "dense, weight norm": {"dense": True, "lengths": True, "bias": True},
    "dense": {"dense": True},
    "dense, biases": {"dense": True, "bias": True},
    "dense, biases, no batch norm": {"dense": True, "bias": True, "norm": False},
    "dense, batch norm per unit": {"dense": True, "bias": True, "per_unit": True},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_are_pytorchs(architecture):
    RNG.bit_generator.state = np.random.default_rng(4).bit_generator.state  # whatever tests ran before
    sequences = {kind: layers(kind, **ARCHITECTURES[architecture]) for kind in "GD"}
    networks = torch_networks.convert({kind: state_dict(sequence) for kind, sequence in sequences.items()})
    generator, discriminator = models.from_config(imported._config(networks.fields, "torch"))
    z, images = normal(2, LATENT_DIM), normal(2, 16, 16, CHANNELS)
    for kind, network, variables, inputs in (
        ("G", generator, networks.generator, z),
        ("D", discriminator, networks.discriminator, images),
    ):
        found = jax.jit(network.apply)({"params": variables.params, "batch_stats": variables.batch_stats}, inputs)
        theirs = inputs if kind == "G" else inputs.transpose(0, 3, 1, 2)
        expected = np.stack([pytorch(kind, sequences[kind], x.astype(np.float64)) for x in theirs])
        expected = expected.transpose(0, 2, 3, 1) if kind == "G" else expected.reshape(-1)
        assert expected.std() > 0.01  # and not a constant, such as 1
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)  # sums of some CPUs differ by 4e-5


PLAIN = {kind: state_dict(layers(kind)) for kind in "GD"}
NAMED = ("conv1", "bn1", "conv2", "bn2", "conv3")
# As saved before `main.` was there, and by classes that name their layers.
BY_LAYER = {
    "a Sequential": [str(i) for i in range(5)],
    "numbers that do not follow each other": [f"layers.{i}.0" for i in (0, 3, 7, 20, 100)],
    "a name for each layer": NAMED,
    "names without numbers": ["start.up", "start.norm", "middle.up", "middle.norm", "end.up"],
}


def renamed(arrays, names):
    paths = list(dict.fromkeys(name.rpartition(".")[0] for name in arrays))
    return {f"{names[paths.index(path)]}.{key}": arrays[f"{path}.{key}"] for path, _, key in map(parts, arrays)}


def parts(name):
    return name.rpartition(".")


def prefixed(prefix, arrays):
    return {prefix + name: array for name, array in arrays.items()}


def parametrized(arrays):
    new = {"weight_orig": "original", "weight_u": "0._u", "weight_v": "0._v"}
    if not any(name.endswith("weight_orig") for name in arrays):
        new = {"weight_g": "original0", "weight_v": "original1"}
    return {
        f"{path}.parametrizations.weight.{new[key]}": arrays[f"{path}.{key}"] for path, _, key in map(parts, arrays)
    }


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def converted(content, keys=None):
    found = state_dicts.find(content, "FILE")
    networks = torch_networks.convert({name: found[name] for name in keys or found})
    return [
        None if network is None else (network.params, network.batch_stats)
        for network in (networks.generator, networks.discriminator)
    ]


@pytest.mark.parametrize("form", BY_LAYER)
def test_names_of_layers_do_not_matter(form):
    assert_equal(converted(renamed(PLAIN["G"], BY_LAYER[form])), converted(PLAIN["G"]))


def test_layers_are_in_the_order_of_their_numbers():
    backwards = dict(reversed(renamed(PLAIN["G"], BY_LAYER["numbers that do not follow each other"]).items()))
    assert_equal(converted(backwards), converted(PLAIN["G"]))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.module.model."])
def test_prefixes_of_wrappers_are_dropped(prefix):
    assert_equal(converted(prefixed(prefix, PLAIN["D"])), converted(PLAIN["D"]))


@pytest.mark.parametrize("kind", ["spectral", "lengths"])
def test_the_form_of_parametrizations_is_the_same(kind):
    arrays = state_dict(layers("G", norm=False, **{kind: True}))
    assert_equal(converted(parametrized(arrays)), converted(arrays))


def test_spectral_norm_needs_vectors_of_its_weight():
    (first, *others) = layers("G", spectral=True, norm=False)
    zero = {**first, "weight_u": 0 * first["weight_u"]}
    short = {**first, "weight_v": first["weight_v"][1:]}
    for layer, told in ((zero, "'main.0' has a spectral norm of 0.0"), (short, "found 4 and 47")):
        with pytest.raises(UserError, match=told):
            converted(state_dict([layer, *others]))


def test_weight_norm_needs_a_length_for_each():
    (first, *others) = layers("G", lengths=True, norm=False)
    for lengths in (np.ones((2, 1, 1, 1)), np.ones((3, 4, 1, 1)), np.ones(3)):
        with pytest.raises(
            UserError, match=r"'main\.0' has lengths .* and directions 3x4x4x4, expected those of weight"
        ):
            converted(state_dict([first | {"weight_g": lengths.astype(np.float32)}, *others]))
    with pytest.raises(UserError, match="a length above 0 for each"):
        converted(state_dict([first | {"weight_v": 0 * first["weight_v"]}, *others]))


def test_a_batch_norm_without_gain_and_bias_has_1_and_0():
    one = {"weight": np.ones, "bias": np.zeros}
    norms = {name for name in PLAIN["G"] if name.rpartition(".")[0] + ".running_mean" in PLAIN["G"]}
    key = {name: name.rpartition(".")[2] for name in norms}
    plain = {n: one[key[n]](a.shape, np.float32) if key.get(n) in one else a for n, a in PLAIN["G"].items()}
    assert_equal(converted({n: a for n, a in plain.items() if key.get(n) not in one}), converted(plain))


def test_counters_beside_a_network_are_left_out():
    averaged = {"n_averaged": np.int64(3) * np.ones((), np.int64)} | prefixed("module.", PLAIN["G"])  # AveragedModel
    assert_equal(converted(averaged), converted(PLAIN["G"]))


def test_parts_of_other_names_are_told():
    both = prefixed("gen_net.", PLAIN["G"]) | prefixed("dis_net.", PLAIN["D"])
    with pytest.raises(UserError, match="; --key=gen_net or --key=dis_net imports a part of it alone"):
        converted(both)
    assert_equal(converted(state_dicts._named(both, "gen_net")), converted(PLAIN["G"]))
    stages = prefixed("layer1.", PLAIN["G"]) | prefixed("layer2.", PLAIN["D"])  # of a ResNet
    with pytest.raises(UserError, match=r"^((?!--key).)*$"):
        converted(stages)


OPTIMIZER = {"state": {0: {"step": 1, "exp_avg": normal(4, 3, 4, 4)}}, "param_groups": [{"lr": 2e-4, "params": [0]}]}
CHECKPOINTS = {
    "netG, netD": {"netG": PLAIN["G"], "netD": PLAIN["D"], "epoch": 3, "fixed_noise": normal(2, 3), "optim": OPTIMIZER},
    "generator, discriminator": {"discriminator": prefixed("module.", PLAIN["D"]), "generator": PLAIN["G"]},
    "g, d beside an object": {"args": Object("argparse Namespace"), "g": PLAIN["G"], "d": PLAIN["D"]},
    "deeper": {"model": {"G": PLAIN["G"], "D": PLAIN["D"]}, "state": {}},
    "Lightning": {"state_dict": prefixed("generator.", PLAIN["G"]) | prefixed("discriminator.", PLAIN["D"])},
    "Lightning, wrapped, beside others": {
        "state_dict": prefixed("module.model.netG._orig_mod.", PLAIN["G"])
        | prefixed("module.model.netD.", PLAIN["D"])
        | {"model.loss.lin.weight": normal(1, 3)}
    },
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_networks_are_found_in_checkpoints(name):
    assert_equal(converted(CHECKPOINTS[name]), [converted(PLAIN["G"])[0], converted(PLAIN["D"])[1]])


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, {"optimizer": OPTIMIZER}, OPTIMIZER, {"a": {"b": {"c": {"d": PLAIN["G"]}}}}]
)
def test_a_file_without_networks_says_what_it_holds(content):
    also = ", param_groups, which is an optimizer's state" if content is OPTIMIZER else ""
    with pytest.raises(UserError, match=f"found {next(iter(content), 'nothing')}{also}; expected a network's state"):
        state_dicts.find(content, "FILE")


def test_a_module_in_a_checkpoint_is_told_with_the_way_out():
    module = Object("nets Generator")
    module.state = {"_modules": {}}
    with pytest.raises(UserError, match=r"nets.Generator.*torch.load\('FILE', weights_only=False\)\['netG'\]; torch.s"):
        state_dicts.find({"epoch": 3, "netG": module}, "FILE")


def write(path, content):
    """Writes nested dictionaries as torch.save does; `torch_writer` writes flat ones."""

    def encoded(value):
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return torch_writer._tensor(value, str(len(arrays) - 1))
        return b"}(" + b"".join(torch_writer._text(key) + encoded(item) for key, item in value.items()) + b"u"

    arrays = []
    pickled = b"\x80\x02" + encoded(content) + b"."
    with zipfile.ZipFile(path, "x") as archive:
        torch_writer._add(archive, "data.pkl", pickled)
        for key, array in enumerate(arrays):
            torch_writer._add(archive, f"data/{key}", array.tobytes())


def test_a_key_chooses_from_several(tmp_path):
    file, other = str(tmp_path / "ckpt.pth"), str(tmp_path / "netD.pth")
    average = {name: 2 * array for name, array in PLAIN["G"].items()}
    write(file, {"model": {"g": PLAIN["G"], "g_ema": average, "d": PLAIN["D"]}})
    write(other, PLAIN["D"])
    told = call("import_weights", "--format=torch", f"--file={file}", f"--out={tmp_path / 'run'}")
    assert told.returncode == 2
    assert "found 2 generators" in told.stderr
    assert "model.g_ema" in told.stderr
    assert len(told.stderr.splitlines()) == 1
    for files, keys in (([file], ["g_ema", "d"]), ([file, other], ["model.g_ema"])):
        networks = torch_networks.convert(state_dicts.read(files, keys))
        assert networks.discriminator is not None
        np.testing.assert_array_equal(
            networks.generator.params["conv_0"]["kernel"].transpose(3, 2, 0, 1), average["main.2.weight"]
        )
    assert torch_networks.convert(state_dicts.read([file], ["g"])).discriminator is None
    with pytest.raises(UserError, match=r"--key: 'netG' is in none of the files, .* model\.g, model\.g_ema, model\.d"):
        state_dicts.read([file], ["netG"])


def test_a_key_may_be_any_prefix(tmp_path):
    write(tmp_path / "ckpt.pth", prefixed("decoder.", PLAIN["G"]) | {"encoder.weight": normal(3, 3)})
    with pytest.raises(UserError, match=r"'encoder\.weight' has shape 3x3"):
        torch_networks.convert(state_dicts.read([str(tmp_path / "ckpt.pth")], []))
    (arrays,) = state_dicts.read([str(tmp_path / "ckpt.pth")], ["decoder"]).values()
    assert_equal(converted(arrays), converted(PLAIN["G"]))


def test_safetensors_are_read_and_written(tmp_path):
    file = tmp_path / "netG.safetensors"
    deep = prefixed("netG.", renamed(PLAIN["G"], ["2", "9", "10", "11", "100"]))  # not the order of the alphabet
    safetensors_file.write(file, deep)
    (arrays,) = state_dicts.read([str(file)], []).values()
    assert_equal(converted(arrays), converted(PLAIN["G"]))
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read: damaged"):
        state_dicts.read([str(tmp_path / "cut.safetensors")], [])
    safetensors_file.write(tmp_path / "named.safetensors", renamed(PLAIN["G"], BY_LAYER["names without numbers"]))
    with pytest.raises(UserError, match="safetensors files do not keep the order of layers"):
        state_dicts.read([str(tmp_path / "named.safetensors")], [])
