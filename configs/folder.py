"""Your own images: a folder, a zip or a tar of them, any nesting, any mix of sizes and kinds; parquet files; shards.

    python launch/train.py --config=configs/folder.py --workdir=runs/mine --config.data.path=FOLDER

Each is turned upright, cropped to the middle and resized. What you may want to change:

    --config.image_size=128      a square; 96,64 is a height and a width. Layers are added as the size asks for, and
                                 sides must be multiples of 8 from 32 on, 16 from 64, 32 from 128, 64 from 256
    --config.channels=1          grey; 4 keeps the transparency
    --config.num_classes=10      condition on the class, the folder that holds the image
    --config.data.flip=True      mirror images at random
    --config.data.crop=none      keep the whole image, whatever that does to its proportions
    --config.width=32            a narrower network: a quarter of the arithmetic

The images are prepared once, in data/prepared, height * width * channels bytes each. Recipes: see dcgan_jax/config.py.
"""

from dcgan_jax import config as configuration


def get_config(recipe: str = "default"):
    return configuration.for_data_set("folder", recipe)
