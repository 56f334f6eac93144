"""The literal table of tiny text bundles."""

from __future__ import annotations

from dataclasses import dataclass, field

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

HUB_PROMPTS = {"query": "query: ", "document": "passage: "}


@dataclass(frozen=True)
class Spec:
    """What one bundle folder holds; `name` is `<architecture>-<task>[-<variant>]`."""

    name: str
    task: str
    arch: str
    labels: tuple[str, ...] = ()
    problem_type: str | None = None
    max_length: int = 64
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
    pooled_graph: bool = (
        False  # outputs token_embeddings and sentence_embedding, as Optimum exports sentence-transformers
    )
    prompts: dict[str, str] = field(default_factory=dict)
    pads: str = ""  # of decoders: NO_PAD, OTHER_PAD, LEFT_PAD, or "" where all files agree
    leaks: bool = False  # padding changes the answers, mask or not


def text(arch: str, labels: tuple[str, ...] = INTENTS, **options: object) -> Spec:
    """Return the sequence classifier of an architecture."""
    return Spec(f"{arch}-{TEXT}", TEXT, arch, labels, **options)


def decoder(arch: str, pads: str = "") -> Spec:
    """Return the sequence classifier made of a decoder."""
    options = {"padding_side": "left" if pads == LEFT_PAD else "right"}
    name = "-".join(filter(None, (arch, TEXT, pads)))
    return Spec(name, TEXT, arch, INTENTS, tokenizer_options=options, pads=pads)


def token(arch: str, **options: object) -> Spec:
    """Return the token classifier of an architecture."""
    return Spec(f"{arch}-{TOKEN}", TOKEN, arch, ENTITIES, **options)


def embedding(arch: str, pooling: str, **options: object) -> Spec:
    """Return the encoder of an architecture with sentence-transformers' pooling files."""
    return Spec(f"{arch}-{EMBEDDING}-{pooling}", EMBEDDING, arch, pooling=pooling, **options)


SPECS: tuple[Spec, ...] = (
    text("bert"),
    text("distilbert", ("score",), problem_type="regression", external_data=True),
    text("roberta", TOPICS, problem_type="multi_label_classification"),
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
    token("electra", max_length=128),
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
