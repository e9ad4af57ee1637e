"""Compiled kernels of the models, equal in results to `models.formulas` and the layers' plain methods."""
