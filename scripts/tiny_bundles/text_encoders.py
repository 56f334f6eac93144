"""Text classifiers, token classifiers and sentence encoders of the stock Hugging Face architectures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers as hf
from optimum.exporters.onnx import onnx_export_from_model

from .checks import Measure, Mistakes, relative_difference, score_measures
from .exports import open_graph, place_graph, save_tokenizer, trace
from .pooling import pool, write_pooling_files, write_text_files
from .published_tokenizers import make_tokenizer
from .samples import sample_pairs, sample_texts
from .text_encoder_networks import CONFIGS, NamedInputs, has_token_types, label_keys, positions, vocabulary
from .text_inputs import Encoded, encode, padded, unmasked, with_changed_token, without_types
from .text_oracles import Golden, embedding_golden, text_golden, token_golden

TEXT = "text-classification"
TOKEN = "token-classification"
EMBEDDING = "embedding"

INTENTS = ("book_table", "play_music", "get_weather", "set_alarm", "pay_bill")
TOPICS = ("sports", "politics", "science", "arts", "economy", "health")
ENTITIES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
UNBOUNDED = int(1e30)

DECODERS = ("gpt2", "qwen2", "llama")  # classifiers that read the state of a text's last token
NO_PAD = "no-pad"  # neither config.json nor the tokenizer has a pad token
OTHER_PAD = "other-pad"  # the tokenizer pads with another token than config.json, which the graph counts by
LEFT_PAD = "left-pad"  # the tokenizer pads on the left
OWN_EXPORT = ("xlnet",)  # optimum-onnx 0.1.0 has no config for these

WRONG_PAD = 20  # what a decoder does not take for padding: it must change the answers
DISTINCT = {TEXT: 3, TOKEN: 6, EMBEDDING: 30}
EXPORT_TOLERANCE = 2e-5

HUB_PROMPTS = {"query": "query: ", "document": "passage: "}
AUTO_CLASSES: dict[str, Any] = {
    TEXT: hf.AutoModelForSequenceClassification,
    TOKEN: hf.AutoModelForTokenClassification,
    EMBEDDING: hf.AutoModel,
}


@dataclass(frozen=True)
class Spec:
    """What one bundle folder holds; `name` is `<architecture>-<task>[-<variant>]`."""

    name: str
    task: str
    arch: str
    labels: tuple[str, ...] = ()
    problem_type: str | None = None
    max_length: int = 64
    seed: int = 0  # the first to try
    tokenizer: str = ""  # key of TOKENIZERS; the architecture when empty
    tokenizer_options: dict[str, object] = field(default_factory=dict)
    subfolder: str = ""  # "onnx" as transformers.js lays it out, "" as Optimum does
    external_data: bool = False
    baked_blocks: bool = False  # truncation and padding left in tokenizer.json
    pooling: str = ""
    normalize: bool = False
    sentence_files: bool = True  # modules.json and its company
    max_seq_length: int | None = None  # of sentence_bert_config.json
    lower_case: bool = False  # do_lower_case of sentence_bert_config.json
    pooled_graph: bool = False  # outputs token_embeddings and sentence_embedding, as Optimum exports such folders
    prompts: dict[str, str] = field(default_factory=dict)
    pads: str = ""  # of decoders: NO_PAD, OTHER_PAD, LEFT_PAD, or "" where all files agree
    leaks: bool = False  # padding changes the answers, mask or not


def text(arch: str, labels: tuple[str, ...] = INTENTS, **options: Any) -> Spec:
    """Return the sequence classifier of an architecture."""
    return Spec(f"{arch}-{TEXT}", TEXT, arch, labels, **options)


def decoder(arch: str, pads: str = "") -> Spec:
    """Return the sequence classifier made of a decoder."""
    options = {"padding_side": "left" if pads == LEFT_PAD else "right"}
    name = "-".join(filter(None, (arch, TEXT, pads)))
    return Spec(name, TEXT, arch, INTENTS, tokenizer_options=options, pads=pads)


def token(arch: str, **options: Any) -> Spec:
    """Return the token classifier of an architecture."""
    return Spec(f"{arch}-{TOKEN}", TOKEN, arch, ENTITIES, **options)


def embedding(arch: str, pooling: str, **options: Any) -> Spec:
    """Return the encoder of an architecture with sentence-transformers' pooling files."""
    return Spec(f"{arch}-{EMBEDDING}-{pooling}", EMBEDDING, arch, pooling=pooling, **options)


