"""Importers of published datasets: QM9, QM9S, QM8, PCQM4Mv2, MD17."""
