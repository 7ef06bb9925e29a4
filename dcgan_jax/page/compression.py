"""Pictures as small WebP files that together fit in a number of bytes, and as addresses to write into a page."""

import base64
import io

from PIL import Image

QUALITY = 82
# Of the sides of a picture, tried in this order until all pictures fit; the last one is taken as it is.
SHARES = (1.0, 0.75, 0.55, 0.4, 0.3, 0.2)


def fitting(pictures: list[Image.Image], limit: int) -> list[bytes]:
    """The pictures as WebP, of at most `limit` bytes together; for that all are made smaller, by the same share."""
    for share in SHARES:
        files = [_encoded(picture, share) for picture in pictures]
        if sum(map(len, files)) <= limit:
            break
    return files


def address(file: bytes) -> str:
    """A WebP file as the address of a picture, which holds it all."""
    return f"data:image/webp;base64,{base64.b64encode(file).decode()}"


def _encoded(picture: Image.Image, share: float) -> bytes:
    if share < 1:
        size = [max(1, round(side * share)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="WEBP", quality=QUALITY, method=4)
    return file.getvalue()
