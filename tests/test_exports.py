"""What leaves a run makes the same images elsewhere: StableHLO, ONNX, safetensors, folders for the hub."""

import json
import subprocess
import sys
import tomllib
import types

import jax
import numpy as np
import pytest
import yaml
from conftest import ROOT, SMALL, call
from PIL import Image

import dcgan_jax
from dcgan_jax import models
from dcgan_jax.data.images import grid
from dcgan_jax.inference import TrainedGAN
from dcgan_jax.interop import hub, onnx_file, stablehlo_file
from dcgan_jax.run import initial, places, weights
from dcgan_jax.runtime.errors import UserError

NETWORKS = {
    "grey, of the width that Winograd's form is used for": dict(width=16, image_size=(32, 32)),
    "colour, labels, an odd kernel, dense layers, sigmoid": dict(
        channels=3, num_classes=3, kernel_size=5, dense=(9, 7), output="sigmoid", norm_affine=False
    ),
    "strides of 1 and 4": dict(features=(4, 6, 8), strides=(1, 2, 4), kernel_size=5, generator_activation="leaky_relu"),
    "group norm by unit": dict(generator_norm="group", norm_per_unit=True, last_bias=True, generator_activation="tanh"),
    "layer norm, oblong, 6 channels": dict(generator_norm="layer", image_size=(8, 16), channels=6),
    "no norm": dict(generator_norm="none", generator_activation="softplus", num_classes=2),
    "batch norm by unit, 4 channels": dict(norm_per_unit=True, kernel_size=3, channels=4),
    "dense alone, 2 channels": dict(convolutional=False, dense=(12, 10), num_classes=2, channels=2),
}


def lively(config):
    """A generator alone whose images have contrast, and whose norms have statistics, gains and biases."""
    rng = np.random.default_rng(0)
    network = models.from_config(config)[0]
    labels = np.zeros(2, np.int32) if config.num_classes else None
    shapes = jax.eval_shape(
        lambda: network.init(jax.random.key(0), np.zeros((2, config.latent_dim)), labels, train=True)
    )

    def values(path, leaf):
        match path[-1].key:
            case "kernel":
                spread = np.sqrt(2 / (leaf.shape[0] if leaf.ndim == 2 else config.kernel_size**2 * leaf.shape[3] / 4))
                return rng.normal(0, spread, leaf.shape).astype(np.float32)
            case "var" | "scale":
                return rng.uniform(0.7, 1.5, leaf.shape).astype(np.float32)
        return rng.normal(0, 0.2, leaf.shape).astype(np.float32)

    collections = {name: shapes[name] for name in ("params", "batch_stats") if name in shapes}
    return TrainedGAN(config, {"step": 7, "ema": jax.tree_util.tree_map_with_path(values, collections)})


def inputs(gan, count=5):
    z = np.random.default_rng(1).normal(size=(count, gan.latent_dim)).astype(np.float32)
    classes = gan.config.num_classes
    return (z, np.arange(count, dtype=np.int32) % classes) if classes else (z,)


@pytest.mark.parametrize("name", NETWORKS)
def test_programs_make_the_images_of_generate(tiny, name):
    import onnxruntime

    gan = lively(tiny(**NETWORKS[name]))
    arguments = inputs(gan)
    expected = gan.generate(*arguments)
    assert expected.std() > 0.1
    program = jax.export.deserialize(bytearray(stablehlo_file.program(gan)))
    assert program.platforms == ("cpu", "cuda", "tpu")
    rounding = 1e-5 if gan.config.width == 16 else 2e-6  # `generate` uses Winograd's form on CPUs
    np.testing.assert_allclose(program.call(*arguments), expected, rtol=0, atol=rounding)
    session = onnxruntime.InferenceSession(onnx_file.model(gan), providers=["CPUExecutionProvider"])
    feed = dict(zip(("z", "labels"), arguments, strict=False))
    (images,) = session.run(["images"], feed)
    np.testing.assert_allclose(images, expected, rtol=0, atol=1e-5)
    (first,) = session.run(["images"], {key: value[:1] for key, value in feed.items()})
    np.testing.assert_allclose(first, expected[:1], rtol=0, atol=1e-5)


