"""The executor half of every annotator: Arrow arrays in, one Arrow array out, no Spark."""
