"""Classifiers behind the paper's tables: the probe (1, 2), its supervised baseline (2), nearest neighbours (3)."""
