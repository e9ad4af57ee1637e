"""Compiled kernels of the models: additions beside readable torch, equal in results."""
