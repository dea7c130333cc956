"""Makes the encoder goldens: tiny checkpoints with random weights and what the reference library gives for them.

    python3 make_encoders.py [name ...]     (needs torch and transformers; writes the folders beside this file)
"""
import json
import pathlib
import re
import sys

import torch
import transformers as tf
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
VOCABULARY, LENGTHS = 96, (23, 9, 48)
SIZES = dict(vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80,
             max_position_embeddings=64)


def draw(model, seed):
    """Weights large enough that a wrong order, scale or bias shows at once."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        scale = 0.25 if parameter.dim() > 1 else 0.3
        values = torch.randn(parameter.shape, generator=generator) * scale
        parameter.data = values + 1 if "norm" in name.lower() and name.endswith("weight") else values
    return model.eval()


def texts(pad, vocabulary=VOCABULARY, types=2):
    generator = torch.Generator().manual_seed(7)
    ids = torch.full((len(LENGTHS), max(LENGTHS)), pad)
    mask = torch.zeros_like(ids)
    kinds = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.randint(4, vocabulary, (length,), generator=generator)
        mask[row, :length] = 1
        if types > 1:
            kinds[row, length // 2:length] = 1
    return ids, mask, kinds


def save(name, model, tensors):
    folder = HERE / name
    model.save_pretrained(folder)
    for extra in ("generation_config.json",):
        (folder / extra).unlink(missing_ok=True)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config.pop("transformers_version", None)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def encoder(name, model, pad=0, types=2):
    ids, mask, kinds = texts(pad, types=types)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if types > 1:
        inputs["token_type_ids"] = kinds
    with torch.no_grad():
        out = model(**inputs)
    stored = {k: v.to(torch.int32) for k, v in inputs.items()}
    if hasattr(out, "last_hidden_state"):
        hidden = out.last_hidden_state * mask[..., None]
        stored["last_hidden_state"] = hidden
        stored["mean_pooled_l2"] = torch.nn.functional.normalize(hidden.sum(1) / mask.sum(1, keepdim=True), dim=1)
    elif out.logits.dim() == 3:
        weights = torch.log1p(torch.relu(out.logits)) * mask[..., None]
        stored["sparse"] = weights.max(dim=1).values
    else:
        stored["logits"] = out.logits
    save(name, model, stored)


def distilbert(kind, **extra):
    return kind(tf.DistilBertConfig(vocab_size=VOCABULARY, dim=48, n_layers=3, n_heads=4, hidden_dim=80,
                                    max_position_embeddings=64, **extra))


def modernbert(kind, **extra):
    return kind(tf.ModernBertConfig(**SIZES, local_attention=8,
                                    pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2,
                                    attn_implementation="eager", reference_compile=False, **extra))


RECIPES = {
    "distilbert": lambda: encoder("distilbert", draw(distilbert(tf.DistilBertModel), 1), types=1),
    "distilbert_classifier": lambda: encoder(
        "distilbert_classifier", draw(distilbert(tf.DistilBertForSequenceClassification, num_labels=2), 2), types=1),
    "distilbert_sparse": lambda: encoder("distilbert_sparse", draw(distilbert(tf.DistilBertForMaskedLM), 3), types=1),
    "bert_sparse": lambda: encoder("bert_sparse", draw(tf.BertForMaskedLM(tf.BertConfig(**SIZES)), 4)),
    "roberta": lambda: encoder(
        "roberta", draw(tf.RobertaModel(tf.RobertaConfig(**SIZES, type_vocab_size=1, pad_token_id=1),
                                        add_pooling_layer=False), 5), pad=1, types=1),
    "xlm_roberta_reranker": lambda: encoder(
        "xlm_roberta_reranker", draw(tf.XLMRobertaForSequenceClassification(
            tf.XLMRobertaConfig(**SIZES, type_vocab_size=1, pad_token_id=1, num_labels=1)), 6), pad=1, types=1),
    "roberta_sparse": lambda: encoder(
        "roberta_sparse", draw(tf.RobertaForMaskedLM(tf.RobertaConfig(**SIZES, type_vocab_size=1, pad_token_id=1)), 7),
        pad=1, types=1),
    "modernbert": lambda: encoder("modernbert", draw(modernbert(tf.ModernBertModel), 8), types=1),
    "modernbert_classifier": lambda: encoder(
        "modernbert_classifier", draw(modernbert(tf.ModernBertForSequenceClassification, num_labels=3,
                                                 classifier_pooling="mean"), 9), types=1),
    "modernbert_sparse": lambda: encoder("modernbert_sparse", draw(modernbert(tf.ModernBertForMaskedLM), 10), types=1),
    "nomic_bert": lambda: encoder("nomic_bert", draw(tf.NomicBertModel(
        tf.NomicBertConfig(**{**SIZES, "num_hidden_layers": 2})), 11)),
    "nomic_bert_classifier": lambda: encoder("nomic_bert_classifier", draw(tf.NomicBertForSequenceClassification(
        tf.NomicBertConfig(**{**SIZES, "num_hidden_layers": 1}, num_labels=3)), 12)),
    "nomic_bert_sparse": lambda: encoder("nomic_bert_sparse", draw(tf.NomicBertForMaskedLM(
        tf.NomicBertConfig(**{**SIZES, "num_hidden_layers": 1})), 13)),
    "sentence_dense": lambda: sentence_dense(),
}


def sentence_dense():
    """As sentence-transformers publishes: mean, 2_Dense with tanh, normalised."""
    from sentence_transformers.sentence_transformer import modules
    name = "sentence_dense"
    model = draw(tf.BertModel(tf.BertConfig(**{**SIZES, "num_hidden_layers": 1}), add_pooling_layer=False), 14)
    encoder(name, model)
    pooling = modules.Pooling(48, pooling_mode="mean")
    dense = draw(modules.Dense(48, 20, activation_function=torch.nn.Tanh()), 15)
    ids, mask, kinds = texts(0)
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask, token_type_ids=kinds).last_hidden_state
        features = dense(pooling({"token_embeddings": hidden, "attention_mask": mask}))
        embedding = torch.nn.functional.normalize(features["sentence_embedding"], dim=1)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
    save_file({"embedding": embedding, **{k: v.to(torch.int32) for k, v in inputs.items()}},
              HERE / name / "expected.safetensors")
    listed = []
    for index, (folder, kind, module) in enumerate((("", "Transformer", None), ("1_Pooling", "Pooling", pooling),
                                                    ("2_Dense", "Dense", dense), ("3_Normalize", "Normalize", None))):
        listed.append({"idx": index, "name": str(index), "path": folder, "type": f"sentence_transformers.models.{kind}"})
        if module is not None:
            (HERE / name / folder).mkdir(exist_ok=True)
            module.save(str(HERE / name / folder))
    (HERE / name / "modules.json").write_text(json.dumps(listed, indent=1) + "\n")


def torchvision_resnet():
    """A ResNet of the Hugging Face layout, its weights renamed to torchvision's."""
    config = tf.ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic",
                             num_labels=5)
    model = draw(tf.ResNetForImageClassification(config), 12)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
        if name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=torch.Generator().manual_seed(2)) + 0.5)
    pixels = torch.randn(2, 1, 33, 20, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = model(pixels).logits
    save("resnet_torchvision", model, {"pixel_values": pixels, "logits": logits})
    renamed = {}
    for name, tensor in model.state_dict().items():
        for pattern, by in ((r"resnet.embedder.embedder.convolution", "conv1"),
                            (r"resnet.embedder.embedder.normalization", "bn1"),
                            (r"resnet.encoder.stages.(\d+).layers.(\d+).layer.(\d+).convolution",
                             lambda m: f"layer{int(m[1]) + 1}.{m[2]}.conv{int(m[3]) + 1}"),
                            (r"resnet.encoder.stages.(\d+).layers.(\d+).layer.(\d+).normalization",
                             lambda m: f"layer{int(m[1]) + 1}.{m[2]}.bn{int(m[3]) + 1}"),
                            (r"resnet.encoder.stages.(\d+).layers.(\d+).shortcut.convolution",
                             lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.0"),
                            (r"resnet.encoder.stages.(\d+).layers.(\d+).shortcut.normalization",
                             lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.1"),
                            (r"classifier.1", "fc")):
            name = re.sub("^" + pattern, by, name)
        renamed[name] = tensor.contiguous()
    save_file(renamed, HERE / "resnet_torchvision" / "model.safetensors")


RECIPES["resnet_torchvision"] = torchvision_resnet

if __name__ == "__main__":
    for recipe in sys.argv[1:] or RECIPES:
        RECIPES[recipe]()
