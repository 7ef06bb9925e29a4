"""Exports a run's networks: python launch/export_weights.py --format=FORMAT --workdir=DIR [--out=FOLDER]

    python launch/export_weights.py --format=onnx --workdir=runs/digits
    python launch/export_weights.py --format=hub --workdir=runs/digits --step=best --out=FOLDER

The generator is always the moving average, which makes the samples. Formats:

stablehlo    generator.stablehlo, for JAX and flatbuffers, on CPU, GPU and TPU: jax.export.deserialize(...).call(z), or
             .call(z, labels) of a conditional run; z float32 [n, Z], labels int32 [n] -> images [n, H, W, C] in [-1, 1]
onnx         generator.onnx: inputs z and, of a conditional run, labels; output images; as above, always in float32.
             It needs pip install onnx
safetensors  generator.safetensors with generator.json, a card of all that rebuilds the network
hub          a folder for the Hugging Face hub: the two above, the discriminator, a model card, and samples
torch        netG.pth and netD.pth, state dicts for the networks of PyTorch's DCGAN example:

                 netG.load_state_dict(torch.load("netG.pth", weights_only=True))

             Networks of the recipe `torch` have the example's architecture; if `first_bias` is True, the first
             convolution of netD needs bias=True; if `last_bias` is, the last one of both does. --safetensors writes
             the same as netG.safetensors and netD.safetensors.

FOLDER, if it was written with safetensors or hub, is a --workdir for other launchers, and for dcgan_jax.load.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from absl import flags

from dcgan_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from dcgan_jax.inference import TrainedGAN

FORMATS = ("stablehlo", "onnx", "safetensors", "hub", "torch")
FORMAT = flags.DEFINE_enum("format", None, FORMATS, "format to write")
WORKDIR = flags.DEFINE_string("workdir", None, "run directory, such as runs/celeba")
STEP = flags.DEFINE(cli.StepParser(), "step", None, "step of the checkpoint, or 'best'; the newest by default")
SAFETENSORS = flags.DEFINE_bool("safetensors", False, "torch: write netG.safetensors and netD.safetensors, not .pth")
OUT = flags.DEFINE_string("out", None, "new folder; by default in WORKDIR/exported")


def main() -> None:
    from dcgan_jax import inference
    from dcgan_jax.interop import hub
    from dcgan_jax.run import places
    from dcgan_jax.runtime import compile_cache
    from dcgan_jax.runtime.files import new_folder, unused_path
    from dcgan_jax.runtime.progress import Progress

    for flag, value in (("--format", FORMAT.value), ("--workdir", WORKDIR.value)):
        if value is None:
            raise UserError(f"{flag}: missing, expected --format={'|'.join(FORMATS)} and --workdir=DIR; see --help")
    if SAFETENSORS.value and FORMAT.value != "torch":
        raise UserError(f"--safetensors: found with --format={FORMAT.value}, expected with --format=torch alone")
    compile_cache.enable()
    tree, meta = places.read(WORKDIR.value, STEP.value)
    gan = inference.from_tree(tree, meta, WORKDIR.value)
    out = cli.output(OUT.value, WORKDIR.value, "exported", f"{FORMAT.value}_step_{gan.step:08d}")
    unused_path(out, "--out")
    meta["metrics"] = (meta.get("metrics") or {}) | hub.measures(WORKDIR.value, gan.step)
    with new_folder(out, "--out") as folder, Progress(f"exporting as {FORMAT.value}"):
        _write(folder, gan, tree, meta)
    print(out)


def _write(folder: Path, gan: "TrainedGAN", tree: dict[str, Any], meta: dict[str, Any]) -> None:
    from dcgan_jax.interop import hub, onnx_file, stablehlo_file, torch_export, torch_writer
    from dcgan_jax.run import weights
    from dcgan_jax.runtime import safetensors_file

    match FORMAT.value:
        case "stablehlo":
            (folder / stablehlo_file.NAME).write_bytes(stablehlo_file.program(gan))
        case "onnx":
            (folder / onnx_file.NAME).write_bytes(onnx_file.model(gan))
        case "safetensors":
            weights.write(folder, tree, meta)
        case "hub":
            hub.write(folder, gan, tree, meta)
        case "torch":
            for name, arrays in torch_export.to_state_dicts(gan.config, tree, gan.step).items():
                if SAFETENSORS.value:
                    safetensors_file.write(folder / f"{name}.safetensors", arrays)
                else:
                    torch_writer.write(folder / f"{name}.pth", arrays)


if __name__ == "__main__":
    cli.run(main, __doc__)
