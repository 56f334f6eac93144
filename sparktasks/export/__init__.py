"""PyTorch models to ONNX folders: the only room that uses torch, transformers and Optimum, where they are needed."""
