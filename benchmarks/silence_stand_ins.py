"""What `benchmarks/silence.py` gives the documents' commands to work on: small images and runs, and less work.

Commands are left as they are written, as far as they say what is done. Names such as FOLDER become files and folders of
these names; what takes hours on real data is made short by flags behind the command.
"""

import gzip
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
from measure import ROOT
from PIL import Image
from sklearn.datasets import load_digits

STEPS = 12  # of training
TRAINED = 10  # steps of the runs that commands start from
CLASSES = ["cats", "dogs", *map(str, range(2, 10))]
SHORT = [f"--config.num_steps={STEPS}", "--config.lr_decay_steps=0", "--config.batch_size=16"]

# Commands that are not run, by a part of them, with the reason.
SKIPPED = {
    r"^(python )?benchmarks/": "a benchmark: hours, or a machine of its own",
    r"--coordinator=": "wants several machines",
    r"tpu_pod\.sh$": "wants a TPU",
    r"logger=(wandb|trackio)": "wants another package, and an account",
    r"THEIR_SAMPLES": "wants Inception's weights from the network",
    r"launch/\w+\.py( [a-z]+)?( --(label|labels|verify|num|format|metrics)\b\S*)*$": ("flags that are spoken of"),
}
# What is replaced in a command, by regular expressions.
REPLACED = {
    r"--data=(cifar10|svhn_cropped)": "--data=FOLDER",  # tfds downloads them
    r"--data=FOLDER/train": "--data=FOLDER",
    r"data/img_align_celeba\.zip": "FOLDER",  # whose 202,599 names are checked
    r"--config\.data\.path=data/bedroom_train_lmdb": "--config.data.source=folder --config.data.path=FOLDER",
    r"--boxes=FILE": "--boxes=8,8,20,20",
    r"explore\.py --workdir=\S+": r"\g<0> --port=17860",
    r"kid10k_test": "kid10k_train",  # the stand-ins have fewer than 1,000 held-out images
    r"--z=FILE": "--workdir=runs/digits --z=z.npz",
    r"--step=3000 --z=\S+": "--z=z.npz",
    r" --step=28000": "",
    r"--format=theano --file=FILE": "--format=theano --file=svhn_dcgan_authors.npz",
    r"([a-z]+)(10|50)k": r"\g<1>1k",  # samples of a measure: fid50k_train
    r"--samples=\S+": "--samples=1000,2000",
    r"--draws=\d+": "--draws=3",
    r"(?<=--labels_per_class=)(all,)?\d+": r"\g<1>40",
    r"--random=8": "--random=2",
    r"--num=1000": "--num=200",
}
# What is added to a command that a regular expression finds.
ADDED = {
    r"(train|sweep)(\.py)? .*--config=": " ".join(SHORT),
    r"(train|prepare)\S* .*(cifar10|svhn|imagenet32|lsun_bedroom|celeba)(?!.*--config\.data\.path)": (
        "--config.data.source=folder --config.data.path=FOLDER"
    ),
    r"train\S* .*mnist\S*(?!.*--config\.data\.path)": "--config.data.path=FOLDER",
    r"supervised\.py --": "--data=FOLDER --trials=2 --images_seen=2000",
    r"probe\.py --workdir(?!.*--labels_per_class)": "--labels_per_class=all,40",
    r"evaluate\.py .*--workdir(?!.*--features)": "--features=classifier",  # Inception's weights are on the network
}


def shortened(command: str) -> str:
    """The command with less work to do, and with what stands for the reader's own files."""
    for pattern, instead in REPLACED.items():
        command = re.sub(pattern, instead, command)
    added = [text for pattern, text in ADDED.items() if text and re.search(pattern, command)]
    return " ".join([command, *added])


def reason_to_skip(command: str) -> str:
    """Why a command is not run; '' if it is."""
    return next((reason for pattern, reason in SKIPPED.items() if re.search(pattern, command)), "")


