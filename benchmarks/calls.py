"""The library calls of a program compiled for a GPU: what each convolution and matrix product became."""

import re
from collections import Counter
from typing import NamedTuple

# By the target of a custom call, or the kind of a fusion that one library or Triton runs as a whole.
KINDS = {
    "__cudnn$convForward": "forward",
    "__cudnn$convBiasActivationForward": "forward",
    "__cudnn$convBackwardInput": "backward-input",
    "__cudnn$convBackwardFilter": "backward-filter",
    "__cudnn$fusion": "cudnn fusion",
    "__cublas$gemm": "product",
    "__cublas$lt$matmul": "product",
    "__triton_gemm": "product",
    "__triton_nested_gemm_fusion": "product",
}
INSTRUCTION = re.compile(r"^ *(?:ROOT )?%?([\w.-]+) = (\(?\w+\[.*?) (?:custom-call|fusion)\((.*)$", re.MULTILINE)
TARGET = re.compile(r'(?:custom_call_target="|"kind":")(__[\w$]+)"')


class Call(NamedTuple):
    """name: the instruction's, which profiles show. result: shape and layout. window, labels: a convolution's."""

    name: str
    kind: str
    result: str
    window: str
    labels: str


def of_program(text: str) -> list[Call]:
    """The calls in `compiled.as_text()`; on a CPU there are none."""
    found = []
    for name, result, rest in INSTRUCTION.findall(text):
        target = TARGET.search(rest)
        if target and target[1] in KINDS:
            window, labels = (_first(pattern, rest) for pattern in (r"window=\{(.*?)\}", r"dim_labels=([\w>-]+)"))
            found.append(Call(name, KINDS[target[1]], _first(r"(\w+\[.*?\}|\w+\[.*?\])", result), window, labels))
    return found


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


def counts(text: str) -> dict[str, int]:
    """How many calls of each kind."""
    return dict(Counter(call.kind for call in of_program(text)))
