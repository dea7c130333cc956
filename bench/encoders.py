"""Encoders against ONNX Runtime, OpenVINO and CTranslate2 on the CPU.

    python3 bench/encoders.py [--bench build/release/one_shot_bench] [--shapes minilm,base] [--threads 1] [--texts 24]

Needs numpy, torch, transformers, onnx, onnxruntime, openvino and ctranslate2 beside a built one_shot_bench. Random
weights of MiniLM-L6-H384 and BERT-base on every side. Lengths are drawn to look like SQuAD's: a lognormal of median 153
cut to 40..384, mean about 165. Every figure is texts a second of processor time (user and system, all threads), so that
neighbours on the machine count little. A peer may pad as it likes: each is tried with batches of 1 (nothing padded) and
of 8 texts sorted by length, and its better figure counts. Spillway takes the texts in the order drawn, without padding.
Rows where a peer has no such precision are left out. Peers and Spillway take turns, and the best of --rounds counts.
"""
import argparse
import json
import os
import pathlib
import random
import subprocess
import tempfile
import time

SHAPES = {"minilm": dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
          "base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)}


def draw_lengths(count):
    source = random.Random(1)
    return [max(40, min(384, int(source.lognormvariate(5.03, 0.38)))) for _ in range(count)]


def time_of(step, batches):
    start = time.process_time()
    for batch in batches:
        step(batch)
    return time.process_time() - start


def batches_of(texts, size):
    ordered = sorted(texts, key=len) if size > 1 else texts
    return [ordered[i:i + size] for i in range(0, len(ordered), size)]


def padded(batch):
    import numpy
    longest = max(len(t) for t in batch)
    ids = numpy.zeros((len(batch), longest), numpy.int64)
    mask = numpy.zeros_like(ids)
    for row, text in enumerate(batch):
        ids[row, :len(text)] = text
        mask[row, :len(text)] = 1
    return ids, mask


def export(folder, shape):
    import torch
    import transformers as tf
    torch.manual_seed(1)
    config = tf.BertConfig(vocab_size=30522, attn_implementation="eager", **SHAPES[shape])
    model = tf.BertModel(config, add_pooling_layer=False).eval()

    class Hidden(torch.nn.Module):
        def forward(self, ids, mask):
            return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
    hidden = Hidden()
    hidden.bert = model
    model.save_pretrained(folder)
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, "position_embedding_type": "absolute"}))
    vocabulary = {f"t{i}": i for i in range(30522)}
    for i, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]):
        vocabulary.pop(f"t{i}")
        vocabulary[name] = i
    with open(folder / "vocab.txt", "w") as out:
        out.write("\n".join(sorted(vocabulary, key=vocabulary.get)))
    tf.BertTokenizer(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    ids = torch.ones(2, 8, dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(hidden, (ids, torch.ones_like(ids)), str(folder / "model.onnx"), input_names=names,
                      output_names=["hidden"], dynamic_axes={n: {0: "b", 1: "s"} for n in names + ["hidden"]},
                      opset_version=17, dynamo=False)


def onnxruntime_steps(folder, threads):
    import onnxruntime as ort
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    def session(path):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        made = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def step(batch):
            ids, mask = padded(batch)
            made.run(None, {"input_ids": ids, "attention_mask": mask})
        return step
    yield "fp32", session(folder / "model.onnx")
    quantize_dynamic(str(folder / "model.onnx"), str(folder / "int8.onnx"), weight_type=QuantType.QInt8, per_channel=True)
    yield "int8", session(folder / "int8.onnx")


def openvino_steps(folder, threads):
    import openvino as ov
    core = ov.Core()

    def compiled(path, **properties):
        model = core.compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, **properties})
        request = model.create_infer_request()

        def step(batch):
            ids, mask = padded(batch)
            request.infer({"input_ids": ids, "attention_mask": mask})
        return step
    yield "fp32", compiled(folder / "model.onnx", INFERENCE_PRECISION_HINT="f32")
    yield "bf16", compiled(folder / "model.onnx", INFERENCE_PRECISION_HINT="bf16")


def ctranslate2_steps(folder, threads):
    import ctranslate2
    import numpy
    out = folder / "ct2"
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(out), force=True)
    for precision, kind in (("fp32", "float32"), ("bf16", "bfloat16"), ("int8", "int8")):
        try:
            encoder = ctranslate2.Encoder(str(out), device="cpu", compute_type=kind, intra_threads=threads, inter_threads=1)
        except ValueError:
            continue

        def step(batch, encoder=encoder):
            numpy.asarray(encoder.forward_batch([list(map(int, t)) for t in batch]).last_hidden_state)
        yield precision, step


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", default="build/release/one_shot_bench")
    parser.add_argument("--shapes", default="minilm,base")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--texts", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", default="onnxruntime,openvino,ctranslate2")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    lengths = draw_lengths(args.texts)
    source = random.Random(2)
    texts = [[source.randrange(1000, 30000) for _ in range(n)] for n in lengths]
    print(f"{len(texts)} texts, mean length {sum(lengths) / len(lengths):.0f}, {args.threads} threads", flush=True)
    peers = {"onnxruntime": onnxruntime_steps, "openvino": openvino_steps, "ctranslate2": ctranslate2_steps}
    for shape in args.shapes.split(","):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            export(folder, shape)
            (folder / "lengths").write_text("\n".join(map(str, lengths)))
            steps = [(peer, precision, step) for peer in args.only.split(",")
                     for precision, step in peers[peer](folder, args.threads)]
            compare(args, shape, folder, texts, steps)


def compare(args, shape, folder, texts, steps):
    """Rounds of everybody in turn, so that all meet the same machine; the best round of each counts."""
    best = {}

    def keep(precision, name, figure):
        best[precision, name] = max(best.get((precision, name), 0), figure)
    for round_ in range(args.rounds + 1):
        for precision in ("fp32", "bf16", "int8"):
            for name, of, step in steps:
                if of != precision:
                    continue
                for size in (1, 8):
                    took = time_of(step, batches_of(texts, size))
                    if round_ > 0:  # the first warms up
                        keep(precision, name, len(texts) / took)
            out = subprocess.run([args.bench, str(folder), precision, "--threads", str(args.threads), "--lengths",
                                  str(folder / "lengths"), "--seconds", "0.1"],
                                 check=True, capture_output=True, text=True).stdout
            keep(precision, "spillway", json.loads(out)["texts_per_s"])
    for precision in ("fp32", "bf16", "int8"):
        rows = {name: figure for (of, name), figure in best.items() if of == precision}
        ours = rows.pop("spillway")
        for name, figure in rows.items():
            print(f"{shape:7} {precision} {name:12} {figure:8.1f} texts/s")
        ratio = f"{ours / max(rows.values()):.2f} times the best peer" if rows else ""
        print(f"{shape:7} {precision} {'spillway':12} {ours:8.1f} texts/s {ratio}", flush=True)


if __name__ == "__main__":
    main()
