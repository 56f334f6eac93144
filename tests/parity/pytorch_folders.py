"""Small PyTorch folders with random weights, as transformers and sentence-transformers save them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sentencepiece
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = Path(__file__).resolve().parents[1] / "data" / "corpus.txt"
LINES = CORPUS.read_text(encoding="utf-8").splitlines()
PIECES = 500
POSITIONS = 160

# With the usual range of 0.02 a small network gives every text nearly the same answer.
RANGE = 0.3
SIZES: Mapping[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": RANGE,
    "max_position_embeddings": POSITIONS,
}
LABELS = ("PER", "LOC", "ORG", "MISC")


def named_labels() -> dict[str, Any]:
    """Return the keys of a config that name the labels."""
    return {"id2label": dict(enumerate(LABELS)), "label2id": {name: index for index, name in enumerate(LABELS)}}


def word_pieces(folder: Path) -> Path:
    """Write the vocab.txt of a WordPiece tokenizer: letters, and the commonest words."""
    words = Counter(word for line in LINES for word in re.findall(r"\w+|[^\w\s]", line.lower()))
    letters = sorted({letter for word in words for letter in word if letter.isascii()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    pieces += [word for word, _ in words.most_common(PIECES) if word not in letters]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.txt"
    path.write_text("\n".join(pieces), encoding="utf-8")
    return path


def sentence_pieces(folder: Path, name: str, **options: Any) -> Path:
    """Train a SentencePiece model and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_prefix=str(folder / "trained"),
        vocab_size=PIECES,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    (folder / "trained.model").rename(path)
    (folder / "trained.vocab").unlink()
    return path


def byte_pairs() -> hf.PreTrainedTokenizerFast:
    """Train a byte-level tokenizer of decoders."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=["<|end|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        model_input_names=["input_ids", "attention_mask"],
    )


def save(config: Any, auto_class: Any, folder: Path, factors: Mapping[str, float] = MappingProxyType({})) -> Any:
    """Save a random network of a config, and return it.

    ``factors`` change weights by a part of their name; the first that fits counts. A text that small random decoders
    write depends on its first token alone, unless they listen to the source.
    """
    torch.manual_seed(0)
    network = auto_class.from_config(config).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.mul_(next((factor for part, factor in factors.items() if part in name), 1.0))
    network.save_pretrained(folder)
    return network


def bert_config(**more: Any) -> Any:
    """Return the config of a BERT with the WordPiece vocabulary."""
    return hf.BertConfig(**{**SIZES, "vocab_size": PIECES * 2, **more})


def classifier(folder: Path) -> None:
    """Save a BERT that labels texts and pairs of texts."""
    hf.BertTokenizerFast(vocab_file=str(word_pieces(folder))).save_pretrained(folder)
    save(bert_config(**named_labels()), hf.AutoModelForSequenceClassification, folder)


def token_classifier(folder: Path) -> None:
    """Save a DistilBERT that labels tokens, with vocab.txt alone."""
    word_pieces(folder)
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": POSITIONS}
    config = hf.DistilBertConfig(**sizes, vocab_size=PIECES * 2, initializer_range=RANGE, **named_labels())
    save(config, hf.AutoModelForTokenClassification, folder)


def xlnet_classifier(folder: Path) -> None:
    """Save an XLNet that labels texts, with spiece.model alone."""
    symbols = {"control_symbols": ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]}
    sentence_pieces(folder, "spiece.model", unk_id=0, bos_id=1, eos_id=2, pad_id=-1, **symbols)
    sizes = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "vocab_size": PIECES, "initializer_range": RANGE}
    save(hf.XLNetConfig(**sizes, **named_labels()), hf.AutoModelForSequenceClassification, folder)


CHAT = "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}[assistant]"


def decoder(folder: Path) -> None:
    """Save a Llama with shared input and output embeddings, a chat template and settings of generation."""
    tokenizer = byte_pairs()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
    config = hf.LlamaConfig(**SIZES, **ids, num_key_value_heads=2, vocab_size=len(tokenizer), tie_word_embeddings=True)
    network = save(config, hf.AutoModelForCausalLM, folder)
    settings = hf.GenerationConfig(**ids, repetition_penalty=1.3, max_new_tokens=12)
    network.generation_config = settings
    settings.save_pretrained(folder)


def encoder_decoder(folder: Path) -> None:
    """Save a T5 with spiece.model alone."""
    sentence_pieces(folder, "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "extra_ids": 0})
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": PIECES}
    config = hf.T5Config(
        **sizes, decoder_start_token_id=0, relative_attention_max_distance=32, tie_word_embeddings=False
    )
    save(config, hf.AutoModelForSeq2SeqLM, folder, factors={"lm_head": 0.3, "EncDecAttention": 8.0})


def marian(folder: Path) -> None:
    """Save a Marian, whose tokenizer cannot be a tokenizer.json."""
    sentence_pieces(folder, "source.spm")
    (folder / "target.spm").write_bytes((folder / "source.spm").read_bytes())
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    names = ["</s>", "<unk>", *(pieces.id_to_piece(index) for index in range(3, PIECES)), "<pad>"]
    write_json(folder / "vocab.json", {name: index for index, name in enumerate(names)})
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "MarianTokenizer"})
    sizes = {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": POSITIONS,
    }
    pad = len(names) - 1
    ids = {"eos_token_id": 0, "bos_token_id": None, "pad_token_id": pad, "decoder_start_token_id": pad}
    config = hf.MarianConfig(**sizes, **ids, forced_eos_token_id=0, vocab_size=len(names), init_std=RANGE)
    factors = {"encoder.layers.": 0.5, "q_proj": 12.0, "v_proj": 0.25}
    save(config, hf.AutoModelForSeq2SeqLM, folder, factors=factors)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content), encoding="utf-8")