def folder_for(command: str, base: Path, place: Path) -> None:
    """Makes the folder that a command runs in: images and the runs that it names, each as a copy of its own."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in ("configs", "launch"):
        (place / name).symlink_to(ROOT / name)
    for name in ("FOLDER", "REAL", "THEIR_SAMPLES")[bool(re.search("--out=FOLDER", command)) :]:
        (place / name).symlink_to(base / ("mnist" if "mnist" in command else "images"))
    for name in ("images", "mnist"):  # as the runs were trained on them
        (place / name).symlink_to(base / name)
    for name in ("cells.npy", "z.npz", "netG.pth", "netD.pth", "svhn_dcgan_authors.npz"):
        if (base / name).exists():
            (place / name).symlink_to(base / name)
    trains = re.search(r"launch/train\.py|dcgan-jax train|import_weights|sweep\S* .*--set", command)
    runs = r"init=(\S+)" if trains else r"\b(?:runs/\w+|DIR|sweeps/lr)\b"
    wanted = set(re.findall(runs, shortened(command)))
    for name in wanted:
        of = {"mnist_conditional": "conditional", "mine": "classes", "digits": "digits", "theirs": "theirs"}
        source = base / "runs" / of.get(Path(name).name, "images")
        target = place / name / "one" if name.startswith("sweeps/") else place / name
        shutil.copytree(source, target)


def make(base: Path) -> None:
    """Images and runs, once for all commands; what is there already stays."""
    _images(base / "images")
    _idx(base / "mnist")
    if not (base / "cells.npy").exists():
        np.save(base / "cells.npy", np.random.default_rng(0).integers(0, 256, (200, 64, 64, 6), np.uint8))
        np.savez(base / "z.npz", z=np.random.default_rng(0).normal(size=(16, 100)).astype(np.float32))
    authors = Path(os.environ.get("DCGAN_TEST_DATA", "")) / "svhn_dcgan_authors.npz"
    if authors.is_file() and not (base / authors.name).exists():
        (base / authors.name).symlink_to(authors)
    few = [f"--config.num_steps={TRAINED}", "--config.lr_decay_steps=0", "--config.batch_size=16"]
    of_images = ["--config=folder", "--config.data.path=images", "--config.width=16", "--config.image_size=32"]
    _launch(base, "train", "--config=digits", *few, "--config.checkpoint_every=5", "--workdir=runs/digits")
    _launch(base, "train", *of_images, *few, "--workdir=runs/images")
    _launch(base, "train", *of_images, *few, "--config.num_classes=10", "--workdir=runs/classes")
    conditional = ["--config=mnist_conditional", "--config.data.path=mnist", "--config.dense=64"]
    _launch(base, "train", *conditional, *few, "--workdir=runs/conditional")
    example = ["--config=folder:torch", "--config.data.path=images", "--config.quality=False", "--config.num_steps=1"]
    _launch(base, "train", *example, "--config.batch_size=4", "--workdir=runs/theirs")
    if not (base / "netG.pth").exists():
        _launch(base, "export_weights", "--format=torch", "--workdir=runs/theirs", "--out=exported")
        for name in ("netG.pth", "netD.pth"):
            shutil.move(base / "exported" / name, base / name)


def _launch(base: Path, name: str, *arguments: str) -> None:
    where = base / next(word.partition("=")[2] for word in arguments if "workdir=" in word)
    if name == "train" and (where / "checkpoints").exists():
        return
    script = ROOT / "launch" / f"{name}.py"
    subprocess.run([sys.executable, str(script), *arguments], cwd=base, env=environment(base), check=True)


def environment(base: Path) -> dict[str, str]:
    """Of all processes: this tree, and caches of its own, which are empty at first."""
    return os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(base / "caches")}


def _digits(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's digits, enlarged: uint8 [N, size, size] and their labels."""
    digits = load_digits()
    pixels = (digits.images * 255 / 16).astype(np.uint8)
    enlarged = [
        np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)) for picture in pixels
    ]
    return np.stack(enlarged), digits.target.astype(np.uint8)


def _images(folder: Path) -> None:
    """Coloured JPEGs in a folder for each class, in train/ and test/."""
    if folder.exists():
        return
    colours = np.random.default_rng(0).uniform(0.3, 1, (1797, 3))
    for i, (picture, label) in enumerate(zip(*_digits(96), strict=True)):
        place = folder / ("test" if i % 4 == 0 else "train") / CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture[..., None] * colours[i]).astype(np.uint8)).save(place / f"{i}.jpg")


def _idx(folder: Path) -> None:
    """MNIST's four files, with 1,500 and 297 digits."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    images, labels = _digits(28)
    for name, part in (("train", slice(0, 1500)), ("t10k", slice(1500, None))):
        for kind, array in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


def described() -> str:
    """How commands are made short, for the record."""
    return json.dumps({"steps": STEPS, "trained": TRAINED, "replaced": REPLACED, "added": ADDED})
