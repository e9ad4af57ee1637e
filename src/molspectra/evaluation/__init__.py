"""Evaluation: metrics, predictions, retrieval, reconstructed spectra, figures and the HTML report."""
