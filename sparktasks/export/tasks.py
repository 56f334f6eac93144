"""What a model is exported for: read from config.json's architectures, or asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparktasks.errors import BundleError, ParamError, did_you_mean, listed
from sparktasks.export.source import Source


@dataclass(frozen=True)
class Form:
    """A kind of model: Optimum's task for it, the class that transformers opens it with, and the name of transformers'
    table of its architectures."""

    optimum: str
    auto_class: str
    architectures: str


LABELS_TEXTS = Form(
    "text-classification", "AutoModelForSequenceClassification", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"
)
LABELS_TOKENS = Form(
    "token-classification", "AutoModelForTokenClassification", "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES"
)
ENCODES = Form("feature-extraction", "AutoModel", "MODEL_MAPPING_NAMES")

# T5 and its like embed texts with their encoder alone.
ENCODES_ALONE = Form("feature-extraction", "AutoModelForTextEncoding", "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES")
CONTINUES = Form("text-generation-with-past", "AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")
ANSWERS = Form(
    "text2text-generation-with-past", "AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"
)

# The forms that serve a task, those with an encoder first.
FORMS: dict[str, tuple[Form, ...]] = {
    "summarization": (ANSWERS,),
    "text-classification": (LABELS_TEXTS,),
    "text-embedding": (ENCODES,),
    "text-generation": (ANSWERS, CONTINUES),
    "token-classification": (LABELS_TOKENS,),
    "translation": (ANSWERS,),
}

# What an architecture's form is for, in the order in which they are looked up.
_DETECTED = {
    LABELS_TEXTS: "text-classification",
    LABELS_TOKENS: "token-classification",
    ANSWERS: "text-generation",
    CONTINUES: "text-generation",
    ENCODES: "text-embedding",
    ENCODES_ALONE: "text-embedding",
}


def choose_task(source: Source, asked: str | None) -> tuple[str, Form]:
    """Return the task and the form to export a model for: the task that is asked for, else its architecture's.

    Raises `ParamError` where the task is not known, and `BundleError` where the architecture is not, where it tells no
    task, or where it is of another form than the task needs.
    """
    _check_known(source)
    if asked is None:
        return _detected(source)
    if asked not in FORMS:
        raise ParamError(f"there is no task {asked!r}.{did_you_mean(asked, FORMS)} Tasks: {listed(FORMS)}")
    if asked == "text-embedding":
        return asked, _encoder(source)
    forms = FORMS[asked]
    if forms[0] is not ANSWERS or source.config.get("is_encoder_decoder"):
        return asked, forms[0]
    if CONTINUES in forms:
        return asked, CONTINUES
    raise BundleError(f"{source.name} is no encoder-decoder model, and {asked} needs one. text-generation takes it")


def _check_known(source: Source) -> None:
    """Raise `BundleError` where the installed transformers does not have a model's architecture."""
    import transformers

    if source.model_type in transformers.CONFIG_MAPPING:
        return
    if "auto_map" in source.config:
        raise BundleError(
            f"{source.name}: the architecture {source.model_type!r} is code in the model's repository "
            "(auto_map in config.json), and such code is never run"
        )
    near = did_you_mean(source.model_type, transformers.CONFIG_MAPPING.keys())
    raise BundleError(
        f"{source.name}: transformers {transformers.__version__} does not know the architecture "
        f"{source.model_type!r} (model_type in config.json).{near}"
    )


def _detected(source: Source) -> tuple[str, Form]:
    names = [str(name) for name in source.config.get("architectures") or ()]
    for form, task in _DETECTED.items():
        if any(name in _architectures(form) for name in names):
            # Encoders of sentences may have been trained as language models: their modules tell what they are for.
            is_encoder = task == "text-embedding" or (source.modules and form in (ANSWERS, CONTINUES))
            return ("text-embedding", _encoder(source)) if is_encoder else (task, form)
    if source.modules:
        return "text-embedding", _encoder(source)
    raise BundleError(
        f"{source.name}: config.json says architectures={names}, which tells none of the tasks here. "
        f"Name what it was trained for with --task: {listed(FORMS)}"
    )


def _encoder(source: Source) -> Form:
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

    name = MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(source.model_type, "")
    return ENCODES_ALONE if name.endswith("EncoderModel") else ENCODES


def _architectures(form: Form) -> set[str]:
    from transformers.models.auto import modeling_auto

    names: set[str] = set()
    for classes in getattr(modeling_auto, form.architectures).values():
        names.update([classes] if isinstance(classes, str) else classes)
    return names


def load_network(source: Source, form: Form) -> Any:
    """Open a model in float32, ready to answer; `BundleError` where the folder lacks weights that the form needs."""
    import torch
    import transformers

    auto_class = getattr(transformers, form.auto_class)
    network, info = auto_class.from_pretrained(
        source.folder,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    # An encoder's pooler makes an output that is not exported.
    missing = [name for name in info["missing_keys"] if form is not ENCODES or "pooler" not in name]
    if missing or info["mismatched_keys"]:
        names = [*missing, *(key[0] for key in info["mismatched_keys"])]
        raise BundleError(
            f"{source.name}: its weights lack {listed(sorted(names))} of {type(network).__name__}: they were not "
            f"trained as one, and transformers would fill in random numbers. Is another --task meant?"
        )
    return network.eval()
