"""Image files and what Pillow makes of them: the goldens of src/image. Pillow 13 sometimes resizes columns before rows,
which moves single values by one; models were trained with the older order, so run this with Pillow 10 to 12 and NumPy:
python3 make_images.py"""
import pathlib

import numpy as np
import PIL
from PIL import Image

assert int(PIL.__version__.split(".")[0]) < 13, f"expected Pillow 10 to 12, found {PIL.__version__}"

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(7)


def picture(width, height):
    """Smooth colours with some noise and an edge: what resampling and JPEG find hard."""
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([127 + 120 * np.sin(x / 7.0), 127 + 120 * np.cos(y / 5.0), (x * 255 // max(width - 1, 1))], -1)
    base[(x + y) % 29 < 3] = 255
    return np.clip(base + rng.normal(0, 12, base.shape), 0, 255).astype(np.uint8)


rgb = Image.fromarray(picture(61, 43))
tall = Image.fromarray(picture(40, 75))
files = {
    "rgb.png": rgb,
    "gray.png": rgb.convert("L"),
    "palette.png": rgb.convert("P", palette=Image.Palette.ADAPTIVE),
    "one_bit.png": rgb.convert("1"),
    "alpha.png": Image.merge("RGBA", (*rgb.split(), rgb.convert("L"))),
    "gray_alpha.png": Image.merge("LA", (rgb.convert("L"), rgb.convert("L"))),
    "tall.png": tall,
}
for name, image in files.items():
    image.save(HERE / name)
rgb.save(HERE / "420.jpg", quality=90)
rgb.save(HERE / "444_progressive.jpg", quality=80, subsampling=0, progressive=True)
rgb.convert("L").save(HERE / "gray.jpg", quality=85)
rgb.convert("CMYK").save(HERE / "cmyk.jpg", quality=95)
files = sorted([*files, "420.jpg", "444_progressive.jpg", "gray.jpg", "cmyk.jpg"])
for name in files:
    Image.open(HERE / name).convert("RGB").save(HERE / "expected" / f"{name}.decoded.png")

NAMES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
for number, name in NAMES.items():
    for width, height in [(17, 13), (122, 97), (61, 20)]:
        rgb.resize((width, height), Image.Resampling(number)).save(HERE / "expected" / f"{name}_{width}x{height}.png")


def resize_edge(image, edge, resample):
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_long = int(edge * long / short)
    return image.resize((edge, new_long) if width <= height else (new_long, edge), resample)


def crop(array, height, width):
    top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
    return array[top:top + height, left:left + width]


def normalise(array, config):
    out = array.astype(np.float64) * config["rescale_factor"]
    out = (out - np.array(config["image_mean"])) / np.array(config["image_std"])
    return out.transpose(2, 0, 1).astype(np.float32)


# As Hugging Face's processors of these names do it (ConvNextImageProcessor, ViTImageProcessor, CLIPImageProcessor).
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
common = {"rescale_factor": 1 / 255, "image_mean": MEAN, "image_std": STD, "do_rescale": True, "do_normalize": True}
convnext = {**common, "image_processor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875, "do_resize": True,
            "resample": 3, "size": {"shortest_edge": 24}}
vit = {**common, "do_resize": True, "resample": 2, "size": {"height": 24, "width": 24},
       "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
clip = {**common, "do_resize": True, "resample": 3, "size": {"shortest_edge": 24}, "do_center_crop": True,
        "crop_size": {"height": 24, "width": 24}}
for name, config in {"convnext": convnext, "vit": vit, "clip": clip}.items():
    for image_name, image in {"rgb": rgb, "tall": tall}.items():
        if name == "vit":
            array = np.asarray(image.resize((24, 24), Image.Resampling(2)))
        else:
            edge = int(24 / 0.875) if name == "convnext" else 24
            array = crop(np.asarray(resize_edge(image, edge, Image.Resampling(3))), 24, 24)
        normalise(array, config).tofile(HERE / "expected" / f"{name}_{image_name}.f32")
