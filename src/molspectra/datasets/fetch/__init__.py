"""Downloads: known sources, continued after an interruption, checked by hash."""
