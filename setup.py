"""Packaging of sparktasks."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "sparktasks" / "__init__.py").read_text(encoding="utf-8"))[1]

# pyspark is an extra: a Databricks or EMR runtime brings its own, which an install must not overwrite.
EXTRAS = {
    "local": ["pyspark>=3.5", "pandas>=2.2,<3"],
    "connect": [
        "pyspark>=4.0",
        "grpcio>=1.67",
        "grpcio-status>=1.67",
        "googleapis-common-protos>=1.65",
        "zstandard>=0.25",
    ],
    "hub": ["huggingface_hub>=0.24"],
    "sentencepiece": ["sentencepiece>=0.2"],
    "translate": ["sentencepiece>=0.2", "py3langid>=0.3", "langcodes>=3.4"],
    "summarize": ["sumy>=0.12"],
    "constraints": ["llguidance>=1.0"],
    "chat": ["jinja2>=3.1"],
    "gpu": ["onnxruntime-gpu>=1.20"],
    "optimize": ["onnx>=1.16"],
    "export": [
        "torch==2.13.0",
        "transformers==4.57.6",
        "optimum-onnx==0.1.0",
        "accelerate>=1.0",  # without it Optimum writes weights that layers share twice
        "sentencepiece>=0.2",
        "protobuf>=5",
    ],
}
EXTRAS["parity"] = [*EXTRAS["export"], "seqeval>=1.2", "sentence-transformers>=5.4,<6"]  # 6 wants transformers 5
EXTRAS["dev"] = [
    *EXTRAS["local"],
    *EXTRAS["connect"],
    *EXTRAS["hub"],
    *EXTRAS["optimize"],
    *EXTRAS["chat"],
    *EXTRAS["translate"],
    *EXTRAS["summarize"],
    *EXTRAS["constraints"],
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "radon>=6",
    "mypy>=1.15",
    "pandas-stubs",
    "types-PyYAML",
    "types-tqdm",
]
# The oldest Spark that is tested, in an environment of its own.
EXTRAS["spark35"] = [
    "pyspark>=3.5,<4",
    "pandas>=2.2,<3",
    "numpy<2",
    "pyarrow<20",
    "onnx>=1.16",
    "pytest>=8",
    *EXTRAS["summarize"],
]
EXTRAS["notebook"] = ["jupyter-client>=8", "nbclient>=0.10", "ipykernel>=6", "matplotlib>=3.8"]
EXTRAS["dev"] += EXTRAS["notebook"]

setup(
    name="sparktasks",
    version=VERSION,
    description=(
        "A distributed Spark annotator framework: ML tasks as Spark ML Transformers, with any Hugging Face ONNX folder"
    ),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["sparktasks", "sparktasks.*"]),
    package_data={"sparktasks": ["py.typed", "*.pyi", "starter/*/*", "examples/*/*"]},
    python_requires=">=3.10",
    install_requires=[
        "onnxruntime>=1.20",
        "tokenizers>=0.21",
        "numpy>=1.26",
        "pyarrow>=15",
        "pandas>=2.2",
        "pillow>=10",
        "soundfile>=0.12",
        "safetensors>=0.4",
        "regex>=2023.6",
        "PyYAML>=6",
        "tqdm>=4.66",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["sparktasks = sparktasks.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
