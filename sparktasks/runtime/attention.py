"""What a text costs a model whose attention compares every token with every other one."""

from __future__ import annotations

from sparktasks.errors import DataError
from sparktasks.runtime.bundle import Bundle

MOST_BYTES = 2 * 1024**3
"""What the scores of one layer's attention may take: more has ended whole workers."""

_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
_FLOAT_BYTES = 4


def longest_text(bundle: Bundle) -> int | None:
    """Return the most tokens that fit into memory at once; None where the model has a limit of its own.

    One layer's scores have the shape ``(heads, tokens, tokens)``.
    """
    if bundle.max_length is not None:
        return None
    config = {**bundle.text_config, **bundle.config}
    for key in _HEADS:
        heads = config.get(key)
        if isinstance(heads, int) and heads > 0:
            return int((MOST_BYTES / (_FLOAT_BYTES * heads)) ** 0.5)
    return None  # no attention that is known: recurrent models, for instance


def too_long(tokens: int, most: int) -> DataError:
    """Return the error of a text with more tokens than fit."""
    return DataError(
        f"the text has {tokens:,} tokens, and the model sets no limit: comparing each with every other one takes more "
        f"memory than {MOST_BYTES >> 30} GiB. Set maxLength, to at most {most:,}"
    )
