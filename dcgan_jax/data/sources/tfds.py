"""Image data sets of tensorflow-datasets, read as array records, without TensorFlow."""

import importlib.util
import logging
import sys
import threading
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dcgan_jax.data.images import decode
from dcgan_jax.data.sources import celeba
from dcgan_jax.data.sources.source import Source
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.progress import progress

log = logging.getLogger("dcgan_jax")

RETRIES = 3  # of a download


def open_source(config: ConfigDict) -> Source:
    """One split of a data set by name, with its labels and CelebA's attributes; downloaded and built the first time.

    Building needs TensorFlow for data sets whose builders give arrays (mnist, cifar10, svhn_cropped, ...); reading
    never does.

    Raises UserError if the name or split does not exist, the data set has no images, TensorFlow is needed but not
    installed, or the download fails.
    """
    import tensorflow_datasets as tfds  # imported late: only this source needs it

    name = config.data.name
    try:
        builder = tfds.builder(name, data_dir=config.data.path or None, file_format="array_record")
        if "image" not in builder.info.features:
            raise ValueError(f"it has {', '.join(builder.info.features)}, and no image")
        if not builder.is_prepared():
            log.info("tfds: downloading and building %s", builder.info.full_name)
            _hide_accelerators_from_tensorflow()
            _fail_soon(tfds)
        builder.download_and_prepare()
        records = builder.as_data_source(split=config.data.split, decoders={"image": tfds.decode.SkipDecoding()})
    except Exception as error:  # an unknown data set, a failed download, no TensorFlow
        raise UserError(
            f"config.data.name: tfds cannot give {name!r} ({_reason(error)}); {_advice(error, name)}"
        ) from error

    lock = threading.Lock()

    def read(index: int) -> Image.Image:
        with lock:
            content = records[index]["image"]
        return decode(BytesIO(content))

    names = [str(i) for i in range(len(records))]
    return Source(names, read, version=builder.info.full_name, **_labels_and_attributes(builder, records))


def _labels_and_attributes(builder: Any, records: Any) -> dict[str, Any]:
    """The labels and attributes of all records, as fields of a Source."""
    features = builder.info.features
    has_labels = "label" in features and hasattr(features["label"], "names")
    attribute_names = tuple(features["attributes"]) if "attributes" in features else ()
    if not has_labels and not attribute_names:
        return {}
    labels, attributes = np.empty(len(records), np.int32), np.empty((len(records), len(attribute_names)), bool)
    for i, record in enumerate(progress(records, "reading labels", "images")):
        if has_labels:
            labels[i] = record["label"]
        attributes[i] = [record["attributes"][name] for name in attribute_names]
    fields: dict[str, Any] = {}
    if has_labels and (labels >= 0).all():  # a split without labels has -1
        fields |= dict(labels=labels, classes=tuple(features["label"].names))
    if attribute_names:
        fields |= dict(attributes=attributes, attribute_names=attribute_names)
    return fields


def _hide_accelerators_from_tensorflow() -> None:
    """Building may import TensorFlow, which would take all memory of every accelerator that it sees."""
    if importlib.util.find_spec("tensorflow"):
        import tensorflow as tf

        for kind in ("GPU", "TPU"):
            tf.config.set_visible_devices([], kind)


def _fail_soon(tfds: Any) -> None:
    """Without a network tfds would try for minutes, and tell each try amid its bars, which need a terminal."""
    from tensorflow_datasets.core.download import downloader

    downloader.MAX_RETRIES = RETRIES
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()


def _unreachable(error: BaseException) -> str:
    """The host that a failed download did not reach, '' for any other error."""
    url = getattr(getattr(error, "request", None), "url", "")  # of an error of requests
    return urlsplit(url).hostname or "" if url and isinstance(error, OSError) else ""


def _reason(error: BaseException) -> str:
    if host := _unreachable(error):
        return f"{host} cannot be reached"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # When an import fails, tfds prints the whole example first, and the reason last.
    return lines[-1] if isinstance(error, ImportError) else lines[0]


def _advice(error: BaseException, name: str) -> str:
    if isinstance(error, ImportError) and "tensorflow" in str(error):
        return "its builder needs TensorFlow, only to prepare it: pip install --editable '.[tfds]'"
    if name.partition(":")[0].partition("/")[0] == "celeb_a":
        return celeba.ADVICE
    check = "network" if _unreachable(error) else "name and the split"
    return f"check the {check}, or use a copy that you have: --config.data.source=folder --config.data.path=FOLDER"
