#!/usr/bin/env python3
"""A dense language model's decode and prompts on one GPU beside PyTorch on the same GPU, by turns in one run.

    bench/llm_gpu.py --program build/gpu/spillway [--config bench/shapes/qwen2.5-7b.json] [--rounds 2]

Random weights of the shape in bf16 on both sides. Ours: `spillway bench roofline`. Peer: the same layers in PyTorch with
qkv and gate-up as one product each, F.rms_norm, SDPA (decode: the query heads of a kv head as rows of one query), a decode
step as one CUDA graph over a contiguous cache, tokens taken by argmax. Prompts one after another, and each after a pause of
a second: under load the card's power limit lowers its clocks. Needs torch with CUDA.
"""
import argparse
import json
import os
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = 40


class Peer:
    def __init__(self, config):
        self.c = config
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.dim = config["hidden_size"] // self.heads
        self.epsilon = config["rms_norm_eps"]
        torch.manual_seed(1)
        hidden, wide, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
        qkv = (self.heads + 2 * self.kv_heads) * self.dim

        def weight(*shape):
            return (torch.randn(*shape, device="cuda") * 0.02).bfloat16()

        self.layers = [{"qkv": weight(qkv, hidden), "bias": weight(qkv), "out": weight(hidden, self.heads * self.dim),
                        "up": weight(2 * wide, hidden), "down": weight(hidden, wide), "norm": weight(hidden) + 1,
                        "norm2": weight(hidden) + 1} for _ in range(config["num_hidden_layers"])]
        self.embedding, self.head, self.norm = weight(vocab, hidden), weight(vocab, hidden), weight(hidden) + 1
        inverse = config["rope_theta"] ** (-torch.arange(0, self.dim, 2, device="cuda").float() / self.dim)
        angles = torch.arange(config["max_position_embeddings"], device="cuda").float()[:, None] * inverse
        self.cos, self.sin = (torch.cat([f(angles)] * 2, -1).bfloat16() for f in (torch.cos, torch.sin))

    def rope(self, x, begin):  # [batch, heads, tokens, dim]
        rows = slice(begin, begin + x.shape[2])
        a, b = x.chunk(2, -1)
        return x * self.cos[rows] + torch.cat([-b, a], -1) * self.sin[rows]

    def forward(self, ids, position, cache):
        """ids [batch, tokens]; cache: of each layer two tensors [batch, kv heads, context, dim], or None for a prompt."""
        batch, tokens = ids.shape
        x = F.embedding(ids, self.embedding)
        hidden = x.shape[-1:]
        for i, w in enumerate(self.layers):
            y = F.linear(F.rms_norm(x, hidden, w["norm"], self.epsilon), w["qkv"], w["bias"])
            q, k, v = y.view(batch, tokens, -1, self.dim).transpose(1, 2).split([self.heads, self.kv_heads, self.kv_heads], 1)
            q, k = self.rope(q, position), self.rope(k, position)
            if cache is None:
                o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            else:
                keys, values = cache[i]
                keys[:, :, position:position + 1], values[:, :, position:position + 1] = k, v
                q = q.reshape(batch, self.kv_heads, -1, self.dim)
                o = F.scaled_dot_product_attention(q, keys[:, :, :position + 1], values[:, :, :position + 1])
                o = o.reshape(batch, self.heads, 1, self.dim)
            x = x + F.linear(o.transpose(1, 2).reshape(batch, tokens, -1), w["out"])
            gate, up = F.linear(F.rms_norm(x, hidden, w["norm2"], self.epsilon), w["up"]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, w["down"])
        return F.linear(F.rms_norm(x[:, -1], hidden, self.norm, self.epsilon), self.head).argmax(-1)

    @torch.inference_mode()
    def decode(self, batch, context):
        """Tokens a second of steps at this context, replayed one behind the other."""
        shape = (batch, self.kv_heads, context + 1, self.dim)
        cache = [[torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2)] for _ in self.layers]
        ids = torch.randint(0, self.c["vocab_size"], (batch, 1), device="cuda")
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self.forward(ids, context, cache)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            ids.copy_(self.forward(ids, context, cache)[:, None])
        graph.replay()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(STEPS):
            graph.replay()
        torch.cuda.synchronize()
        return batch * STEPS / (time.perf_counter() - begin)

    @torch.inference_mode()
    def prompt(self, tokens, pause):
        ids = torch.randint(0, self.c["vocab_size"], (1, tokens), device="cuda")
        times = []
        for _ in range(6):
            time.sleep(pause)
            begin = time.perf_counter()
            self.forward(ids, 0, None)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        return tokens / statistics.median(times[1:])


def ours(program, config, batches, context, prompt):
    command = [program, "bench", "roofline", "--model-config", config, "--device", "cuda", "--precision", "bf16", "--json",
               "--sequences", ",".join(map(str, batches)), "--context", str(context), "--prefill", str(prompt)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    *decode, prefill = json.loads(done.stdout.strip().splitlines()[-1])["cases"]
    return [c["tokens_per_s"] for c in decode] + [prefill["tokens_per_s"], prompt / prefill["after_pause_s"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--config", default=os.path.join(HERE, "shapes", "qwen2.5-7b.json"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--prompt", type=int, default=4096)
    arguments = parser.parse_args()
    batches = [1, 32, 128]
    names = [f"decode, {b} sequences" for b in batches] + [f"prompt of {arguments.prompt}", "the same after a pause"]
    rows = [[] for _ in names]
    for _ in range(arguments.rounds):
        own = ours(arguments.program, arguments.config, batches, arguments.context, arguments.prompt)
        peer = Peer(json.load(open(arguments.config)))
        beside = [peer.decode(b, arguments.context) for b in batches]
        beside += [peer.prompt(arguments.prompt, 0), peer.prompt(arguments.prompt, 1)]
        del peer
        torch.cuda.empty_cache()
        for row, pair in zip(rows, zip(own, beside)):
            row.append(pair)
    print(f"{'tok/s at context ' + str(arguments.context):28} {'ours':>30} {'PyTorch':>30} ratio (median)")
    for name, row in zip(names, rows):
        a, b = zip(*row)
        print(f"{name:28} {' '.join(f'{v:.0f}' for v in a):>30} {' '.join(f'{v:.0f}' for v in b):>30} "
              f"{statistics.median(x / y for x, y in row):.2f}")


if __name__ == "__main__":
    main()
