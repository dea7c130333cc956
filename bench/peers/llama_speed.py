"""Times llama.cpp on one GGUF through its C API: llama_speed.py FILE.gguf [--threads 2] [--prompt 512] [--decode 48] [--repeat 3]

Prints one JSON line: prefill and decode in tokens/s (best of the repeats), seconds from process start to the first
token of a 16-token prompt, and resident memory.
"""
import argparse
import ctypes
import json
import os
import time

import llama_cpp
import numpy as np


def process_age():
    ticks = os.sysconf("SC_CLK_TCK")
    with open("/proc/self/stat") as f:
        started = int(f.read().rsplit(")", 1)[1].split()[19]) / ticks
    with open("/proc/uptime") as f:
        return float(f.read().split()[0]) - started


def resident_bytes():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Session:
    def __init__(self, path, threads, context):
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        assert self.model, f"llama.cpp could not load {path}"
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = context
        options.n_batch = options.n_ubatch = 512
        options.n_threads = options.n_threads_batch = threads
        options.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        assert self.context, "llama.cpp could not make a context"
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)
        self.rng = np.random.default_rng(3)

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def step(self, count, position):
        """Decodes count random tokens from position on; logits for the last."""
        tokens = self.rng.integers(2, self.vocab_size, count)
        self.batch.n_tokens = count
        for i in range(count):
            self.batch.token[i] = int(tokens[i])
            self.batch.pos[i] = position + i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = i == count - 1
        assert llama_cpp.llama_decode(self.context, self.batch) == 0
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (self.vocab_size,)).argmax())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=48)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))

    imported = process_age()  # Python's own start is not llama.cpp's; it is taken off below
    session = Session(args.path, args.threads, args.prompt + args.decode + 64)
    session.step(16, 0)
    first_token_s = process_age() - imported

    prefill = decode = 0.0
    for _ in range(args.repeat):
        session.clear()
        start = time.perf_counter()
        session.step(args.prompt, 0)
        prefill = max(prefill, args.prompt / (time.perf_counter() - start))
        start = time.perf_counter()
        for i in range(args.decode):
            session.step(1, args.prompt + i)
        decode = max(decode, args.decode / (time.perf_counter() - start))
    print(json.dumps({"prefill_tok_s": round(prefill, 2), "decode_tok_s": round(decode, 2), "first_token_s": round(first_token_s, 3),
                      "resident_mib": round(resident_bytes() / 2**20)}))


if __name__ == "__main__":
    main()