def test_a_program_has_one_form_of_a_convolution_for_all_platforms(tiny):
    program = jax.export.deserialize(bytearray(stablehlo_file.program(lively(tiny(width=16)))))
    text = program.mlir_module()
    # One for each layer; JAX may write an operation down once for each platform. Winograd's form has dozens more.
    assert text.count("stablehlo.convolution") in (2, 2 * len(program.platforms))
    assert text.count("stablehlo.dot_general") in (1, len(program.platforms))


def test_a_bfloat16_run_is_exported(tiny):
    gan = lively(tiny(dtype="bfloat16"))
    program = jax.export.deserialize(bytearray(stablehlo_file.program(gan)))
    images = np.asarray(program.call(*inputs(gan)))
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, gan.generate(*inputs(gan)), rtol=0, atol=0.05)


@pytest.fixture(scope="module")
def exported(straight_run, tmp_path_factory):
    """exported(format) -> the folder that the launcher made of a run."""
    made = {}

    def exported(form):
        if form not in made:
            made[form] = tmp_path_factory.mktemp("exported") / form
            done = call("export_weights", f"--format={form}", f"--workdir={straight_run}", f"--out={made[form]}")
            assert (done.returncode, done.stdout) == (0, f"{made[form]}\n"), done.stderr
        return made[form]

    return exported


