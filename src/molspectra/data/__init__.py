"""Dataset store, splits, batches, neighbour lists and counter-based random numbers.

Every module is imported on its own (``from molspectra.data.store import Store``), so that importing
this package costs nothing.
"""
