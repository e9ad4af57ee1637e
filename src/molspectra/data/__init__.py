"""Input of training: batches, neighbour lists, counter-based random numbers, augmentation, streams, splits.

Every module is imported on its own (``from molspectra.data.batch import Batch``), so that importing this
package costs nothing.
"""
