"""Stages that bring columns in and out: assemblers, the finisher."""
