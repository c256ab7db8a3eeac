"""Answers to questions that mean the same: embedders, guards, indexes. The only floor that imports numpy."""
