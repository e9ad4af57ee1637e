"""Training objectives: denoising, masked patch reconstruction, alignment, supervised losses."""