SPECS: tuple[Spec, ...] = (
    text("bert"),
    text("distilbert", ("score",), problem_type="regression", external_data=True),
    text("roberta", TOPICS, problem_type="multi_label_classification", seed=4),
    text("xlm-roberta", subfolder="onnx"),
    text("albert", max_length=128),
    text("electra", baked_blocks=True),
    text("mpnet", TOPICS),
    text("deberta-v2", max_length=128, external_data=True),
    text("deberta"),
    text("camembert", ("relevant",)),
    text("modernbert", max_length=128, subfolder="onnx", external_data=True),
    text("xlnet", tokenizer="xlnet-small"),
    text("convbert", leaks=True),
    text("bart"),
    *(decoder(arch, pads) for arch in DECODERS for pads in ("", NO_PAD, OTHER_PAD, LEFT_PAD)),
    token("convbert", leaks=True),
    token("bert"),
    token("distilbert", subfolder="onnx"),
    token("roberta", baked_blocks=True),
    token("xlm-roberta", tokenizer="xlm-roberta-small"),
    token("albert", baked_blocks=True),
    token("electra", max_length=128, seed=7),
    token("mpnet"),
    token("deberta-v2", max_length=128),
    token("deberta", external_data=True),
    token("camembert"),
    token("modernbert", max_length=128),
    token("xlnet", max_length=UNBOUNDED, tokenizer_options={"padding_side": "left"}),
    embedding("bert", "mean", normalize=True, prompts=HUB_PROMPTS, max_seq_length=48),
    embedding("distilbert", "cls", subfolder="onnx"),
    embedding("distilbert", "mean", lower_case=True),
    embedding("roberta", "mean", normalize=True),
    embedding("xlm-roberta", "cls", normalize=True),
    embedding("albert", "max", max_length=128),
    embedding("electra", "mean", sentence_files=False),
    embedding("mpnet", "mean", normalize=True, subfolder="onnx", baked_blocks=True),
    embedding("mpnet", "cls", normalize=True, pooled_graph=True),
    embedding("deberta-v2", "max", max_length=128, max_seq_length=64),
    embedding("deberta", "lasttoken"),
    embedding("camembert", "mean", external_data=True),
    embedding("modernbert", "lasttoken", normalize=True, max_length=128),
    embedding("xlnet", "lasttoken", tokenizer_options={"padding_side": "left"}),
)
BY_NAME: dict[str, Spec] = {spec.name: spec for spec in SPECS}

COMMITTED: tuple[str, ...] = (
    "bert-text-classification",
    "distilbert-text-classification",
    "roberta-text-classification",
    "xlnet-text-classification",
    "bert-token-classification",
    "roberta-token-classification",
    "xlm-roberta-token-classification",
    "bert-embedding-mean",
    "distilbert-embedding-cls",
)


def processor(spec: Spec) -> hf.PreTrainedTokenizerFast:
    """Return the bundle's tokenizer."""
    tokenizer = make_tokenizer(spec.tokenizer or spec.arch, spec.max_length, spec.tokenizer_options)
    if spec.pads == NO_PAD:
        tokenizer.pad_token = None
    elif spec.arch in DECODERS:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def network(spec: Spec, tokenizer: hf.PreTrainedTokenizerFast, seed: int) -> hf.PreTrainedModel:
    """Return the randomly initialised network of a bundle, in eval mode."""
    torch.manual_seed(seed)
    config_class, sizes = CONFIGS[spec.arch]
    keys = {**positions(spec.arch, spec.max_length), **vocabulary(tokenizer)}
    if spec.arch in DECODERS:
        keys["pad_token_id"] = len(tokenizer) - 1 if spec.pads == OTHER_PAD else tokenizer.pad_token_id
    config = config_class(**{**sizes, **keys, **label_keys(spec.labels, spec.problem_type)})
    return AUTO_CLASSES[spec.task].from_config(config).eval()


def inputs(spec: Spec, tokenizer: hf.PreTrainedTokenizerFast) -> list[Encoded]:
    """Return the committed texts that are not too short for a mistake."""
    items = [encode(tokenizer, text) for text in dict.fromkeys(sample_texts().values())]
    return [item for item in items if len(item.own) > 4]


def answer(spec: Spec, network: hf.PreTrainedModel, item: Encoded) -> np.ndarray:
    """Return scores as the pipelines compute them: (1, labels), of the text's own tokens, or a vector (1, size)."""
    with torch.no_grad():
        output = network(**item.feeds)[0]
    if spec.task == EMBEDDING:
        return pool(output, item.feeds["attention_mask"], spec.pooling).numpy()
    logits = output[0, item.own] if spec.task == TOKEN else output
    if spec.problem_type == "regression":
        return logits.numpy()
    if spec.problem_type is None and len(spec.labels) > 1:
        return torch.softmax(logits, -1).numpy()
    return torch.sigmoid(logits).numpy()


