"""Every formulation equals the plain one, and a CUDA GPU is given those of `conv.ON_CUDA`, layer by layer."""

import functools
import json
import re
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from dcgan_jax.config import for_data_set, validate
from dcgan_jax.ops import conv as convolutions
from dcgan_jax.ops import winograd
from dcgan_jax.ops.formulations import FORMULATIONS
from dcgan_jax.runtime.errors import UserError

sys.path.insert(0, str(ROOT / "benchmarks"))

import calls
import flops
import formulations

FORMS = [name for name in FORMULATIONS if name not in ("plain", "winograd")]  # the last has tests of its own
SIZES = [(5, 2), (4, 2), (3, 1), (3, 2), (5, 1), (6, 3), (2, 2)]  # (kernel, stride)
SIDES = [(5, 7), (2, 3)]  # of the maps: larger than most kernels, and smaller
FUNCTIONS = formulations.FUNCTIONS


def arrays(kernel_size, stride, side, channels=(3, 9)):
    rng = np.random.default_rng(0)
    shapes = {
        "images": (2, side[0] * stride, side[1] * stride, channels[0]),
        "kernel": (kernel_size, kernel_size, *channels),
        "maps": (2, *side, channels[1]),
    }
    return {name: jnp.asarray(rng.standard_normal(shape, np.float32)) for name, shape in shapes.items()}


def function_of(form, function, kernel_size, stride):
    static = (stride, kernel_size) if function == "kernel_gradient" else (stride,)
    return lambda *two: getattr(FORMULATIONS[form], function)(*two, *static)


