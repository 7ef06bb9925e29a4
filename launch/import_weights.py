"""Imports weights: python launch/import_weights.py --format=theano|torch --file=FILE --out=DIR

    python launch/import_weights.py --format=torch --file=netG.pth --file=netD.pth --out=runs/theirs
    python launch/import_weights.py --format=theano --file=svhn_dcgan_authors.npz --out=runs/svhn_authors

theano: the arrays g0, g1, ... and d0, d1, ... of the networks that the paper's authors released, in one .npz or a
folder of .npy files; with --prior, and --strides if they are not all 2 (ImageNet's: 1,2,1,2,1,2).
torch: state dicts of PyTorch's DCGAN example or tutorial, or of networks like theirs: --file=netG.pth --file=netD.pth,
or a checkpoint that holds one or both; --key=netG, also twice, chooses from several in a file. Files of torch.save or
safetensors; no code in them is run.

DIR becomes a run directory with one checkpoint: the --workdir of the other launchers. If the weights come without
running statistics of batch norm, as the authors' do, they are computed: the generator's over 2,048 z, the
discriminator's over as many generated images, or over --images.
"""

import cli
import numpy as np
from absl import flags

from dcgan_jax.runtime import files
from dcgan_jax.runtime.array_files import read_arrays
from dcgan_jax.runtime.errors import UserError, local_path

FORMAT = flags.DEFINE_enum("format", None, ["theano", "torch"], "format of the files")
FILE = flags.DEFINE_multi_string("file", [], "file of weights; with torch given once or twice, for netG and netD")
KEY = flags.DEFINE_multi_string(
    "key", [], "torch: name of the state dict to take from a checkpoint that holds several, such as netG; up to twice"
)
OUT = flags.DEFINE_string("out", None, "new run directory")
IMAGES = flags.DEFINE_string(
    "images", None, "images for the discriminator's running statistics: folder, archive, .npz, .npy"
)
PREPARED = flags.DEFINE_string("prepared", "data/prepared", "folder of prepared sets, in which --images are prepared")
STRIDES = flags.DEFINE_list("strides", [], "theano: stride of each convolution, from the image inwards; 2 by default")
PRIOR = flags.DEFINE_enum("prior", "normal", ["normal", "uniform"], "distribution of z in its training")
STEP = flags.DEFINE_integer("step", 1, "step of the checkpoint, from which training can resume", 1, 2**31 - 1)


def main() -> None:
    from dcgan_jax.evaluation.image_files import open_images
    from dcgan_jax.interop import imported, state_dicts, theano_networks, torch_networks
    from dcgan_jax.runtime import devices

    for flag, value in (("--format", FORMAT.value), ("--file", FILE.value), ("--out", OUT.value)):
        if not value:
            raise UserError(f"{flag}: missing, expected --format=theano|torch, --file=FILE and --out=DIR; see --help")
    max_files = 1 if FORMAT.value == "theano" else 2
    if len(FILE.value) > max_files:
        raise UserError(f"--file: found {len(FILE.value)} files, expected at most {max_files} for {FORMAT.value}")
    if len(set(FILE.value)) < len(FILE.value):
        raise UserError(f"--file: found {FILE.value[0]!r} twice, expected one file of each network")
    if FORMAT.value == "torch" and STRIDES.value:
        raise UserError("--strides: found some, expected none for torch, whose example has 2 everywhere")
    if FORMAT.value == "theano" and KEY.value:
        raise UserError("--key: found some, expected none for theano, whose files hold one pair of networks")
    files.unused_path(OUT.value, "--out")
    devices.check()
    if FORMAT.value == "theano":
        (file,) = FILE.value
        networks = theano_networks.convert(_arrays(file), f"--file {file!r}", _strides(), PRIOR.value)
    else:
        networks = torch_networks.convert(state_dicts.read(FILE.value, KEY.value))
        networks.fields["prior"] = PRIOR.value
    if IMAGES.value and networks.discriminator is not None and networks.discriminator.batch_stats is not None:
        raise UserError("--images: found some, expected none: these weights carry statistics of their own")
    images = open_images(IMAGES.value, PREPARED.value).images if IMAGES.value else None
    about = {"format": FORMAT.value, "files": {file: _digest(file) for file in FILE.value}}
    about |= {"keys": KEY.value} if KEY.value else {}
    recipe = {"theano": "paper", "torch": "torch"}[FORMAT.value]
    imported.save(networks, OUT.value, recipe=recipe, about=about, step=STEP.value, images=images)
    print(OUT.value)


def _arrays(name: str) -> dict[str, np.ndarray]:
    path = local_path(name, "--file")
    try:
        if path.is_dir():
            return {file.stem: read_arrays(file)[""] for file in sorted(path.glob("*.npy"))}
        return read_arrays(path)
    except FileNotFoundError:
        raise UserError(f"--file: {name!r} does not exist; pass another path") from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--file: {name!r} cannot be read ({error}), expected an .npz, or a folder of .npy") from error


def _strides() -> tuple[int, ...]:
    if not all(stride in ("1", "2") for stride in STRIDES.value):
        raise UserError(f"--strides: found {','.join(STRIDES.value)!r}, expected numbers such as 1,2,1,2,1,2")
    return tuple(map(int, STRIDES.value))


def _digest(name: str) -> str:
    path = local_path(name, "--file")
    if path.is_dir():
        return files.digest(*map(files.sha256, sorted(path.glob("*.npy"))))
    return files.sha256(path)


if __name__ == "__main__":
    cli.run(main, __doc__)
