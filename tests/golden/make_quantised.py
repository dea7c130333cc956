"""Makes FAMILY/expected_PRECISION.safetensors of llama, qwen2 and qwen3: the logits of transformers' float32 model whose
linear layers' weights, and in fp8 inputs, were rounded as --precision does on a GPU, so that what is left to the engine
there is the rounding of bf16.

    python3 make_quantised.py     (needs torch with float8_e4m3fn, transformers and safetensors)

All from values rounded to bf16: next to the edge of a step that moves a weight by the whole step.
fp8: weights in blocks of 128 x 128, inputs in groups of 128, e4m3 by the largest magnitude / 448; the head stays as it is.
int8, int4: weights in groups of 128 inputs, round(w / scale), scale = f16(largest magnitude / 127 or 7); the head int8.
"""
import os

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
GROUP = 128


def bf16(x):
    return x.bfloat16().float()


def e4m3(x, scale):
    return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


def tiles(x, rows):
    for i in range(0, x.shape[0], rows):
        for j in range(0, x.shape[1], GROUP):
            yield slice(i, i + rows), slice(j, j + GROUP)


def fp8_weight(w):
    out = torch.empty_like(w)
    for at in tiles(w, GROUP):
        out[at] = e4m3(w[at], w[at].abs().max().clamp(min=1e-12) / 448)
    return out


def fp8_input(x):
    rows = bf16(x).reshape(-1, x.shape[-1])
    out = torch.empty_like(rows)
    for at in tiles(rows, rows.shape[0]):
        out[at] = e4m3(rows[at], rows[at].abs().amax(1, keepdim=True).clamp(min=1e-12) / 448)
    return out.reshape(x.shape)


def integers(w, top):
    out = torch.empty_like(w)
    for at in tiles(w, w.shape[0]):
        scale = (w[at].abs().amax(1, keepdim=True) / top).half().float().clamp(min=1e-12)
        out[at] = (w[at] / scale).round().clamp(-top, top) * scale
    return out


def stacks(model):
    """Linear layers that the engine packs as one weight; those with widths it does not quantise are left out."""
    named = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    for name, layer in named.items():
        if layer.in_features % GROUP != 0 or name.endswith(("k_proj", "v_proj")):
            continue
        stack = [layer]
        if name.endswith("q_proj"):
            stack += [named[name.replace("q_proj", other)] for other in ("k_proj", "v_proj")]
        yield name == "lm_head", stack


def quantise(model, precision):
    for head, stack in stacks(model):
        rows = torch.cat([bf16(layer.weight.data) for layer in stack])
        if precision == "fp8":
            if head:
                continue
            rows = fp8_weight(rows)
        elif rows.shape[0] % 8 == 0:
            rows = integers(rows, 7 if precision == "int4" and not head else 127)
        for layer, weight in zip(stack, rows.split([layer.out_features for layer in stack])):
            layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
            if precision == "fp8":
                layer.register_forward_pre_hook(lambda _, inputs: (fp8_input(inputs[0]),))


for family in ("llama", "qwen2", "qwen3"):
    folder = os.path.join(HERE, family)
    ids = load_file(os.path.join(folder, "expected.safetensors"))["input_ids"]
    for precision in ("fp8", "int8", "int4"):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval().float()
        quantise(model, precision)
        with torch.inference_mode():
            logits = model(input_ids=ids.long()).logits.contiguous()
        save_file({"input_ids": ids, "logits": logits}, os.path.join(folder, f"expected_{precision}.safetensors"))
