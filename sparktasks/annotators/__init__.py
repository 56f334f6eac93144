"""The annotators: assemblers and finishers, text preprocessing, one file per task."""
