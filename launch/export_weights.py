"""Exports a run's networks: python launch/export_weights.py --format=torch --workdir=DIR [--out=FOLDER]

netG.pth and netD.pth are state dicts for the networks of PyTorch's DCGAN example:

    netG.load_state_dict(torch.load("netG.pth", weights_only=True))

netG is the moving average, which makes the samples. Networks of the recipe `torch` have the example's architecture; if
`first_bias` is True, the first convolution of netD needs bias=True; if `last_bias` is, the last one of both does.
--safetensors writes the same as netG.safetensors and netD.safetensors.
"""

from pathlib import Path

import cli
from absl import flags

from dcgan_jax.runtime.errors import UserError

FORMAT = flags.DEFINE_enum("format", None, ["torch"], "format to write")
WORKDIR = flags.DEFINE_string("workdir", None, "run directory, such as runs/celeba")
STEP = flags.DEFINE(cli.StepParser(), "step", None, "step of the checkpoint, or 'best'; the newest by default")
SAFETENSORS = flags.DEFINE_bool("safetensors", False, "write netG.safetensors and netD.safetensors, not .pth")
OUT = flags.DEFINE_string("out", None, "new folder; by default in WORKDIR/exported")


def main() -> None:
    from dcgan_jax.inference import configured
    from dcgan_jax.interop import safetensors_file, torch_export, torch_writer
    from dcgan_jax.run import checkpoint
    from dcgan_jax.runtime.files import new_folder, unused_path

    for flag, value in (("--format", FORMAT.value), ("--workdir", WORKDIR.value)):
        if value is None:
            raise UserError(f"{flag}: missing, expected --format=torch and --workdir=DIR; see --help")
    tree, meta = checkpoint.read(WORKDIR.value, STEP.value)
    step = int(tree["step"])
    out = unused_path(OUT.value or Path(WORKDIR.value) / "exported" / f"torch_step_{step:08d}", "--out")
    state_dicts = torch_export.to_state_dicts(configured(meta, WORKDIR.value), tree, step)
    with new_folder(out, "--out") as folder:
        for name, arrays in state_dicts.items():
            if SAFETENSORS.value:
                safetensors_file.write(folder / f"{name}.safetensors", arrays)
            else:
                torch_writer.write(folder / f"{name}.pth", arrays)
    print(out)


if __name__ == "__main__":
    cli.run(main, __doc__)
