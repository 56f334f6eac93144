"""Jobs: a YAML file that says what to read, which stages to run and where to write."""
