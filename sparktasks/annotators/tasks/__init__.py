"""One file per task, named by its public task id."""
