"""Live comparison with transformers; run on its own: `pytest tests/parity`."""
