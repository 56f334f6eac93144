from sparktasks.annotators.assemblers import DocumentAssembler as DocumentAssembler
from sparktasks.annotators.assemblers import WordsAssembler as WordsAssembler
from sparktasks.annotators.finishers import Finisher as Finisher
from sparktasks.annotators.finishers import VectorFinisher as VectorFinisher
from sparktasks.annotators.tasks.summarization import Summarizer as Summarizer
from sparktasks.annotators.tasks.text_classification import TextClassifier as TextClassifier
from sparktasks.annotators.tasks.text_embedding import TextEmbedder as TextEmbedder
from sparktasks.annotators.tasks.text_generation import TextGenerator as TextGenerator
from sparktasks.annotators.tasks.token_classification import TokenClassifier as TokenClassifier
from sparktasks.annotators.tasks.translation import Translator as Translator
from sparktasks.annotators.text.chunks import EntityMerger as EntityMerger
from sparktasks.annotators.text.tokens import RegexTokenizer as RegexTokenizer
from sparktasks.kernels.columns import Annotation as Annotation
from sparktasks.spark.local import LocalPipeline as LocalPipeline

TASKS: dict[str, str]
__version__: str
__all__: list[str]
