"""A generator as an ONNX graph, layer by layer as in `models.Generator`; read the two side by side.

Input `z`, float32 [n, Z], of a conditional generator also `labels`, int32 [n]; output `images`, float32 [n, H, W, C] in
[-1, 1]; any n. Inside, maps are [n, F, H, W], as ONNX's convolutions have them. All is float32, of bfloat16 runs too.
"""

import math
from types import ModuleType
from typing import Any

import numpy as np

from dcgan_jax.inference import TrainedGAN
from dcgan_jax.models import LEAK, Generator
from dcgan_jax.ops.conv import padding
from dcgan_jax.ops.group_norm import GROUP
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.versions import versions

NAME = "generator.onnx"
OPSET, IR_VERSION = 17, 8  # of 2022: what reads ONNX today reads these
SAME = 0  # in the shapes of Reshape: as long as before


def model(gan: TrainedGAN) -> bytes:
    """The file's content. Raises UserError if the library is not installed."""
    library = _library()
    graph = _Graph(library, gan)
    graph.add("Identity", _images(graph, gan.generator), name="images")
    helper, kinds = library.helper, library.TensorProto
    shape = ["n", *gan.generator.image_shape]
    inputs = [helper.make_tensor_value_info("z", kinds.FLOAT, ["n", gan.latent_dim])]
    if gan.generator.num_classes:
        inputs.append(helper.make_tensor_value_info("labels", kinds.INT32, ["n"]))
    outputs = [helper.make_tensor_value_info("images", kinds.FLOAT, shape)]
    made = helper.make_model(
        helper.make_graph(graph.nodes, "generator", inputs, outputs, graph.constants),
        producer_name="dcgan_jax",
        producer_version=versions()["dcgan_jax"],
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    made.ir_version = IR_VERSION
    library.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def _images(graph: "_Graph", network: Generator) -> str:
    """Adds all layers; the name of the images."""
    height, width, _ = network.image_shape
    total_stride = math.prod(network.strides)
    features, strides = network.features[::-1], network.strides[::-1]
    x = "z"
    for i, units in enumerate(network.dense[::-1]):
        x = graph.activation(graph.norm(graph.dense(x, f"dense_{i}"), f"dense_norm_{i}", units))
    if not features:
        return graph.output(graph.reshape(graph.dense(x, "pixels"), SAME, *network.image_shape))

    first_map = (height // total_stride, width // total_stride, features[0])
    x = graph.dense(x, "project")
    if network.norm_per_unit:  # before the units become maps, each by itself
        x = graph.norm(x, "project_norm", math.prod(first_map))
    x = graph.add("Transpose", graph.reshape(x, SAME, *first_map), perm=[0, 3, 1, 2])
    if not network.norm_per_unit:
        x = graph.norm(x, "project_norm", features[0], first_map[:2])
    x, side = graph.activation(x), first_map[:2]
    for i, stride in enumerate(strides):
        x = graph.conv_transpose(x, f"conv_{i}", stride, side)
        side = (side[0] * stride, side[1] * stride)
        if i < len(strides) - 1:
            x = graph.activation(graph.norm(x, f"norm_{i}", features[i + 1], side))
    return graph.output(graph.add("Transpose", x, perm=[0, 2, 3, 1]))


class _Graph:
    """The nodes and constants so far. Each method adds a layer and returns the name of its result."""

    def __init__(self, library: ModuleType, gan: TrainedGAN):
        self.library, self.network = library, gan.generator
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.collections: dict[str, Any] = gan.generator_variables
        self.kind, self.nonlinearity = gan.config.generator_norm, gan.config.generator_activation
        self.one_hot = self._one_hot() if self.network.num_classes else None

    def add(self, operation: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node of one output."""
        name = name or f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(self.library.helper.make_node(operation, list(inputs), [name], name, **attributes))
        return name

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        """An array that is in the file."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.library.numpy_helper.from_array(np.array(array, dtype), name))
        return name

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, self.constant(shape, np.int64))

    def dense(self, x: str, name: str) -> str:
        x = self.add("Concat", x, self.one_hot, axis=1) if self.one_hot else x
        params = self.collections["params"][name]
        return self.add("Gemm", x, self.constant(params["kernel"]), *self._bias(params))

    def conv_transpose(self, x: str, name: str, stride: int, side: tuple[int, int]) -> str:
        """side: height and width of x. Labels are as many more maps, constant over all positions."""
        params = self.collections["params"][name]
        if self.one_hot:
            classes = self.network.num_classes
            size = self.add("Concat", self.count, self.constant((classes, *side), np.int64), axis=0)
            maps = self.add("Expand", self.reshape(self.one_hot, SAME, classes, 1, 1), size)
            x = self.add("Concat", x, maps, axis=1)
        k = self.network.kernel_size
        pad = padding(k, stride)
        return self.add(
            "ConvTranspose",
            *(x, self.constant(np.transpose(params["kernel"], (3, 2, 0, 1))), *self._bias(params)),
            strides=[stride] * 2,
            pads=[pad] * 4,
            output_padding=[2 * pad - (k - stride)] * 2,
        )

    def norm(self, x: str, name: str, features: int, side: tuple[int, ...] = ()) -> str:
        """x [n, features, *side]."""
        if self.kind == "none":
            return x
        params = self.collections["params"].get(name, {})
        gain, bias = params.get("scale", np.ones(features)), params.get("bias", np.zeros(features))
        epsilon = self.network.norm(name=name).epsilon
        if self.kind == "batch":
            stats = self.collections["batch_stats"][name]
            values = (self.constant(value) for value in (gain, bias, stats["mean"], stats["var"]))
            return self.add("BatchNormalization", x, *values, epsilon=epsilon)
        size = features if self.kind == "layer" else math.gcd(features, GROUP)
        groups = features // size
        ones, zeros = self.constant(np.ones(groups)), self.constant(np.zeros(groups))
        # Groups take the place of features.
        x = self.add("InstanceNormalization", self.reshape(x, SAME, groups, -1), ones, zeros, epsilon=epsilon)
        x = self.reshape(x, SAME, features, *side)
        gain, bias = (np.reshape(value, (1, features, *(1 for _ in side))) for value in (gain, bias))
        return self.add("Add", self.add("Mul", x, self.constant(gain)), self.constant(bias))

    def activation(self, x: str) -> str:
        if self.nonlinearity == "leaky_relu":
            return self.add("LeakyRelu", x, alpha=LEAK)
        if self.nonlinearity != "softplus":
            return self.add({"relu": "Relu", "tanh": "Tanh"}[self.nonlinearity], x)
        two, half, one = (self.constant(value) for value in (2, 0.5, 1))  # models.shifted_softplus
        x = self.add("Softplus", self.add("Add", self.add("Mul", x, two), two))
        return self.add("Sub", self.add("Mul", x, half), one)

    def output(self, x: str) -> str:
        if self.network.output == "tanh":
            return self.add("Tanh", x)
        two, one = self.constant(2), self.constant(1)
        return self.add("Sub", self.add("Mul", self.add("Sigmoid", x), two), one)

    def _one_hot(self) -> str:
        labels = self.add("Cast", "labels", to=self.library.TensorProto.INT64)
        self.count = self.add("Shape", labels)
        return self.add("OneHot", labels, self.constant(self.network.num_classes, np.int64), self.constant((0, 1)))

    def _bias(self, params: dict[str, Any]) -> list[str]:
        return [self.constant(params["bias"])] if "bias" in params else []


def _library() -> ModuleType:
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise UserError("onnx: not installed, but --format=onnx needs it; pip install onnx") from error
    return onnx
