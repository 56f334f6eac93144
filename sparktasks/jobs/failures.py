"""Why a job failed, in one line: the root cause's own words, out of what Spark wraps around them."""

from __future__ import annotations

import re

from sparktasks.errors import DataError, DeliveryError, OutputError, SparkTasksError, did_you_mean

# Formats of Spark itself, and those of well-known packages with what a session needs to know them. Where a version is
# to be chosen, it depends on Spark's.
_OWN_FORMATS = (
    "binaryFile",
    "console",
    "csv",
    "image",
    "jdbc",
    "json",
    "libsvm",
    "noop",
    "orc",
    "parquet",
    "rate",
    "text",
    "xml",
)
_PACKAGES = {
    "avro": "org.apache.spark:spark-avro_{scala}:{spark}",
    "kafka": "org.apache.spark:spark-sql-kafka-0-10_{scala}:{spark}",
    "delta": "io.delta:delta-spark_{scala}:VERSION",
    "hudi": "org.apache.hudi:hudi-spark{series}-bundle_{scala}:VERSION",
    "iceberg": "org.apache.iceberg:iceberg-spark-runtime-{series}_{scala}:VERSION",
    "mongodb": "org.mongodb.spark:mongo-spark-connector_{scala}:VERSION",
    "bigquery": "com.google.cloud.spark:spark-bigquery-with-dependencies_{scala}:VERSION",
    "excel": "com.crealytics:spark-excel_{scala}:VERSION",
}
# What else of settings such a format needs.
_ALSO = {
    "delta": ", spark.sql.extensions: io.delta.sql.DeltaSparkSessionExtension, "
    "spark.sql.catalog.spark_catalog: org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "iceberg": ", spark.sql.extensions: org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
}
_FILE_SYSTEMS = {
    "s3a": "org.apache.hadoop:hadoop-aws:VERSION (of the hadoop-client jars in Spark's folder jars)",
    "abfs": "org.apache.hadoop:hadoop-azure:VERSION (of the hadoop-client jars in Spark's folder jars)",
    "abfss": "org.apache.hadoop:hadoop-azure:VERSION (of the hadoop-client jars in Spark's folder jars)",
    "gs": "com.google.cloud.bigdataoss:gcs-connector:VERSION",
}

_NO_FORMAT = re.compile(r"Failed to find (?:the )?data source: (\S+?)\.(?:\s|$)")
_NO_FILE_SYSTEM = re.compile(
    r'No FileSystem for scheme "?(\w+)|Class [\w.]+\.(s3a|gs|abfs)s?\.?\w*FileSystem not found|(s3a)\.S3AFileSystem'
)
_EXECUTOR = re.compile(r"most recent failure: Lost task .*? \(.*? executor .*?\): (.*)")
_CALLING = re.compile(r"An error occurred while calling [\w.]+\.\n: ")
_CAUSE = re.compile(r"^Caused by: ([\w.$]+): (.+)$", re.MULTILINE)
_CLASS = re.compile(r"^\(?(?:[a-z]\w*\.)+([A-Z][\w$]*)\)?:? ")
_TRACEBACK = "Traceback (most recent call last)"
# Errors of Spark's and Java's that say nothing themselves but carry one that does.
_CARRIERS = ("SparkException", "RuntimeException", "UncheckedExecutionException", "ExecutionException")
_LONGEST = 600


def refusal(error: BaseException) -> str | None:
    """Say why a job was refused before anything ran; None where it failed while it ran."""
    if isinstance(error, (DataError, DeliveryError, OutputError)):
        return None
    if isinstance(error, SparkTasksError):
        return f"{type(error).__name__}: {error}"
    text = str(error)
    if match := _NO_FORMAT.search(text):
        return f"JobError: {format_hint(match[1])}"
    if match := _NO_FILE_SYSTEM.search(text):
        return f"JobError: {_file_system_hint(match[match.lastindex or 0])}"
    if "No suitable driver" in text:
        return (
            "JobError: no JDBC driver takes this url. Add the driver's package, spark: config: "
            "{spark.jars.packages: GROUP:NAME:VERSION}, and name its class in the option 'driver'"
        )
    # Without pyspark the error is one of ours, so that this line is not reached.
    from pyspark.errors import AnalysisException

    if isinstance(error, AnalysisException):  # of columns, paths and SQL, which comes before anything runs
        return f"{type(error).__name__}: {reason(error)}"
    return None


