"""Folders that somebody made to do harm, each tried in a process of its own with limits on time and memory."""
