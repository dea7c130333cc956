"""Trains the digits ResNet and writes its test set: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, enlarged to
32 x 32 grey pixels. Every fifth picture is held out: test/LABEL.png is one of each, test.safetensors
holds all.

    python3 train.py     (needs torch, transformers, scikit-learn and Pillow; two minutes on one core)
"""
import json
import pathlib

import numpy
import torch
import transformers as tf
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

HERE = pathlib.Path(__file__).resolve().parent
MEAN, DEVIATION = 0.5, 0.5


def pictures():
    """Bytes [n, 32, 32] and labels, as a client would send them."""
    digits = load_digits()
    grey = (digits.images * 255 / 16).round().astype(numpy.uint8)
    big = [numpy.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)) for image in grey]
    return numpy.stack(big), digits.target


def pixels(images):
    return torch.from_numpy((images.astype(numpy.float32) / 255 - MEAN) / DEVIATION)[:, None]


def main():
    torch.manual_seed(1)
    torch.set_num_threads(1)
    images, labels = pictures()
    held = numpy.arange(len(labels)) % 5 == 0
    x, y = pixels(images[~held]), torch.from_numpy(labels[~held])
    config = tf.ResNetConfig(num_channels=1, embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic",
                             num_labels=10, id2label={i: str(i) for i in range(10)})
    model = tf.ResNetForImageClassification(config)
    epochs, size = 12, 64
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * (len(y) // size))
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(y))
        for i in range(len(y) // size):
            chosen = order[i * size:(i + 1) * size]
            shift = torch.randint(-2, 3, (2,)).tolist()
            loss = torch.nn.functional.cross_entropy(model(torch.roll(x[chosen], shift, (2, 3))).logits, y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)
    model.eval()
    with torch.no_grad():
        logits = model(pixels(images[held])).logits
    print(f"held out: {(logits.argmax(1).numpy() == labels[held]).mean():.4f} of {held.sum()}")
    model.save_pretrained(HERE)
    stored = json.loads((HERE / "config.json").read_text())
    stored.pop("transformers_version", None)
    (HERE / "config.json").write_text(json.dumps(stored, indent=1) + "\n")
    (HERE / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 32, "width": 32},
        "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [MEAN],
        "image_std": [DEVIATION]}, indent=1) + "\n")
    (HERE / "test").mkdir(exist_ok=True)
    for label in range(10):
        first = images[held][labels[held] == label][0]
        Image.fromarray(first).save(HERE / "test" / f"{label}.png", optimize=True)
    save_file({"pixels": torch.from_numpy(images[held]).contiguous(),
               "labels": torch.from_numpy(labels[held]).to(torch.int32)}, HERE / "test.safetensors")


if __name__ == "__main__":
    main()