def format_hint(name: str) -> str:
    """Say what a format that Spark does not find may have meant, or which package brings it.

    >>> format_hint("cvs")
    "there is no format 'cvs'. Did you mean 'csv'?"
    """
    package = _PACKAGES.get(name.lower())
    if package is None:
        hint = did_you_mean(name, [*_OWN_FORMATS, *_PACKAGES])
        registered = " A data source of your own must be registered, or its package be in spark.jars.packages"
        return f"there is no format {name!r}.{hint or registered}"
    import pyspark

    series = ".".join(pyspark.__version__.split(".")[:2])
    scala = "2.12" if series < "4" else "2.13"
    package = package.format(spark=pyspark.__version__, series=series, scala=scala)
    return (
        f"the format {name!r} comes in a package that this session does not have. Add it: spark: config: "
        f"{{spark.jars.packages: {package}{_ALSO.get(name.lower(), '')}}}; a session that runs already, or "
        "spark-submit's, takes it from its own settings (--packages)"
    )


def _file_system_hint(scheme: str) -> str:
    hint = f"paths of {scheme}: need a package that this session does not have."
    package = _FILE_SYSTEMS.get(scheme)
    if package:
        hint += f" Add it: spark: config: {{spark.jars.packages: {package}}}"
    return hint


def reason(error: BaseException) -> str:
    """Return the root cause of an error in one line.

    >>> reason(ValueError("one\\ntwo"))
    'one'
    """
    text = str(error).strip() or "no message"
    if _TRACEBACK in text:
        return _shortened(_end_of_traceback(text))
    head = _headline(text)
    causes = _CAUSE.findall(text)
    if not causes:
        return _shortened(head)
    name, message = causes[-1]
    if message in head or head in message:
        return _shortened(head)
    short_name = name.rpartition(".")[2]
    return _shortened(f"{head} Cause: {short_name}: {message}")


def _end_of_traceback(text: str) -> str:
    """Return the line that ends the last Python traceback in a text, such as ``ValueError: no``."""
    last_traceback = text.rpartition(_TRACEBACK)[2]
    # The first line without an indent, since those of the stack have one.
    match = re.search(r"^\S.*$", last_traceback.partition("\n")[2], re.MULTILINE)
    if match is None:
        return "no message"
    without_module = re.sub(r"^(?:[a-z_]\w*\.)+(?=[A-Z])", "", match[0].strip())
    # Spark repeats the name of an error that it raises again.
    return re.sub(r"^(\w+: )\1", r"\1", without_module)


def _headline(text: str) -> str:
    """Return the first line of a message of Spark's, without what says only where it came from."""
    first = _CALLING.sub("", text).splitlines()[0]
    if match := _EXECUTOR.search(first):
        first = match[1]
    line = _without_state(first)
    match = _CLASS.match(line)
    if match is None:
        return line
    message = line[match.end() :]
    # Spark's own errors have a name in brackets already.
    if message.startswith("[") or match[1] in _CARRIERS:
        return message
    return f"{match[1]}: {message}"


def _without_state(line: str) -> str:
    return re.sub(r"\s*SQLSTATE: \w+$", "", line.strip())


def _shortened(line: str) -> str:
    line = _without_state(line)
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]}..."
    return line


def failure(error: BaseException) -> str:
    """Say why a job failed while it ran; errors that Spark only carries go by the name that they had."""
    text = reason(error)
    is_carrier = type(error).__module__.startswith(("py4j", "pyspark"))
    return text if is_carrier else f"{type(error).__name__}: {text}"
