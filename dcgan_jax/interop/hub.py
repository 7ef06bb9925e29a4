"""A folder ready for the Hugging Face hub: weights, the StableHLO program, samples, and a model card in README.md.

Publishing is the user's: `hf upload OWNER/NAME FOLDER`, with a licence in the card.
"""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dcgan_jax.data.images import grid
from dcgan_jax.inference import TrainedGAN
from dcgan_jax.interop import stablehlo_file
from dcgan_jax.run import weights
from dcgan_jax.runtime.files import write_text

Tree = dict[str, Any]

SAMPLES = 64
# Measures of a step that the card shows, where there are some, besides those of evaluation.jsonl.
SHOWN = ("quality", "spread", "d_loss", "g_loss")
# Fields that the card shows; config.json has all.
FIELDS = (
    *("recipe", "batch_size", "generator_lr", "discriminator_lr", "loss", "width", "kernel_size", "latent_dim"),
    *("prior", "generator_norm", "discriminator_norm", "dtype", "seed"),
)
HEAD = """---
# license: say here by which licence you publish it, such as apache-2.0
library_name: dcgan_jax
{task}tags:
- dcgan
- gan
- image-generation
- jax
- flax
---
"""
CARD = """
# DCGAN of {size} images

![samples](samples.png)

*The first {samples} samples of seed 0, not chosen.*

A [DCGAN](https://arxiv.org/abs/1511.06434) that turns {latent_dim} random numbers into images of {size} pixels,
trained by dcgan_jax {version}.

## How it was trained

| | |
|---|---|
{training}

`config.json` has the whole configuration.

## Measures

{measures}

## Use it

With dcgan_jax, `OWNER/NAME` being this repository (a local folder will do as well):

```python
import dcgan_jax

gan = dcgan_jax.load("hf://OWNER/NAME")
images = gan.sample(16, seed=0)  # uint8 [16, {shape}]{more}
```

Without dcgan_jax, on a CPU, GPU or TPU (`pip install jax flatbuffers`):

```python
import numpy as np
from jax import export

generator = export.deserialize(open("generator.stablehlo", "rb").read())
z = np.random.default_rng(0).{draw}.astype(np.float32)
images = generator.call({arguments})  # float32 [16, {shape}] in [-1, 1]
```
"""


def write(folder: Path, gan: TrainedGAN, tree: Tree, meta: dict[str, Any]) -> None:
    """Writes all files to a folder that exists. tree, meta: what `gan` was made of, with all `measures` in meta."""
    networks = [name for name in weights.FILES if name in tree]
    weights.write(folder, tree, meta, networks)
    write_text(folder / "config.json", json.dumps(weights.portable(meta["config"]), indent=2) + "\n")
    (folder / stablehlo_file.NAME).write_bytes(stablehlo_file.program(gan))
    grid(gan.sample(SAMPLES)).save(folder / "samples.png")
    write_text(folder / "README.md", model_card(gan, meta, alone="discriminator" not in networks))


def measures(workdir: str | Path, step: int) -> dict[str, float]:
    """What metrics.jsonl and evaluation.jsonl in a run's directory say of a step, by name; {} if they are not there."""
    found: dict[str, float] = {}
    for file in ("metrics.jsonl", "evaluation.jsonl"):
        path = Path(workdir) / file
        for text in path.read_text(errors="replace").splitlines() if path.is_file() else []:
            try:
                line = json.loads(text)
                if line["step"] != step:
                    continue
                found |= {f"{line['metric']} ({line['features']})": line["value"]} if "metric" in line else line
            except (ValueError, KeyError, TypeError):  # cut short when a process was killed
                continue
    found.pop("step", None)
    return found


def model_card(gan: TrainedGAN, meta: dict[str, Any], *, alone: bool) -> str:
    """The text of README.md. alone: whether there is no discriminator beside the generator."""
    config = gan.config
    shape = f"{', '.join(map(str, config.image_size))}, {config.channels}"
    arguments, images, more = "z", "images", ""
    if config.num_classes:
        arguments, images = f"z, np.arange(16, dtype=np.int32) % {config.num_classes}", "of_one_class, [0] * 16"
        more = f"\nof_one_class = gan.sample(16, labels=[0] * 16)  # labels from 0 to {config.num_classes - 1}"
    if not alone:
        more += f"\nlogits = gan.discriminate({images})  # float32 [16], positive for real"
    size = (16, config.latent_dim)
    head = HEAD.format(task="" if config.num_classes else "pipeline_tag: unconditional-image-generation\n")
    return head + CARD.format(
        size="x".join(map(str, (*config.image_size, config.channels))),
        samples=SAMPLES,
        latent_dim=config.latent_dim,
        version=(meta.get("versions") or {}).get("dcgan_jax", ""),
        training=_table(_training(config, gan.step, meta.get("data") or {})),
        measures=_measures(meta.get("metrics") or {}, gan.step),
        shape=shape,
        more=more,
        draw=f"normal(size={size})" if config.prior == "normal" else f"uniform(-1, 1, size={size})",
        arguments=arguments,
    )


def _training(config: ConfigDict, step: int, data: dict[str, Any]) -> dict[str, Any]:
    """Rows of the card: images, steps, and fields."""
    images = data.get("name") or data.get("source") or "unknown"
    classes = data.get("classes") or []
    rows = {"images": f"{images}, {data['count']} of them" if "count" in data else images}
    if config.num_classes:
        listed = ", ".join(map(str, classes[:20])) + (", ..." if len(classes) > 20 else "")
        rows["classes"] = f"{config.num_classes}{f': {listed}' if listed else ''}"
    rows["steps"] = f"{step} of {config.num_steps}"
    return rows | {f"`{name}`": config[name] for name in FIELDS}


def _measures(metrics: dict[str, Any], step: int) -> str:
    shown = {name: value for name, value in metrics.items() if name in SHOWN or " (" in name}
    if not shown:
        return f"None were recorded at step {step}."
    rows = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in shown.items()}
    return f"Of step {step}:\n\n| | |\n|---|---|\n{_table(rows)}"


def _table(rows: dict[str, Any]) -> str:
    return "\n".join(f"| {name} | {' '.join(str(value).split())} |".replace("\\", "") for name, value in rows.items())
