"""Train the starter bundle `pos-ud-english`: universal parts of speech (UPOS) of English words.

The data is UD_English-EWT (CC BY-SA 4.0): `en_ewt-ud-train.conllu` and `en_ewt-ud-dev.conllu` of
https://github.com/UniversalDependencies/UD_English-EWT at commit 15d613d8447b3478787d4c278730a1e48a945efb.
Give their folder as `--data`.

    python scripts/train/pos.py --data DIR
"""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from bundle import write_bundle
from common import (
    IGNORED,
    Example,
    Recipe,
    arguments,
    bert_config,
    predict,
    read_text,
    seed_everything,
    train,
    train_tokenizer,
)
from conllu import Sentence, read_conllu
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertForTokenClassification, BertTokenizerFast

BUNDLE = "pos-ud-english"
MAX_LENGTH = 256
RAW_SHARE = 0.4
PACKED_SHARE = 0.04
SPLIT_RATE = 0.05
PRE_TOKENIZER = BertPreTokenizer()

Units = list[tuple[str, str]]


def gold_units(sentence: Sentence) -> Units:
    """The pre-tokens of the gold words, each with its word's tag."""
    return [(piece, word.tag) for word in sentence.words for piece, _ in PRE_TOKENIZER.pre_tokenize_str(word.form)]


def raw_units(sentence: Sentence) -> Units:
    """The pre-tokens of the raw text, each with the tag of the word it starts in."""
    tags = {place: word.tag for word in reversed(sentence.words) for place in range(word.start, word.end)}
    return [(piece, tags[start]) for piece, (start, _) in PRE_TOKENIZER.pre_tokenize_str(sentence.text)]


