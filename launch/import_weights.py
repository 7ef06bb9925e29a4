"""Makes a checkpoint of others' weights: python launch/import_weights.py --format=theano|torch --file=FILE --out=DIR

theano: the arrays g0, g1, ... and d0, d1, ... of networks that the paper's authors released, in one .npz or a folder of
.npy files, with --strides where they are not all 2 (ImageNet's: 1,2,1,2,1,2) and --prior.
torch: state dicts of PyTorch's DCGAN example or tutorial, --file=netG.pth --file=netD.pth; nothing in them is run.

DIR is then the --workdir of the other launchers. Where weights come without running statistics of batch norm, as the
authors' do, the generator's are taken over 2,048 z, the discriminator's over as many generated images, or over those
of --images.
"""

import hashlib

import cli
import numpy as np
from absl import flags

from dcgan_jax.errors import UserError, local_path

FORMAT = flags.DEFINE_enum("format", None, ["theano", "torch"], "what the files are")
FILE = flags.DEFINE_multi_string("file", [], "file of weights; for torch once or twice, netG and netD")
OUT = flags.DEFINE_string("out", None, "new folder for the checkpoint")
IMAGES = flags.DEFINE_string("images", None, "images for the discriminator's statistics: folder, archive, .npz, .npy")
PREPARED = flags.DEFINE_string("prepared", "data/prepared", "folder of prepared sets, for --images of files")
STRIDES = flags.DEFINE_list("strides", [], "theano: of each convolution, from the image inwards; 2 by default")
PRIOR = flags.DEFINE_enum("prior", "normal", ["normal", "uniform"], "distribution of z that it was trained with")
STEP = flags.DEFINE_integer("step", 1, "number of the checkpoint; training goes on from there", 1, 2**31 - 1)


def main() -> None:
    from dcgan_jax.evaluation.images import open_images
    from dcgan_jax.interop import imported, theano_networks, torch_file, torch_networks
    from dcgan_jax.interop.new_folder import unused

    for flag, value in (("--format", FORMAT.value), ("--file", FILE.value), ("--out", OUT.value)):
        if not value:
            raise UserError(f"{flag}: missing, expected --format=theano|torch, --file=FILE and --out=DIR; see --help")
    most = 1 if FORMAT.value == "theano" else 2
    if len(FILE.value) > most:
        raise UserError(f"--file: found {len(FILE.value)} files, expected at most {most} for {FORMAT.value}")
    if len(set(FILE.value)) < len(FILE.value):
        raise UserError(f"--file: found {FILE.value[0]!r} twice, expected one file of each network")
    if FORMAT.value == "torch" and STRIDES.value:
        raise UserError("--strides: found some, expected none for torch, whose example has 2 everywhere")
    unused(OUT.value, "--out")
    if FORMAT.value == "theano":
        (file,) = FILE.value
        networks = theano_networks.convert(_arrays(file), f"--file {file!r}", _strides(), PRIOR.value)
    else:
        networks = torch_networks.convert({f"--file {file!r}": torch_file.read(file) for file in FILE.value})
        networks.fields["prior"] = PRIOR.value
    if IMAGES.value and networks.discriminator is not None and networks.discriminator.batch_stats is not None:
        raise UserError("--images: found some, expected none: these weights carry statistics of their own")
    images = open_images(IMAGES.value, PREPARED.value).images if IMAGES.value else None
    about = {"format": FORMAT.value, "files": {file: _digest(file) for file in FILE.value}}
    recipe = {"theano": "paper", "torch": "torch"}[FORMAT.value]
    imported.save(networks, OUT.value, recipe=recipe, about=about, step=STEP.value, images=images)
    print(OUT.value)


def _arrays(name: str) -> dict[str, np.ndarray]:
    path = local_path(name, "--file")
    try:
        if path.is_dir():
            arrays = {file.stem: np.load(file, allow_pickle=False) for file in sorted(path.glob("*.npy"))}
        else:
            with np.load(path, allow_pickle=False) as archive:
                arrays = dict(archive)
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("it holds other things than arrays")
        return arrays
    except FileNotFoundError:
        raise UserError(f"--file: {name!r} does not exist; pass another path") from None
    except Exception as error:  # zipfile and numpy raise all kinds on damaged files
        raise UserError(f"--file: {name!r} cannot be read ({error}), expected an .npz, or a folder of .npy") from error


def _strides() -> tuple[int, ...]:
    if not all(stride in ("1", "2") for stride in STRIDES.value):
        raise UserError(f"--strides: found {','.join(STRIDES.value)!r}, expected numbers such as 1,2,1,2,1,2")
    return tuple(map(int, STRIDES.value))


def _digest(name: str) -> str:
    path = local_path(name, "--file")
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    cli.run(main, __doc__)
