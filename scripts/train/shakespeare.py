"""Train the starter bundle `shakespeare-llama`: a small Llama that continues plays.

The data is tinyshakespeare (public domain): `input.txt` of https://github.com/karpathy/ng-video-lecture at commit
52201428ed7b46804849dea0b3ccf0de9df1a5c3. Give its folder as `--data`. The first nine tenths are trained on, the rest is
for measuring.

    python scripts/train/shakespeare.py --data DIR
"""

import math
import random
import time
from pathlib import Path

import torch
from bundle import write_decoder
from common import Recipe, arguments, optimizer_for, pace, read_text, seed_everything
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BUNDLE = "shakespeare-llama"
END = "<|endoftext|>"
VOCABULARY = 512
LENGTH = 256
POSITIONS = 256
PASSAGE = 400  # characters after which a passage may end


def passages(text: str) -> list[str]:
    """The text in passages of whole speeches."""
    found: list[str] = []
    for speech in text.strip().split("\n\n"):
        if found and len(found[-1]) < PASSAGE:
            found[-1] += "\n\n" + speech
        else:
            found.append(speech)
    return found


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that begins each text with the end token, as transformers does for its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=POSITIONS, padding_side="left"
    )


def stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """The tokens of all passages, each behind an end token."""
    return torch.tensor([token for text in texts for token in tokenizer(text)["input_ids"]] + [tokenizer.eos_token_id])


def train(model: LlamaForCausalLM, tokens: torch.Tensor, recipe: Recipe) -> None:
    """Train on windows that begin at random places."""
    rng = random.Random(recipe.seed)
    optimizer = optimizer_for(model, recipe)
    rows = recipe.batch_tokens // LENGTH
    steps = recipe.epochs * len(tokens) // recipe.batch_tokens
    started = time.monotonic()
    model.train()
    for step in range(steps):
        starts = [rng.randrange(len(tokens) - LENGTH) for _ in range(rows)]
        ids = torch.stack([tokens[start : start + LENGTH] for start in starts])
        loss = model(input_ids=ids, labels=ids).loss
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * pace(step / steps, recipe.warmup)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}, {time.monotonic() - started:.0f} s", flush=True)


@torch.no_grad()
def nats(model: LlamaForCausalLM, tokens: torch.Tensor) -> float:
    """The mean negative log-likelihood of a token, each with at least half a window before it but at the beginning."""
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(tokens) - 1, POSITIONS // 2):
        ids = tokens[max(0, start - POSITIONS // 2) : start + POSITIONS // 2 + 1][None]
        new = min(POSITIONS // 2, len(tokens) - 1 - start)
        scores = model(input_ids=ids[:, :-1]).logits.log_softmax(-1)
        total -= scores[0, -new:].gather(-1, ids[0, -new:, None]).sum().item()
        count += new
    return total / count


def main() -> None:
    """Train, measure and write the bundle."""
    options = arguments(__doc__, BUNDLE)
    started = time.monotonic()
    seed_everything(options.seed, options.threads)
    text = read_text(Path(options.data), "tinyshakespeare.txt", "input.txt")
    border = text.index("\n\n", int(0.9 * len(text)))
    known, unseen = passages(text[:border]), passages(text[border:])
    tokenizer = make_tokenizer(known)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=280,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    recipe = Recipe(
        epochs=7, learning_rate=3e-3, batch_tokens=12 * LENGTH, weight_decay=0.1, warmup=0.05, seed=options.seed
    )
    train(model, stream(tokenizer, known), recipe)
    tokens = stream(tokenizer, unseen)
    loss = nats(model, tokens)
    characters = sum(map(len, unseen))
    values = {
        "perplexity": f"{math.exp(loss):.2f}",
        "bits": f"{loss * (len(tokens) - 1) / characters / math.log(2):.3f}",
        "parameters": f"{model.num_parameters():,}",
    }
    samples = [tokenizer(text)["input_ids"][:LENGTH] for text in unseen[::20]]
    write_decoder(model, tokenizer, samples, options, card=BUNDLE, values=values, started=started)


if __name__ == "__main__":
    main()