def test_programs_run_without_this_package(straight_run, exported, tmp_path):
    gan = dcgan_jax.load(straight_run)
    np.save(tmp_path / "z.npy", inputs(gan, 70)[0])
    script = f"""
import sys
import tomllib
import jax, numpy, onnxruntime
z = numpy.load("z.npy")
with open({str(exported("stablehlo") / "generator.stablehlo")!r}, "rb") as file:
    numpy.save("jax.npy", jax.export.deserialize(file.read()).call(z))
session = onnxruntime.InferenceSession({str(exported("onnx") / "generator.onnx")!r})
numpy.save("onnx.npy", session.run(["images"], {{"z": z}})[0])
print([name for name in ("dcgan_jax", "flax") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
    expected = gan.generate(*inputs(gan, 70))
    np.testing.assert_allclose(np.load(tmp_path / "jax.npy"), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "onnx.npy"), expected, rtol=0, atol=1e-4)


def test_without_the_library_onnx_is_told(straight_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = call("export_weights", "--format=onnx", f"--workdir={straight_run}", f"--out={tmp_path / 'out'}")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert done.stderr == "error: onnx: not installed, but --format=onnx needs it; pip install onnx\n"


def test_safetensors_hold_the_arrays_by_name(straight_run, exported):
    gan = dcgan_jax.load(straight_run)
    content = (exported("safetensors") / "generator.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    leaves = jax.tree_util.tree_leaves_with_path(gan.generator_variables)
    names = {"/".join(key.key for key in path): leaf for path, leaf in leaves}
    assert header.keys() - {"__metadata__"} == names.keys()
    for name, leaf in names.items():
        start, end = header[name]["data_offsets"]
        array = np.frombuffer(content[8 + length :][start:end], "<f4").reshape(header[name]["shape"])
        np.testing.assert_array_equal(array, leaf)
    card = json.loads((exported("safetensors") / "generator.json").read_text())
    assert (card["step"], card["latent_dim"], card["image_size"], card["channels"]) == (40, 100, [16, 16], 1)
    assert card["config"]["data"]["prepared"] == "data/prepared"  # not where it is on this machine
    assert "path" not in card["data"]


def test_a_generator_alone_makes_images_and_tells_what_it_cannot(straight_run, exported, tmp_path):
    whole, alone = dcgan_jax.load(straight_run), dcgan_jax.load(exported("safetensors"))
    np.testing.assert_array_equal(alone.sample(9, seed=2), whole.sample(9, seed=2))
    assert (alone.step, alone.config.width) == (40, 4)
    for judge in (alone.discriminate, alone.features, alone.with_statistics_of):
        with pytest.raises(UserError, match="workdir: found a generator alone"):
            judge(whole.sample(2))
    assert dcgan_jax.load(exported("safetensors"), step=40).step == 40
    for step in (20, "best"):
        with pytest.raises(UserError, match="holds no checkpoints, but one network, of step 40"):
            dcgan_jax.load(exported("safetensors"), step=step)
    done = call("export_weights", "--format=torch", f"--workdir={exported('safetensors')}", f"--out={tmp_path / 'out'}")
    assert (done.returncode, "found a generator alone" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", ["guided_backprop", "maximal", "neighbours"])
def test_a_figure_of_a_missing_discriminator_is_refused_before_images_are_looked_for(exported, tmp_path, name):
    done = call("figure", name, f"--workdir={exported('safetensors')}", f"--data={tmp_path / 'none'}")
    assert (done.returncode, "found a generator alone" in done.stderr) == (2, True), done.stderr


def test_damaged_weights_are_told(exported, tmp_path):
    card = json.loads((exported("safetensors") / "generator.json").read_text())
    content = (exported("safetensors") / "generator.safetensors").read_bytes()
    other = json.dumps(card | {"config": card["config"] | {"width": 8}})
    for number, (text, arrays, told) in enumerate(
        (
            (json.dumps(card), content[:-9], "cannot be read: damaged"),
            (json.dumps(card), content[:-1] + bytes([content[-1] ^ 1]), "is not what generator.json describes"),
            (other, content, "is not what generator.json describes"),
            (json.dumps(card), None, "without generator.safetensors"),
            (None, content, "without generator.json"),
            ("{", content, "expected JSON"),
            (json.dumps(card | {"format": 2}), content, "format 2, expected 1"),
            (json.dumps({"format": 1}), content, "has no step, config, sha256"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        if text is not None:
            (folder / "generator.json").write_text(text)
        if arrays is not None:
            (folder / "generator.safetensors").write_bytes(arrays)
        with pytest.raises(UserError, match=told):
            dcgan_jax.load(folder)


def test_a_folder_for_the_hub_is_a_model_with_its_card(straight_run, exported):
    folder, whole = exported("hub"), dcgan_jax.load(straight_run)
    again = dcgan_jax.load(folder)
    images = whole.sample(4)
    np.testing.assert_array_equal(again.sample(4), images)
    np.testing.assert_array_equal(again.discriminate(images), whole.discriminate(images))
    np.testing.assert_array_equal(again.features(images), whole.features(images))
    with Image.open(folder / "samples.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(grid(whole.sample(64))))
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(front)
    assert (about["library_name"], "license" in about, "dcgan" in about["tags"]) == ("dcgan_jax", False, True)
    recorded = [json.loads(line) for line in (straight_run / "metrics.jsonl").read_text().splitlines()][-1]
    assert f"| d_loss | {recorded['d_loss']:.4g} |" in text
    assert "| steps | 40 of 40 |" in text
    # The lines without the package are run as they stand.
    program = text.split("```python\n")[2].split("```")[0].replace('open("', f'open("{folder}/')
    names = {}
    exec(program, names)
    np.testing.assert_allclose(names["images"], whole.generate(names["z"]), rtol=0, atol=1e-6)


def test_what_jax_needs_for_programs_is_installed_with_the_package():
    # JAX has no dependency on it, and the tests' own packages would hide that it is missing.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(each.startswith("flatbuffers") for each in project["dependencies"])


def test_launchers_take_a_folder_of_weights(exported, tmp_path):
    folder = exported("hub")
    done = call("sample", f"--workdir={folder}", "--num=2", f"--out={tmp_path / 'two.png'}")
    assert done.returncode == 0, done.stderr
    done = call("export_weights", "--format=safetensors", f"--workdir={folder}", f"--out={tmp_path / 'again'}")
    assert done.returncode == 0, done.stderr
    for name in ("generator.safetensors", "generator.json"):
        old, new = ((place / name).read_bytes() for place in (folder, tmp_path / "again"))
        assert old == new or json.loads(old)["metrics"] == json.loads(new)["metrics"]
    done = call("train", *SMALL, "--config.num_steps=2", f"--workdir={folder}")
    assert (done.returncode, "holds exported weights, expected a run or a new folder" in done.stderr) == (2, True)


def test_a_run_starts_from_a_folder_of_weights(straight_run, exported, tiny):
    trained = dcgan_jax.load(straight_run).config
    config = trained.copy_and_resolve_references()
    config.init = str(exported("hub"))
    found = initial.networks(config)
    assert all(map(np.array_equal, jax.tree.leaves(found["generator"]), jax.tree.leaves(found["ema"])))
    config.init = str(exported("safetensors"))
    with pytest.raises(UserError, match=r"config\.init: .* holds a generator alone"):
        initial.networks(config)


def test_what_is_there_is_not_written_over(straight_run, exported):
    for form in ("stablehlo", "onnx", "safetensors", "hub"):
        before = sorted(path.stat().st_mtime_ns for path in exported(form).iterdir())
        done = call("export_weights", f"--format={form}", f"--workdir={straight_run}", f"--out={exported(form)}")
        assert (done.returncode, "exists, expected a new folder" in done.stderr) == (2, True)
        assert sorted(path.stat().st_mtime_ns for path in exported(form).iterdir()) == before


def test_card_of_a_conditional_run(tiny):
    gan = lively(tiny(num_classes=3))
    meta = {"data": {"source": "folder", "count": 9, "classes": ["cat", "dog", "a|b"]}}
    card = hub.model_card(gan, meta, alone=True)
    assert "generator.call(z, np.arange(16, dtype=np.int32) % 3)" in card
    assert "cat, dog" in card
    assert "None were recorded at step 7." in card
    assert "discriminate" not in card
    assert "logits = gan.discriminate(of_one_class, [0] * 16)" in hub.model_card(gan, meta, alone=False)


def test_networks_come_from_the_hub(exported, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        if name == "me/nothing":
            raise ConnectionError("no route\nto host")
        return str(exported("hub"))

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=download))
    assert dcgan_jax.load("hf://me/digits").step == 40
    assert asked == [("me/digits", ["generator.json", "generator.safetensors", "discriminator.safetensors"])]
    for place, told in (
        ("hf://me", "expected hf://OWNER/NAME"),
        ("hf://me/nothing", "ConnectionError: no route to host"),
    ):
        with pytest.raises(UserError, match=told):
            dcgan_jax.load(place)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        dcgan_jax.load("hf://me/digits")


def test_digits_come_with_the_package(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gan = dcgan_jax.load("digits")
    assert gan.sample(64).shape == (64, 32, 32, 1)
    (tmp_path / "digits").symlink_to(exported("hub"))
    assert dcgan_jax.load("digits").step == 40, "a folder of this name is meant"


def test_nothing_is_written_into_the_package(tmp_path):
    for script, arguments, told in (
        ("sample", (), "--out: missing"),
        ("export_weights", ("--format=onnx",), "--out: missing"),
        ("evaluate", ("--metrics=fid100_train",), "--workdir: found 'digits', expected a folder of yours"),
    ):
        done = call(script, "--workdir=digits", *arguments)
        assert done.returncode == 2
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
    assert call("sample", "--workdir=digits", "--num=2", f"--out={tmp_path / 'two.png'}").returncode == 0
    assert not (ROOT / "digits").exists()


def test_what_comes_with_the_package_is_small():
    bundled = [path for path in places.BUNDLED.rglob("*") if path.is_file()]
    assert {path.name for path in bundled} == {weights.CARD, weights.FILES["ema"]}
    assert sum(path.stat().st_size for path in bundled) < 2e6