def assert_equal(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert jnp.abs(found - expected).max() <= 1e-5 * jnp.abs(expected).max()


@pytest.mark.parametrize("side", SIDES, ids=str)
@pytest.mark.parametrize(("kernel_size", "stride"), SIZES)
def test_formulations_equal_the_plain_one(kernel_size, stride, side):
    known = arrays(kernel_size, stride, side)

    @jax.jit
    def all_of_them(known):
        return {
            (form, function): function_of(form, function, kernel_size, stride)(*formulations.arguments(function, known))
            for form in ("plain", *FORMS)
            for function in FUNCTIONS
        }

    found = all_of_them(known)
    for form, function in found:
        assert_equal(found[form, function], found["plain", function])


@pytest.mark.parametrize("kernel_size", winograd.KERNEL_SIZES)
def test_winograds_form_of_large_images_equals_the_plain_one(kernel_size, monkeypatch):
    monkeypatch.setattr(winograd, "LARGE", 0)
    known = arrays(kernel_size, 2, (5, 7), channels=(16, 24))
    for function in ("conv", "kernel_gradient"):
        found, expected = (
            function_of(form, function, kernel_size, 2)(*formulations.arguments(function, known))
            for form in ("winograd", "plain")
        )
        assert_equal(found, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", ["conv", "conv_transpose"])
def test_gradients_of_gradients_equal_those_of_the_plain_one(form, function, monkeypatch):
    # As in a gradient penalty, with every one of the three functions in this form.
    known = arrays(5, 2, (3, 4))
    x, kernel = formulations.arguments(function, known)

    def penalty(x, kernel):
        def total(x):
            return jnp.sum(jnp.sin(getattr(convolutions, function)(x, kernel, 2)))

        return jnp.sum(jnp.square(jax.grad(total)(x)))

    found = {}
    for name in ("plain", form):
        monkeypatch.setattr(
            convolutions, "_choose", lambda f, layer, *two, name=name: convolutions._form(name, f, layer)(*two)
        )
        found[name] = jax.jit(jax.grad(penalty, (0, 1)))(x, kernel)
    for ours, plain in zip(found[form], found["plain"], strict=True):
        assert_equal(ours, plain)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_transposed_products_of_patches_are_summed_in_single(function):
    known = {name: x.astype(jnp.bfloat16) for name, x in arrays(5, 2, (4, 4), (3, 64)).items()}
    two = formulations.arguments(function, known)
    exact = function_of("plain", function, 5, 2)(*(x.astype(jnp.float32) for x in two))
    found = function_of("patches", function, 5, 2)(*two)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=2**-7, atol=2**-7)


# The networks of the paper, and the default at 32x32 with its 4x4 kernels.
NETWORKS = {
    "lsun": ("lsun_bedroom", "default"),
    "faces": ("celeba", "default"),
    "imagenet": ("imagenet32", "paper"),
    "cifar": ("cifar10", "default"),
}


def layers_of(name):
    """The convolutions of both networks; the generator's have the sizes of the discriminator's."""
    config = validate(for_data_set(*NETWORKS[name]))
    return [layer for network in flops.networks(config) for layer in network if layer.kernel_size]


@functools.cache
def lowered_for(platform, size, function, dtype):
    """The program of one function of a layer for a platform that need not be here."""
    height, width, outer, inner, kernel_size, stride = size
    shapes = {
        "images": (4, height, width, outer),
        "kernel": (kernel_size, kernel_size, outer, inner),
        "maps": (4, height // stride, width // stride, inner),
    }
    two = formulations.arguments(function, {name: jax.ShapeDtypeStruct(s, dtype) for name, s in shapes.items()})
    static = (stride, kernel_size) if function == "kernel_gradient" else (stride,)
    run = getattr(convolutions, "_kernel_gradient" if function == "kernel_gradient" else function)
    return jax.jit(lambda a, b: run(a, b, *static)).trace(*two).lower(lowering_platforms=(platform,)).as_text()


def size_of(layer):
    return (layer.height, layer.width, layer.outer, layer.inner, layer.kernel_size, layer.stride)


CONVOLUTION = re.compile(
    r"stablehlo\.convolution\(.*?dim_numbers = \[(.*?)\]x\[(.*?)\]->\[(.*?)\], window = .*?"
    r": \(tensor<(\S+)>, tensor<(\S+)>\) -> tensor<(\S+)>"
)


def kinds_and_channels(text):
    """Of each convolution in a program: what XLA takes it for on a GPU, and the least channels of its layer.

    By XLA's rules as `conv.situation` tells them. JAX writes the transpose in the images with the kernel's features in
    each other's place, and the transpose in the kernel with the batch behind its sides.
    """
    found = []
    for _, of_kernel, of_result, *shapes in CONVOLUTION.findall(text):
        left, right, result = ([int(side) for side in shape.split("x")[:-1]] for shape in shapes)
        if of_result.startswith("0, 1"):
            mistaken = right[1] <= result[0] and right[2] <= result[1]
            kind, channels = "backward-filter", min(left[3], right[3])
        else:
            mistaken = left[1] * left[2] < right[0] * right[1]
            kind = "backward-input" if of_kernel.index("o") < of_kernel.index("i") else "forward"
            channels = min(right[2:])
        found.append(("mistaken for forward" if mistaken else kind, channels))
    return found


def kinds_of_network(name, dtype):
    """How many convolutions of each kind a network is on a CUDA GPU, each function of each layer once."""
    kinds, channels = Counter(), []
    for layer in layers_of(name):
        for function in FUNCTIONS:
            text = lowered_for("cuda", size_of(layer), function, dtype)
            found = kinds_and_channels(text)
            kinds.update([kind for kind, _ in found] or ["product"] * text.count("dot_general"))
            channels += [least for _, least in found]
    return dict(kinds), min(channels)


@pytest.fixture
def _nothing_for_cpus(monkeypatch):
    """Winograd's form takes seconds to trace."""
    monkeypatch.setattr(convolutions, "on_cpu", lambda function, layer: "plain")
    lowered_for.cache_clear()


# Generator and discriminator: for each, three functions a layer. In plain form the innermost layers' are mistaken: with
# 5x5 kernels weight gradient and transposed convolution, with 4x4 ones the first alone.
PLAIN = {
    "lsun": {"forward": 8, "backward-input": 6, "backward-filter": 6, "mistaken for forward": 4},
    "faces": {"forward": 8, "backward-input": 6, "backward-filter": 6, "mistaken for forward": 4},
    "imagenet": {"forward": 12, "backward-input": 12, "backward-filter": 12},
    "cifar": {"forward": 6, "backward-input": 6, "backward-filter": 4, "mistaken for forward": 2},
}
ON_CUDA = {
    "lsun": {"forward": 8, "backward-input": 8, "backward-filter": 8},
    "faces": {"forward": 8, "backward-input": 8, "backward-filter": 8},
    "imagenet": {"forward": 12, "backward-input": 12, "backward-filter": 12},
    "cifar": {"forward": 6, "backward-input": 6, "backward-filter": 6},
}


@pytest.mark.usefixtures("_nothing_for_cpus")
@pytest.mark.parametrize("name", NETWORKS)
def test_xla_takes_every_convolution_for_what_it_is(name, monkeypatch):
    monkeypatch.setenv(convolutions.SWITCH, "plain")
    kinds, channels = kinds_of_network(name, jnp.bfloat16)
    assert (kinds, channels) == (PLAIN[name], 3)
    monkeypatch.delenv(convolutions.SWITCH)
    lowered_for.cache_clear()
    kinds, channels = kinds_of_network(name, jnp.bfloat16)
    assert kinds == ON_CUDA[name]
    assert channels >= 8
    assert "mistaken for forward" not in kinds_of_network(name, jnp.float32)[0]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_table_for_gpus_changes_nothing_on_cpus(function, monkeypatch):
    def products(platform, size):
        text = lowered_for(platform, size, function, jnp.bfloat16)
        return re.findall(r"stablehlo\.(?:convolution|dot_general).*?( .*)", re.sub("%[a-z0-9_]+", "", text))

    lowered_for.cache_clear()
    size = (4, 4, 3, 16, 5, 2)
    with_table = products("cpu", size)
    assert with_table != products("cuda", size)
    lowered_for.cache_clear()
    monkeypatch.setattr(convolutions, "ON_CUDA", {})
    assert products("cpu", size) == with_table


@pytest.mark.parametrize("function", FUNCTIONS)
def test_beside_an_accelerator_the_cpus_form_is_not_traced(function, monkeypatch):
    def convolutions_of(text):
        return re.findall("stablehlo.convolution.*", re.sub("%[a-z0-9_]+", "", text))

    size = (8, 8, 16, 32, 4, 2)
    lowered_for.cache_clear()
    for_cuda, for_cpu = (lowered_for(platform, size, function, jnp.bfloat16) for platform in ("cuda", "cpu"))
    assert "dot_general" in for_cpu
    lowered_for.cache_clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(winograd, function, lambda *_: pytest.fail("traced"))
    assert convolutions_of(lowered_for("cuda", size, function, jnp.bfloat16)) == convolutions_of(for_cuda) != []
    assert "dot_general" not in lowered_for("cpu", size, function, jnp.bfloat16)


def test_the_switch_is_refused_if_it_says_something_else(monkeypatch):
    monkeypatch.setenv(convolutions.SWITCH, "none")
    with pytest.raises(UserError, match="DCGAN_CONV: found 'none' in the environment, expected 'plain'"):
        jax.eval_shape(
            lambda x, kernel: convolutions.conv(x, kernel, 2), *formulations.arguments("conv", arrays(4, 2, (4, 4)))
        )


def test_calls_are_read_out_of_a_compiled_program():
    text = """
      %cudnn-conv.1 = (bf16[8,4,4,16]{3,2,1,0}, u8[0]{0}) custom-call(%a, %b), window={size=5x5 stride=2x2 pad=2_2x2_2}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", backend_config={}
      ROOT %cudnn-conv-bw-filter.2 = (bf16[16,5,5,8]{3,2,1,0}, u8[0]{0}) custom-call(%a, %c), window={size=5x5}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
      %gemm_fusion_dot.7 = bf16[512,128]{1,0} fusion(%a, %d), kind=kCustom, calls=%x, backend_config={"fusion_backend_config":{"kind":"__triton_gemm"}}
      %wrapped_add = f32[8]{0} fusion(%e), kind=kLoop, calls=%y
    """  # noqa: E501
    assert calls.counts(text) == {"forward": 1, "backward-filter": 1, "product": 1}
    forward = calls.of_program(text)[0]
    assert forward == (
        "cudnn-conv.1",
        "forward",
        "bf16[8,4,4,16]{3,2,1,0}",
        "size=5x5 stride=2x2 pad=2_2x2_2",
        "b01f_o01i->b01f",
    )


def test_the_fastest_of_each_situation_is_found(tmp_path):
    rows = [
        {"function": "conv", "situation": "few channels", "form": form, "ms": ms}
        for form, ms in (("plain", 3.0), ("patches", 1.0), ("space_to_depth", 2.0))
    ]
    rows += [{"function": "conv", "situation": "", "form": "patches", "ms": 0.1}]
    rows += [{"function": "conv", "situation": "few channels", "form": "padded_channels", "failed": "no memory"}]
    (tmp_path / "rows").write_text(json.dumps({"network": {"dtype": "bfloat16"}, "rows": rows}) + "\n")
    assert formulations.fastest(tmp_path / "rows", "bfloat16") == {("conv", "few channels"): "patches"}
    assert (
        formulations.fastest(tmp_path / "rows", "float32") == formulations.fastest(tmp_path / "none", "float32") == {}
    )
