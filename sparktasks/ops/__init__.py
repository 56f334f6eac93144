"""Arithmetic on numpy arrays: no model, no Spark."""
