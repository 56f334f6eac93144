"""Generation: one engine for every decoder, driven by the names in its graph."""
