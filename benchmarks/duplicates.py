"""De-duplication measured on planted duplicates: python benchmarks/duplicates.py --images=FOLDER [--side=64]

FOLDER holds JPEGs. All are copied, and altered copies of a tenth of them are added: recompressed (quality 25 to 60),
cropped (to 92 to 97% of each side, anywhere, and enlarged back), or made brighter or darker (by 10 to 30%). Everything
is prepared and de-duplicated. Printed are, for each kind, the share of pairs of which one image was removed, and the
number of other pairs that were found. Those may be duplicates too: --picture=FILE shows them.
"""

import json
import random
import tempfile
from pathlib import Path

import measure
import numpy as np
from PIL import Image, ImageEnhance

from dcgan_jax import config as configuration
from dcgan_jax import data
from dcgan_jax.data import near_duplicates, prepared
from dcgan_jax.data.images import grid

EVERY = 10  # one image in so many gets an altered copy
MAX_PAIRS_SHOWN = 100


def recompressed(image: Image.Image, rng: random.Random) -> tuple[Image.Image, int]:
    """The image, and a low quality to save it with."""
    return image, rng.randint(25, 60)


def cropped(image: Image.Image, rng: random.Random) -> tuple[Image.Image, int]:
    """A part of the image, enlarged to its size."""
    width, height = image.size
    lost = rng.uniform(0.03, 0.08)
    left, top = rng.uniform(0, lost) * width, rng.uniform(0, lost) * height
    box = (left, top, left + width * (1 - lost), top + height * (1 - lost))
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box), 90


def brightened(image: Image.Image, rng: random.Random) -> tuple[Image.Image, int]:
    """The image, brighter or darker."""
    factor = rng.choice([rng.uniform(0.7, 0.9), rng.uniform(1.1, 1.3)])
    return ImageEnhance.Brightness(image).enhance(factor), 90


KINDS = {"recompressed": recompressed, "cropped": cropped, "brightened": brightened}


def plant(source: Path, target: Path) -> None:
    """Copies the images as NUMBER_original.jpg, and adds altered ones as NUMBER_KIND.jpg."""
    rng = random.Random(0)
    files = sorted(source.rglob("*.jpg"))
    for i, file in enumerate(files):
        (target / f"{i:07d}_original.jpg").write_bytes(file.read_bytes())
    for j, i in enumerate(rng.sample(range(len(files)), len(files) // EVERY)):
        kind = list(KINDS)[j % len(KINDS)]
        with Image.open(files[i]) as image:
            altered, quality = KINDS[kind](image.convert("RGB"), rng)
        altered.save(target / f"{i:07d}_{kind}.jpg", quality=quality)


def main() -> None:
    parser = measure.plain_parser(__doc__, side=64)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        plant(options.images, folder)
        config = configuration.default_config()
        config.image_size = (options.side, options.side)
        config.data.update(source="folder", path=str(folder), prepared=f"{name}/prepared")
        path = data.find_or_prepare(config)
        result = near_duplicates.deduplicate(path, seed=0)

        names, kept = prepared.read_names(path), set(prepared.read_names(result))
        print(f"{len(names)} images, {len(kept)} kept")
        for kind in KINDS:
            planted = [name for name in names if name.endswith(f"_{kind}.jpg")]
            removed = [name for name in planted if not {name, f"{name[:7]}_original.jpg"} <= kept]
            print(f"{kind:12} {len(removed)} of {len(planted)} found, {len(removed) / len(planted):.1%}")
        lines = map(json.loads, (result / "duplicates.jsonl").read_text().splitlines())
        pairs = [(line["stays"], line["falls_out"]) for line in lines]
        others = [pair for pair in pairs if pair[0][:7] != pair[1][:7]]
        lost = {second for _, second in others if second not in kept}
        print(f"{len(others)} pairs that were not planted, which cost {len(lost)} images")
        if options.picture and others:
            index = {name: i for i, name in enumerate(names)}
            images = data.open_set(path).images
            sides = [images[[index[pair[side]] for pair in others[:MAX_PAIRS_SHOWN]]] for side in (0, 1)]
            grid(np.concatenate(sides, axis=2)).save(options.picture)


if __name__ == "__main__":
    main()
