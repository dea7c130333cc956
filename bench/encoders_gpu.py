#!/usr/bin/env python3
"""Encoders and vision models on one GPU beside PyTorch's own on the same GPU, in one run.

    bench/encoders_gpu.py --program build/gpu/one_shot_bench [--only bert|resnet] [--no-peer]

BERT-large and ResNet-50 with random weights on both sides. Ours: one_shot_bench, wall time of whole passes (host to host)
and, where a batch is given, of the device alone. Peer: transformers' BertModel with SDPA, torchvision's resnet50 in
channels-last, eager, inference mode, inputs on the device, median of synchronised runs. Lengths like SQuAD's: a lognormal
of median 153 cut to 40..384, mean about 165 (draw_lengths of bench/encoders.py). Needs torch, transformers, torchvision.
The floor of a row is its operations over the rate of an 8192-wide bf16 product measured here (twice that for fp8, half for
tf32, a sixth for fp32 made of bf16 parts); copies are measured too.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BERT = json.load(open(os.path.join(HERE, "shapes", "bert-large.json")))
SECONDS = 0.4  # of each measurement
LAYER = 12 * BERT["hidden_size"] ** 2 * BERT["num_hidden_layers"]  # weights of the layers' products


def draw_lengths(count):
    source = random.Random(1)
    return [max(40, min(384, int(source.lognormvariate(5.03, 0.38)))) for _ in range(count)]


def operations(lengths):
    """Of one pass over texts of these lengths."""
    attention = 4 * BERT["hidden_size"] * BERT["num_hidden_layers"]
    return sum(2 * LAYER * n + attention * n * n for n in lengths)


def ours(program, shape, precision, *options):
    command = [program, os.path.join(HERE, "shapes", shape + ".json"), precision, "--device", "cuda", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    if done.returncode != 0:
        print(f"  {shape} {precision}: {done.stderr.strip()[-300:]}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def time_torch(torch, step):
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    times = []
    while sum(times) < SECONDS or len(times) < 5:
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Peer:
    def __init__(self):
        import torch
        import transformers
        self.torch = torch
        torch.manual_seed(1)
        config = transformers.BertConfig(**{k: v for k, v in BERT.items() if k not in ("architectures", "model_type", "torch_dtype")})
        config._attn_implementation = "sdpa"
        self.bert = transformers.BertModel(config, add_pooling_layer=False).eval().cuda()

    def ceilings(self):
        torch = self.torch
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        x = torch.randn(1 << 30, device="cuda")
        y = torch.empty_like(x)
        return 2 * 8192 ** 3 / time_torch(torch, lambda: a @ b), 8 * x.numel() / time_torch(torch, lambda: y.copy_(x))

    def texts(self, dtype, batch, length, tf32=False):
        torch = self.torch
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        model = self.bert.to(dtype)
        ids = torch.randint(0, BERT["vocab_size"], (batch, length), device="cuda")
        with torch.inference_mode():
            return time_torch(torch, lambda: model(input_ids=ids).last_hidden_state.mean(1))

    def padded(self, dtype, lengths, batch):
        """Texts sorted by length, each batch padded to its longest."""
        torch = self.torch
        model = self.bert.to(dtype)
        parts = []
        ordered = sorted(lengths)
        for i in range(0, len(ordered), batch):
            part = ordered[i:i + batch]
            ids = torch.randint(0, BERT["vocab_size"], (len(part), part[-1]), device="cuda")
            mask = torch.zeros_like(ids)
            for row, n in enumerate(part):
                mask[row, :n] = 1
            parts.append((ids, mask))
        with torch.inference_mode():
            return time_torch(torch, lambda: [model(input_ids=i, attention_mask=m).last_hidden_state for i, m in parts])

    def images(self, dtype, batch):
        import torchvision
        torch = self.torch
        model = torchvision.models.resnet50().eval().cuda().to(dtype).to(memory_format=torch.channels_last)
        x = torch.randn(batch, 3, 224, 224, device="cuda", dtype=dtype).contiguous(memory_format=torch.channels_last)
        torch.backends.cudnn.benchmark = True
        with torch.inference_mode():
            return time_torch(torch, lambda: model(x))


class Table:
    def __init__(self, products):
        self.products = products
        print(f"{'row':42} {'ours/s':>9} {'device/s':>9} {'floor/s':>9} {'peer/s':>9} {'ratio':>6}  aim")

    def row(self, name, inputs, result, peer_s, flops, rate, aim):
        if result is None:
            return
        whole, alone = inputs / (result["ms"] * 1e-3), inputs / (result["device_ms"] * 1e-3) if result["device_ms"] else 0
        floor = inputs / (flops / (self.products * rate)) if self.products else 0
        peer = inputs / peer_s if peer_s else 0
        print(f"{name:42} {whole:9.0f} {alone:9.0f} {floor:9.0f} {peer:9.0f} {max(whole, alone) / peer if peer else 0:6.2f}  "
              f"{aim}  [{result['ms']:.3f} ms, device {result['device_ms']:.3f}, {result['launches']} kernels]", flush=True)


def bert_rows(table, program, peer):
    torch = peer.torch if peer else None
    half = peer and torch.float16
    for each, aim in ((384, "2,600/s"), (128, "8,000/s")):
        flops = operations([each] * 64)
        beside = peer.texts(half, 64, each) if peer else 0
        for precision, rate in (("fp16", 1), ("bf16", 1), ("fp8", 2)):
            result = ours(program, "bert-large", precision, "--batch", 64, "--each", each, "--tokens", 64 * each, "--seconds", SECONDS)
            table.row(f"BERT-large 64 x {each} {precision}", 64, result, beside, flops, rate, aim if rate == 1 else "")
    lengths = draw_lengths(2048)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as file:
        file.write("\n".join(map(str, lengths)))
    beside = peer.padded(half, lengths, 64) if peer else 0
    for precision, rate in (("fp16", 1), ("fp8", 2)):
        result = ours(program, "bert-large", precision, "--lengths", file.name, "--tokens", 32768, "--seconds", SECONDS)
        table.row(f"BERT-large SQuAD-like, offline, {precision}", len(lengths), result, beside, operations(lengths), rate,
                  "9,200/s")
    os.unlink(file.name)
    beside = peer.texts(half, 1, 128) if peer else 0
    for precision in ("fp16", "fp8"):
        result = ours(program, "bert-large", precision, "--batch", 1, "--each", 128, "--seconds", SECONDS)
        table.row(f"BERT-large 1 x 128 {precision}", 1, result, beside, operations([128]), 1, "1.0 ms")
    flops = operations([384] * 64)
    for precision, tf32, rate, aim in (("fp32", False, 1 / 6, "1.15x"), ("tf32", True, 1 / 2, "1.3x")):
        beside = peer.texts(torch.float32, 64, 384, tf32) if peer else 0
        result = ours(program, "bert-large", precision, "--batch", 64, "--each", 384, "--tokens", 64 * 384, "--seconds", SECONDS)
        table.row(f"BERT-large 64 x 384 {precision}", 64, result, beside, flops, rate, aim)


def resnet_rows(table, program, peer):
    torch = peer.torch if peer else None
    for batch, aim in ((256, "30,000/s"), (1, "3,000/s")):
        for precision in ("fp16", "bf16", "tf32", "fp32"):
            if precision != "fp16" and batch == 1:
                continue
            beside = 0
            if peer and precision != "bf16":
                torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
                beside = peer.images(torch.float16 if precision == "fp16" else torch.float32, batch)
            result = ours(program, "resnet-50", precision, "--batch", batch, "--seconds", SECONDS)
            rate = {"fp16": 1, "bf16": 1, "tf32": 1 / 2, "fp32": 1 / 6}[precision]
            table.row(f"ResNet-50 batch {batch} {precision}", batch, result, beside, 8.18e9 * batch, rate,
                      aim if precision == "fp16" else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--only", choices=["bert", "resnet"])
    parser.add_argument("--no-peer", action="store_true")
    arguments = parser.parse_args()
    peer = None if arguments.no_peer else Peer()
    products, copies = peer.ceilings() if peer else (0, 0)
    print(f"products {products * 1e-12:.0f} TFLOP/s in bf16, copies {copies * 1e-12:.2f} TB/s")
    table = Table(products)
    if arguments.only != "resnet":
        bert_rows(table, arguments.program, peer)
    if arguments.only != "bert":
        resnet_rows(table, arguments.program, peer)


if __name__ == "__main__":
    main()
