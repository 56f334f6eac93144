"""Parts of `make_tiny_bundles.py`: vocabularies, models, exports, checks and goldens."""
