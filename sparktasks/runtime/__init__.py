"""Models on one machine: bundles, onnxruntime sessions, tokenizers, batches. No Spark."""
