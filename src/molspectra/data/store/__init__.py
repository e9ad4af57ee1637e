"""The Arrow store: columns of molecules, spectra and labels, memory-mapped for training."""
