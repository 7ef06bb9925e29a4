"""One picture of any kind to the pixels that a network is trained on; many images as one picture."""

import importlib.util
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from dcgan_jax.data.resizing import OPACITY, resize
from dcgan_jax.runtime.contents import HEAD, described

# A larger picture may be a decompression bomb: a small file that fills the memory when it is decoded.
MAX_PIXELS = 2**27
Image.init()  # loads Pillow's decoders; otherwise several threads would load them at the same time
# Pillow's other formats run programs (EPS) or are not pictures.
BASIC_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
OTHER_FORMATS = [name for name, codec in (("AVIF", "avif"), ("JPEG2000", "jpg_2000")) if features.check(codec)]
if importlib.util.find_spec("pillow_heif"):  # the extra `heic`
    import pillow_heif

    pillow_heif.register_heif_opener()
    OTHER_FORMATS.append("HEIF")
FORMATS = (*BASIC_FORMATS, *OTHER_FORMATS)  # of which the others depend on what is installed
# The endings of file names that stand for these formats, such as '.jpg'.
EXTENSIONS = frozenset(ending for ending, name in Image.registered_extensions().items() if name in FORMATS)
EXTENSIONS |= {".jif", ".jfi", ".pjpeg", ".pjp", ".dib"}  # of JPEG and BMP too
# A smaller picture (a tracking pixel of a web page, for example) shows nothing.
MIN_SIDE = 4
CELEBA_SIZE = (178, 218)  # width and height of CelebA's aligned faces
# What pictures are converted to: grey, colour, and colour with transparency. Only arrays have other channels.
PICTURE_CHANNELS = (1, 3, 4)
BOARD = (204, 153)  # the two greys that are seen through transparent pixels


def decode(file: Path | BinaryIO) -> Image.Image:
    """Opens a picture in one of `FORMATS`. Its pixels are not decoded yet.

    Raises ValueError if it is no picture, too large or too small, and Pillow's errors if it cannot be read.
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(_not_a_picture(file)) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels, expected at most {MAX_PIXELS} in all; shrink it")
    if min(image.size) < MIN_SIDE:
        raise ValueError(f"{width}x{height} pixels, expected at least {MIN_SIDE} a side")
    return image


def _not_a_picture(file: Path | BinaryIO) -> str:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            head = opened.read(HEAD)
    else:
        file.seek(0)
        head = file.read(HEAD)
    content = described(head)
    return f"{content.what}: {content.advice}" if content else "not an image of a kind that is read, or damaged"


def largest_of_16_bits(image: Image.Image | np.ndarray) -> int:
    """The largest value of a picture of 16-bit greys; 0 for any other picture."""
    if isinstance(image, np.ndarray) or (image.mode != "I" and not image.mode.startswith("I;16")):
        return 0
    return int(np.asarray(image).max(initial=0))


def is_enlarged(image: Image.Image | np.ndarray, image_size: tuple[int, int], crop: str) -> bool:
    """Whether `to_pixels` keeps fewer pixels of a picture along a side than it makes of them; EXIF is not looked at."""
    size = (image.shape[1], image.shape[0]) if isinstance(image, np.ndarray) else image.size
    height, width = image_size
    left, top, right, bottom = _crop_box(size, width / height, crop)
    return right - left < width or bottom - top < height


def to_pixels(
    image: Image.Image | np.ndarray, image_size: tuple[int, int], channels: int, crop: str = "center"
) -> np.ndarray:
    """A picture as uint8 [height, width, channels]: turned upright, cropped and resized.

    channels: one of `PICTURE_CHANNELS`, or those of an array [H, W, channels], as `resizing.resize` takes it.

    crop: 'center' keeps the largest centred rectangle with the proportions of `image_size`. 'celebaN' keeps the
    centred square with N pixels a side, for an aligned face that is 178 pixels wide (in proportion for other widths).
    'none' keeps the whole picture, whose proportions may change.

    Resizes with Pillow's antialiased Lanczos filter. Transparent pixels become white, or with 4 channels (0, 0, 0, 0).
    16-bit grey is scaled to 8 bits. Of an animation, the first frame is taken.

    Raises ValueError if the range of the pixels is unknown (32-bit floats) or the crop does not fit the picture, and
    OSError if the picture cannot be decoded.
    """
    height, width = image_size
    if isinstance(image, np.ndarray):
        return resize(image, image_size, _crop_box((image.shape[1], image.shape[0]), width / height, crop))
    image = _eight_bits(_upright(image))
    if channels == 4:
        pixels = np.asarray(image.convert("RGBA"))
        seen = pixels * (pixels[..., OPACITY:] > 0)
        return resize(seen, image_size, _crop_box(image.size, width / height, crop))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if channels == 3 else "L")
    image = image.resize((width, height), Image.Resampling.LANCZOS, box=_crop_box(image.size, width / height, crop))
    return np.asarray(image, np.uint8).reshape(height, width, channels)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # The EXIF tags are damaged. If the picture is damaged too, load() raises an error that says so.
        image.load()
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("32-bit float pixels; convert it to 8 or 16 bits a channel")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 instead of scaling.
        values = np.asarray(image).astype(np.int64)
        if values.max(initial=0) > 65535 or values.min(initial=0) < 0:
            raise ValueError("32-bit integer pixels; convert it to 8 or 16 bits a channel")
        return Image.fromarray((values // 257).astype(np.uint8))
    return image


def _crop_box(size: tuple[int, int], aspect: float, crop: str) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) that a crop keeps; `aspect` is width / height of the result."""
    width, height = size
    if crop == "none":
        return 0, 0, width, height
    if crop == "center":
        crop_width, crop_height = min(width, height * aspect), min(height, width / aspect)
    else:
        full_width, full_height = CELEBA_SIZE
        if abs(height - width * full_height / full_width) > 1:
            raise ValueError(f"{width}x{height} pixels are not in the proportions of 178x218 that crop={crop!r} is for")
        crop_width = crop_height = width * int(crop.removeprefix("celeba")) / full_width
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    return left, top, left + crop_width, top + crop_height


def visible(images: np.ndarray) -> np.ndarray:
    """What is shown of images of any channels: uint8 [..., H, W, C] to [..., H, W, 1 or 3].

    Of 2 channels the first, as grey; of 4 the colours over a chequerboard, by their opacity; of more the first three.
    """
    height, width, channels = images.shape[-3:]
    if channels != 4:
        return images[..., :1] if channels == 2 else images[..., :3]
    square = max(2, min(height, width) // 8)
    rows, columns = np.indices((height, width)) // square
    board = np.where((rows + columns) % 2, *BOARD)[..., None]
    opacity = images[..., OPACITY:] / 255
    return np.rint(images[..., :OPACITY] * opacity + board * (1 - opacity)).astype(np.uint8)


def grid(images: np.ndarray, columns: int = 0) -> Image.Image:
    """Images uint8 [N, H, W, C], N > 0, as `visible`, in rows with 2 black pixels between them; a square by default."""
    images = visible(images)
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows, gap = -(-count // columns), 2
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)
