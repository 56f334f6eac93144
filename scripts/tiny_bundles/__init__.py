"""Tiny bundles for the parity tests.

`build.py` makes them all; the file of a modality (`text_encoders.py`, `generation.py`) holds the literal table of its
bundles, and what its networks are, are fed, answer, and are exported as. Another modality is another such file, and a
line in `build.MODALITIES`. The other files are parts of these.
"""