def wrong_inputs(
    spec: Spec, tokenizer: hf.PreTrainedTokenizerFast, items: list[Encoded]
) -> dict[str, list[tuple[Encoded, Encoded]]]:
    """Return right and wrong inputs by the name of the mistake."""
    mistakes = {
        "one token changed": [(item, with_changed_token(tokenizer, item)) for item in items],
        "pads not masked": [(item, unmasked(padded(tokenizer, item, pad_id(spec, tokenizer)))) for item in items],
    }
    if spec.task == TEXT and has_token_types(spec.arch, tokenizer):
        pairs = [encode(tokenizer, first, second) for first, second in sample_pairs().values()]
        mistakes["all token types 0"] = [(pair, without_types(pair)) for pair in pairs]
    return mistakes


def pad_id(spec: Spec, tokenizer: hf.PreTrainedTokenizerFast) -> int:
    """Return the token to pad with."""
    return WRONG_PAD if spec.arch in DECODERS else tokenizer.pad_token_id


def measures(spec: Spec, answers: list[np.ndarray], mistakes: Mistakes) -> list[Measure]:
    """Measure the right answers and what mistakes change."""
    return score_measures(answers, mistakes, DISTINCT[spec.task], ranked=len(spec.labels) > 1)


def export(spec: Spec, network: hf.PreTrainedModel, tokenizer: hf.PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the bundle's files as Optimum, transformers.js and sentence-transformers lay them out."""
    with TemporaryDirectory() as work:
        if spec.arch in OWN_EXPORT or spec.pooled_graph:
            trace_encoder(spec, network, tokenizer.model_input_names, Path(work, "model.onnx"))
        else:
            task = "feature-extraction" if spec.task == EMBEDDING else spec.task
            sizes = {"batch_size": 1} if spec.pads == NO_PAD else {}  # such a decoder refuses to run two texts
            onnx_export_from_model(network, Path(work), task=task, do_validation=False, **sizes)
        place_graph(Path(work, "model.onnx"), folder / spec.subfolder / "model.onnx", spec.external_data)
    network.config.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, spec.baked_blocks)
    if spec.task == EMBEDDING and spec.sentence_files:
        write_pooling_files(folder, spec.pooling, network.config.hidden_size, spec.normalize)
        write_text_files(folder, spec.max_seq_length or spec.max_length, spec.lower_case, spec.prompts)


def trace_encoder(spec: Spec, network: hf.PreTrainedModel, names: list[str], path: Path) -> None:
    """Export a network with Optimum's input and output names."""

    def vectors(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        pooled = pool(hidden, mask, spec.pooling)
        return torch.nn.functional.normalize(pooled) if spec.normalize else pooled

    ids = torch.arange(20, 42).reshape(2, 11)
    feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    by_token = {0: "batch_size", 1: "sequence_length"}
    axes = dict.fromkeys([*feeds, "token_embeddings", "last_hidden_state"], by_token)
    axes |= {"sentence_embedding": {0: "batch_size"}, "logits": {0: "batch_size"} if spec.task == TEXT else by_token}
    if spec.pooled_graph:
        outputs, module = ["token_embeddings", "sentence_embedding"], NamedInputs(network, names, vectors)
    else:
        outputs = ["last_hidden_state" if spec.task == EMBEDDING else "logits"]
        module = NamedInputs(network, names)
    trace(module, {name: feeds[name] for name in names}, outputs, axes, path, opset_version=17)


def export_difference(
    spec: Spec, network: hf.PreTrainedModel, tokenizer: hf.PreTrainedTokenizerFast, folder: Path
) -> Measure:
    """Compare the graph with the network, on single texts and on padded ones."""
    session = open_graph(folder / spec.subfolder / "model.onnx")
    names = [item.name for item in session.get_inputs()]
    pads_matter = spec.leaks or spec.arch in DECODERS
    differences = []
    for item in (encode(tokenizer, text) for text in sample_texts().values()):
        if len(item.own) == 0:
            continue
        with torch.no_grad():
            expected = network(**item.feeds)[0].numpy()
        variants = [item] if pads_matter else [item, padded(tokenizer, item, pad_id(spec, tokenizer))]
        for variant in variants:
            output = session.run(None, {name: variant.feeds[name].numpy() for name in names})[0]
            if output.ndim == 3:
                output = output[:, variant.own.numpy()]
            differences.append(relative_difference(output, expected))
    return Measure("difference of the graph", float(np.max(differences)), most=EXPORT_TOLERANCE)


def golden(spec: Spec, twin: Path) -> Golden:
    """Return what transformers answers to the committed texts."""
    if spec.task == TEXT:
        return text_golden(twin)
    return token_golden(twin) if spec.task == TOKEN else embedding_golden(twin, spec)
