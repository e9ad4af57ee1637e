"""Command line, Python API and import of reference checkpoints."""
