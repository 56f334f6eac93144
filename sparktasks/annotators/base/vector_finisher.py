"""VectorFinisher: embeddings become Spark ML vectors."""

from __future__ import annotations

from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructField

from sparktasks.annotators.base.finisher import VALUES, FinishColumn, find_annotations
from sparktasks.spark.annotator import Annotator
from sparktasks.spark.fusion import Chain
from sparktasks.spark.params import P, param
from sparktasks.spark.vectorized import quoted


class VectorFinisher(Annotator):
    """Takes the first embedding of each row as a Spark ML vector, for Spark's own estimators.

    Rows without an embedding get null. The vector is made by the JVM, so a chain of annotators ends here.
    """

    inputCol: P[str] = param("name of the annotation column to read", default="embeddings")
    outputCol: P[str] = param("name of the vector column to write", default="features")

    def extend(self, chain: Chain) -> Chain:
        """Append a kernel that gives the first embedding as an array of floats."""
        column = find_annotations(chain, self.getOrDefault("inputCol"), self.uid)
        output = StructField(self.getOrDefault("outputCol"), VALUES["embeddings"])
        return chain.add(FinishColumn("embeddings", "first", ""), [column], output, self.uid)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        name = self.getOrDefault("outputCol")
        array = quoted(name)
        return super()._transform(dataset).withColumn(name, F.when(array.isNotNull(), array_to_vector(array)))
