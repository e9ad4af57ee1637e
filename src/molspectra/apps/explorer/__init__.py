"""The explorer: a local page that identifies spectra and shows molecules, libraries and runs."""
