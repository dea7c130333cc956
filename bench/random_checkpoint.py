#!/usr/bin/env python3
"""A checkpoint folder of a real shape with random weights: random_checkpoint.py CONFIG.json FOLDER [--tokenizer FOLDER]

For measuring what needs files: starts, packing, serving of encoders. Qwen2 and BERT shapes. Weights are bf16 (Qwen2) or
f16 (BERT), cut out of one block of 128 Mi normal values, so writing is bound by the disk. Shards of at most 4 GiB.
"""
import argparse
import json
import pathlib
import shutil
import struct

import numpy

SHARD_BYTES = 4 << 30


def qwen2_tensors(c):
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    width = hidden // c["num_attention_heads"]
    query, key = c["num_attention_heads"] * width, c["num_key_value_heads"] * width
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (hidden,)
        for name, rows in (("q", query), ("k", key), ("v", key)):
            yield f"{layer}self_attn.{name}_proj.weight", (rows, hidden)
            yield f"{layer}self_attn.{name}_proj.bias", (rows,)
        yield layer + "self_attn.o_proj.weight", (hidden, query)
        yield layer + "post_attention_layernorm.weight", (hidden,)
        yield layer + "mlp.gate_proj.weight", (inner, hidden)
        yield layer + "mlp.up_proj.weight", (inner, hidden)
        yield layer + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not c.get("tie_word_embeddings"):
        yield "lm_head.weight", (c["vocab_size"], hidden)


def bert_tensors(c):
    hidden, inner = c["hidden_size"], c["intermediate_size"]

    def linear(name, rows, columns):
        yield name + ".weight", (rows, columns)
        yield name + ".bias", (rows,)

    def norm(name):
        yield name + ".weight", (hidden,)
        yield name + ".bias", (hidden,)

    for name, rows in (
        ("word_embeddings", c["vocab_size"]),
        ("position_embeddings", c["max_position_embeddings"]),
        ("token_type_embeddings", c["type_vocab_size"]),
    ):
        yield f"embeddings.{name}.weight", (rows, hidden)
    yield from norm("embeddings.LayerNorm")
    for i in range(c["num_hidden_layers"]):
        layer = f"encoder.layer.{i}."
        for name in ("query", "key", "value"):
            yield from linear(f"{layer}attention.self.{name}", hidden, hidden)
        yield from linear(layer + "attention.output.dense", hidden, hidden)
        yield from norm(layer + "attention.output.LayerNorm")
        yield from linear(layer + "intermediate.dense", inner, hidden)
        yield from linear(layer + "output.dense", hidden, inner)
        yield from norm(layer + "output.LayerNorm")
    yield from linear("pooler.dense", hidden, hidden)


def random_block(dtype):
    values = numpy.random.default_rng(1).standard_normal(1 << 24, dtype=numpy.float32) * 0.02
    block = values.astype(numpy.float16) if dtype == "F16" else (values.view(numpy.uint32) >> 16).astype(numpy.uint16)
    return memoryview(numpy.tile(block, 8)).cast("B")


def ones(dtype, count):
    return memoryview(numpy.full(count, 0x3C00 if dtype == "F16" else 0x3F80, numpy.uint16)).cast("B")


def write_shard(path, dtype, tensors, block):
    header, at = {}, 0
    for name, shape in tensors:
        count = 2 * int(numpy.prod(shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for index, (name, shape) in enumerate(tensors):
            count = 2 * int(numpy.prod(shape))
            if "norm" in name.lower() and name.endswith("weight"):
                file.write(ones(dtype, count // 2))
                continue
            offset = index * 8192 % (len(block) // 2)
            while count > 0:
                part = block[offset : offset + min(count, len(block) - offset)]
                file.write(part)
                count, offset = count - len(part), 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path, help="its files are copied beside the weights")
    args = parser.parse_args()
    config = json.loads(args.config.read_text())
    bert = config["model_type"] == "bert"
    dtype = "F16" if bert else "BF16"
    shards, size = [[]], 0
    for tensor in bert_tensors(config) if bert else qwen2_tensors(config):
        size += 2 * int(numpy.prod(tensor[1]))
        if size > SHARD_BYTES and shards[-1]:
            shards.append([])
            size = 2 * int(numpy.prod(tensor[1]))
        shards[-1].append(tensor)
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.tokenizer:
        shutil.copytree(args.tokenizer, args.folder, dirs_exist_ok=True)
    (args.folder / "config.json").write_text(json.dumps(config))
    block = random_block(dtype)
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for name, tensors in zip(names, shards):
        write_shard(args.folder / name, dtype, tensors, block)
    if len(shards) > 1:
        index = {tensor[0]: name for name, tensors in zip(names, shards) for tensor in tensors}
        (args.folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


if __name__ == "__main__":
    main()
