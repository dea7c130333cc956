"""Writes a Hugging Face folder of random weights for one of bench/shapes/*.json, for timing: make_checkpoint.py SHAPE.json OUT_DIR

bf16; matrices as FP8 blocks where the config says so. config.json and one model.safetensors, no tokenizer. Weights are
pieces of one random block, as in make_gguf.py.
"""
import json
import os
import struct
import sys

import numpy as np

BLOCK = 1 << 22
BYTES = {"BF16": 2, "F8_E4M3": 1, "F32": 4}


class Writer:
    """Names and shapes first, then the bytes: the header of a safetensors file comes before its data."""

    def __init__(self, config):
        rng = np.random.default_rng(7)
        normal = (rng.standard_normal(BLOCK) * 0.02).astype(np.float32)
        near_one = (1 + 0.02 * rng.standard_normal(BLOCK)).astype(np.float32)
        fp8 = rng.integers(0, 2, BLOCK, dtype=np.uint8) << 7 | rng.integers(32, 64, BLOCK, dtype=np.uint8)
        self.tiles = {
            "BF16": (normal.view(np.uint32) >> 16).astype(np.uint16).tobytes(),
            "norm": (near_one.view(np.uint32) >> 16).astype(np.uint16).tobytes(),
            "F8_E4M3": fp8.tobytes(),
            "scale": np.full(BLOCK, 0.03, np.float32).tobytes(),
            "F32": normal.tobytes(),
        }
        quantised = config.get("quantization_config")
        self.block = quantised["weight_block_size"] if quantised else None
        self.tensors = []  # name, dtype, shape, tile

    def add(self, name, shape, dtype="BF16", tile=None):
        self.tensors.append((name, dtype, shape, tile or dtype))

    def norm(self, name, size):
        self.add(name + ".weight", [size], tile="norm")

    def matrix(self, name, rows, columns):
        if not self.block:
            return self.add(name + ".weight", [rows, columns])
        self.add(name + ".weight", [rows, columns], "F8_E4M3")
        blocks = [-(-rows // self.block[0]), -(-columns // self.block[1])]
        self.add(name + ".weight_scale_inv", blocks, "F32", "scale")

    def write(self, path):
        header, at = {}, 0
        for name, dtype, shape, _ in self.tensors:
            size = int(np.prod(shape)) * BYTES[dtype]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for i, (name, _, _, tile) in enumerate(self.tensors):
                start, end = header[name]["data_offsets"]
                self.fill(f, self.tiles[tile], end - start, (i * 4099 * 4) % BLOCK)

    @staticmethod
    def fill(f, tile, size, start):
        while size > 0:
            piece = tile[start:start + size]
            f.write(piece)
            size -= len(piece)
            start = 0


def feed_forward(w, name, hidden, inner):
    w.matrix(name + ".gate_proj", inner, hidden)
    w.matrix(name + ".up_proj", inner, hidden)
    w.matrix(name + ".down_proj", hidden, inner)


def qwen2_layer(w, c, b, _):
    h, heads, kv = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
    d = h // heads
    for name, rows in (("q", heads * d), ("k", kv * d), ("v", kv * d)):
        w.matrix(f"{b}.self_attn.{name}_proj", rows, h)
        w.add(f"{b}.self_attn.{name}_proj.bias", [rows])
    w.matrix(f"{b}.self_attn.o_proj", h, heads * d)
    feed_forward(w, f"{b}.mlp", h, c["intermediate_size"])


def deepseek_layer(w, c, b, i):
    h, heads, lora = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"]
    nope, rope, v = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    a = f"{b}.self_attn."
    w.matrix(a + "q_a_proj", c["q_lora_rank"], h)
    w.norm(a + "q_a_layernorm", c["q_lora_rank"])
    w.matrix(a + "q_b_proj", heads * (nope + rope), c["q_lora_rank"])
    w.matrix(a + "kv_a_proj_with_mqa", lora + rope, h)
    w.norm(a + "kv_a_layernorm", lora)
    w.matrix(a + "kv_b_proj", heads * (nope + v), lora)
    w.matrix(a + "o_proj", h, heads * v)
    if i < c["first_k_dense_replace"]:
        return feed_forward(w, f"{b}.mlp", h, c["intermediate_size"])
    w.add(f"{b}.mlp.gate.weight", [c["n_routed_experts"], h])
    w.add(f"{b}.mlp.gate.e_score_correction_bias", [c["n_routed_experts"]], "F32")
    for expert in range(c["n_routed_experts"]):
        feed_forward(w, f"{b}.mlp.experts.{expert}", h, c["moe_intermediate_size"])
    feed_forward(w, f"{b}.mlp.shared_experts", h, c["moe_intermediate_size"] * c["n_shared_experts"])


def main():
    shape, out = sys.argv[1:3]
    with open(shape) as f:
        c = json.load(f)
    layer = {"qwen2": qwen2_layer, "deepseek_v3": deepseek_layer}[c["model_type"]]
    w = Writer(c)
    w.add("model.embed_tokens.weight", [c["vocab_size"], c["hidden_size"]])
    for i in range(c["num_hidden_layers"]):
        b = f"model.layers.{i}"
        w.norm(b + ".input_layernorm", c["hidden_size"])
        w.norm(b + ".post_attention_layernorm", c["hidden_size"])
        layer(w, c, b, i)
    w.norm("model.norm", c["hidden_size"])
    if not c["tie_word_embeddings"]:
        w.add("lm_head.weight", [c["vocab_size"], c["hidden_size"]])
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(c, f)
    w.write(os.path.join(out, "model.safetensors"))


if __name__ == "__main__":
    main()