@dataclass
class Sampler:
    """Makes the examples of an epoch: gold words or raw text, alone or with the sentences that follow, some words split
    finer."""

    gold: Sequence[Units]
    raw: Sequence[Units]
    tokenizer: BertTokenizerFast
    tags: Sequence[str]
    _vocab: dict[str, int] = field(init=False)
    _pieces: dict[str, list[int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._vocab = self.tokenizer.get_vocab()

    def __call__(self, rng: random.Random) -> list[Example]:
        """The examples of one epoch."""
        examples: list[Example] = []
        index = 0
        while index < len(self.gold):
            room = rng.randint(MAX_LENGTH // 4, MAX_LENGTH) if rng.random() < PACKED_SHARE else 0
            example, index = self._example(index, room, rng)
            examples.append(example)
        return examples

    def _example(self, index: int, room: int, rng: random.Random) -> tuple[Example, int]:
        """One sentence and the following ones that fit the room, with the index of the first that does not."""
        source = self.raw if rng.random() < RAW_SHARE else self.gold
        ids, marks = self._encode(source[index], rng)
        while (index := index + 1) < len(source):
            more_ids, more_marks = self._encode(source[index], rng) if room > len(ids) else ([], [])
            if not more_ids or len(ids) + len(more_ids) > room - 2:
                break
            ids, marks = ids + more_ids, marks + more_marks
        keep = MAX_LENGTH - 2
        ids = [self.tokenizer.cls_token_id, *ids[:keep], self.tokenizer.sep_token_id]
        return (ids, [IGNORED, *marks[:keep], IGNORED]), index

    def _encode(self, units: Units, rng: random.Random) -> tuple[list[int], list[int]]:
        """The token ids of the pre-tokens and their tags, told at the first sub-word."""
        ids: list[int] = []
        marks: list[int] = []
        for text, tag in units:
            pieces = self._split(text, rng) if rng.random() < SPLIT_RATE else self._usual(text)
            ids += pieces
            marks += [self.tags.index(tag)] + [IGNORED] * (len(pieces) - 1)
        return ids, marks

    def _usual(self, text: str) -> list[int]:
        """The sub-words that the tokenizer gives."""
        if text not in self._pieces:
            self._pieces[text] = self.tokenizer.encode(text, add_special_tokens=False) or [self.tokenizer.unk_token_id]
        return self._pieces[text]

    def _split(self, text: str, rng: random.Random) -> list[int]:
        """Sub-words cut shorter at random, so that the model learns to read rare words from their parts."""
        pieces: list[int] = []
        start = 0
        while start < len(text):
            mark = "##" if start else ""
            ends = [end for end in range(start + 1, len(text) + 1) if mark + text[start:end] in self._vocab]
            if not ends:
                return self._usual(text)
            end = ends[-1] if rng.random() < 0.5 else rng.choice(ends)
            pieces.append(self._vocab[mark + text[start:end]])
            start = end
        return pieces


def predicted_tags(
    model: BertForTokenClassification, tokenizer: BertTokenizerFast, sequences: Sequence[list[int]]
) -> list[list[str]]:
    """The tag predicted at each token of each sequence."""
    logits = predict(model, sequences, tokenizer.pad_token_id)
    return [[model.config.id2label[index] for index in rows.argmax(axis=1).tolist()] for rows in logits]


def gold_accuracy(
    model: BertForTokenClassification, tokenizer: BertTokenizerFast, sentences: Sequence[Sentence]
) -> float:
    """The share of gold words that get the right tag at their first sub-word when the model is fed the gold words."""
    encoded = tokenizer([[word.form for word in sentence.words] for sentence in sentences], is_split_into_words=True)
    right: list[bool] = []
    for number, found in enumerate(predicted_tags(model, tokenizer, encoded["input_ids"])):
        first = first_tokens(encoded.word_ids(number))
        words = sentences[number].words
        right += [index in first and found[first[index]] == word.tag for index, word in enumerate(words)]
    return sum(right) / len(right)


def raw_accuracy(
    model: BertForTokenClassification, tokenizer: BertTokenizerFast, sentences: Sequence[Sentence]
) -> tuple[float, float, float]:
    """Shares of gold words that are right when the model is fed raw text: of all words, and of those that start a
    token.

    A word is right if the token that holds its first character has its tag. The third figure is the share of words that
    start inside a token.
    """
    encoded = tokenizer([sentence.text for sentence in sentences], return_offsets_mapping=True)
    right: list[bool] = []
    aligned: list[bool] = []
    for number, found in enumerate(predicted_tags(model, tokenizer, encoded["input_ids"])):
        holder = token_of_character(encoded.word_ids(number), encoded["offset_mapping"][number])
        for word in sentences[number].words:
            token = holder.get(word.start)
            right.append(token is not None and found[token] == word.tag)
            aligned.append(token is not None and encoded["offset_mapping"][number][token][0] == word.start)
    counts = np.array(right)
    return float(counts.mean()), float(counts[aligned].mean()), 1 - float(np.mean(aligned))


def first_tokens(words: Sequence[int | None]) -> dict[int, int]:
    """The first token of each word, from the word of each token."""
    return {word: token for token, word in reversed(list(enumerate(words))) if word is not None}


def token_of_character(words: Sequence[int | None], offsets: Sequence[tuple[int, int]]) -> dict[int, int]:
    """For each character of a text the first sub-word of the word that it is in."""
    first = first_tokens(words)
    return {
        place: first[word]
        for word, span in zip(words, offsets, strict=True)
        if word is not None
        for place in range(*span)
    }


def load(folder: Path, part: str) -> list[Sentence]:
    """The sentences of one part of the treebank."""
    return list(read_conllu(read_text(folder, f"en_ewt-ud-{part}.conllu")))


def main() -> None:
    """Train, measure and write the bundle."""
    options = arguments(__doc__, BUNDLE)
    started = time.monotonic()
    seed_everything(options.seed, options.threads)
    sentences, dev = load(options.data, "train"), load(options.data, "dev")
    tags = sorted({word.tag for sentence in sentences for word in sentence.words})
    texts = [sentence.text for sentence in sentences]
    tokenizer = train_tokenizer(texts, size=2500, lowercase=False, max_length=MAX_LENGTH, alphabet=100)
    model = BertForTokenClassification(bert_config(tokenizer, tags, width=128, layers=2, dropout=0.1))
    sampler = Sampler(
        [gold_units(sentence) for sentence in sentences],
        [raw_units(sentence) for sentence in sentences],
        tokenizer,
        tags,
    )
    recipe = Recipe(epochs=20, learning_rate=2e-3, batch_tokens=2048, unknown_rate=0.03, seed=options.seed)
    train(model, tokenizer, sampler, recipe, lambda: gold_accuracy(model, tokenizer, dev))
    raw, raw_aligned, inside = raw_accuracy(model, tokenizer, dev)
    values = {
        "gold": f"{gold_accuracy(model, tokenizer, dev):.2%}",
        "raw": f"{raw:.2%}",
        "raw_aligned": f"{raw_aligned:.2%}",
        "inside": f"{inside:.1%}",
        "raw_share": f"{RAW_SHARE:.0%}",
    }
    write_bundle(model, tokenizer, dev_samples(tokenizer, dev), options, card=BUNDLE, values=values, started=started)


def dev_samples(tokenizer: BertTokenizerFast, sentences: Sequence[Sentence]) -> list[list[int]]:
    """A hundred texts of one to three sentences, as token ids."""
    return tokenizer([" ".join(s.text for s in sentences[i : i + 1 + i % 3]) for i in range(100)], truncation=True)[
        "input_ids"
    ]


if __name__ == "__main__":
    main()
