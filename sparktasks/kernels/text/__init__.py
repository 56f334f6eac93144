"""Kernels of the text annotators that need no model."""
