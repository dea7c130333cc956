"""Writes a GGUF of random weights for one of bench/shapes/*.json, for timing llama.cpp: make_gguf.py SHAPE.json bf16|q8_0 OUT.gguf

Weights are tiles of one random block (drawing billions of normals would take longer than the measurement). The
vocabulary is synthetic: byte tokens and random merges, as many as the shape has.
"""
import json
import random
import sys

import gguf
import numpy as np

BLOCK = 1 << 22
GGML = {"bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}


class Weights:
    """Random tensors in the wanted type; norms, biases and the router stay float32 as llama.cpp keeps them."""

    def __init__(self, kind):
        self.kind = kind
        self.rng = np.random.default_rng(7)
        values = (self.rng.standard_normal(BLOCK) * 0.02).astype(np.float32)
        if kind == "bf16":
            self.tile = (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        else:
            self.tile = gguf.quants.quantize(values.reshape(-1, 4096), GGML[kind]).reshape(-1)

    def matrix(self, *shape):
        count = int(np.prod(shape))
        row = shape[-1] * 2 if self.kind == "bf16" else shape[-1] // 32 * 34
        size = count // shape[-1] * row
        unit = 2 if self.kind == "bf16" else 34
        start = int(self.rng.integers(0, BLOCK // 64)) * unit
        return np.resize(np.roll(self.tile, -start), size).reshape(*shape[:-1], row)

    def vector(self, size, around=1.0):
        return (around + 0.02 * self.rng.standard_normal(size)).astype(np.float32)


def vocabulary(writer, size):
    alphabet = [chr(c) for c in list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))]
    alphabet += [chr(256 + i) for i in range(256 - len(alphabet))]
    draw = random.Random(5)
    tokens, merges, seen = list(alphabet), [], set(alphabet)
    while len(tokens) < size:
        left, right = draw.choice(tokens), draw.choice(alphabet)
        if left + right not in seen and len(left) < 12:
            seen.add(left + right)
            tokens.append(left + right)
            merges.append(f"{left} {right}")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * size)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(0)


def common(writer, c):
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_rope_freq_base(c["rope_theta"])
    writer.add_vocab_size(c["vocab_size"])


def qwen2(writer, c, w, put):
    h, heads, kv = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
    d = h // heads
    writer.add_head_count_kv(kv)
    for i in range(c["num_hidden_layers"]):
        b = f"blk.{i}."
        put(b + "attn_norm.weight", w.vector(h))
        for name, rows in (("q", heads * d), ("k", kv * d), ("v", kv * d)):
            put(b + f"attn_{name}.weight", w.matrix(rows, h))
            put(b + f"attn_{name}.bias", w.vector(rows, 0.0))
        put(b + "attn_output.weight", w.matrix(h, heads * d))
        put(b + "ffn_norm.weight", w.vector(h))
        for name, rows, cols in (("gate", c["intermediate_size"], h), ("up", c["intermediate_size"], h), ("down", h, c["intermediate_size"])):
            put(b + f"ffn_{name}.weight", w.matrix(rows, cols))


def deepseek2(writer, c, w, put):
    h, heads = c["hidden_size"], c["num_attention_heads"]
    nope, rope, v, lora = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"], c["kv_lora_rank"]
    writer.add_head_count_kv(1)
    writer.add_q_lora_rank(c["q_lora_rank"])
    writer.add_kv_lora_rank(lora)
    writer.add_key_length(lora + rope)
    writer.add_value_length(lora)
    writer.add_key_length_mla(nope + rope)
    writer.add_value_length_mla(v)
    writer.add_rope_dimension_count(rope)
    writer.add_leading_dense_block_count(c["first_k_dense_replace"])
    writer.add_expert_feed_forward_length(c["moe_intermediate_size"])
    writer.add_expert_count(c["n_routed_experts"])
    writer.add_expert_used_count(c["num_experts_per_tok"])
    writer.add_expert_shared_count(c["n_shared_experts"])
    writer.add_expert_weights_scale(c["routed_scaling_factor"])
    writer.add_expert_weights_norm(c["norm_topk_prob"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    for i in range(c["num_hidden_layers"]):
        b = f"blk.{i}."
        put(b + "attn_norm.weight", w.vector(h))
        put(b + "attn_q_a.weight", w.matrix(c["q_lora_rank"], h))
        put(b + "attn_q_a_norm.weight", w.vector(c["q_lora_rank"]))
        put(b + "attn_q_b.weight", w.matrix(heads * (nope + rope), c["q_lora_rank"]))
        put(b + "attn_kv_a_mqa.weight", w.matrix(lora + rope, h))
        put(b + "attn_kv_a_norm.weight", w.vector(lora))
        put(b + "attn_k_b.weight", w.matrix(heads, lora, nope))
        put(b + "attn_v_b.weight", w.matrix(heads, v, lora))
        put(b + "attn_output.weight", w.matrix(h, heads * v))
        put(b + "ffn_norm.weight", w.vector(h))
        if i < c["first_k_dense_replace"]:
            feed_forward(put, w, b, "", (), h, c["intermediate_size"])
            continue
        put(b + "ffn_gate_inp.weight", w.vector((c["n_routed_experts"], h), 0.0))
        put(b + "exp_probs_b.bias", w.vector(c["n_routed_experts"], 0.0))
        feed_forward(put, w, b, "_exps", (c["n_routed_experts"],), h, c["moe_intermediate_size"])
        feed_forward(put, w, b, "_shexp", (), h, c["moe_intermediate_size"] * c["n_shared_experts"])


def feed_forward(put, w, block, suffix, lead, hidden, inner):
    put(f"{block}ffn_gate{suffix}.weight", w.matrix(*lead, inner, hidden))
    put(f"{block}ffn_up{suffix}.weight", w.matrix(*lead, inner, hidden))
    put(f"{block}ffn_down{suffix}.weight", w.matrix(*lead, hidden, inner))


def main():
    shape, kind, out = sys.argv[1:4]
    with open(shape) as f:
        c = json.load(f)
    arch, build = {"qwen2": ("qwen2", qwen2), "deepseek_v3": ("deepseek2", deepseek2)}[c["model_type"]]
    writer = gguf.GGUFWriter(out, arch, use_temp_file=False)
    w = Weights(kind)

    def put(name, data):
        raw = None if data.dtype == np.float32 else GGML[kind]
        writer.add_tensor(name, data, raw_dtype=raw)

    common(writer, c)
    vocabulary(writer, c["vocab_size"])
    put("token_embd.weight", w.matrix(c["vocab_size"], c["hidden_size"]))
    put("output_norm.weight", w.vector(c["hidden_size"]))
    if not c["tie_word_embeddings"]:
        put("output.weight", w.matrix(c["vocab_size"], c["hidden_size"]))
    build(writer, c, w, put)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
