"""The experiments of the paper, repeated: what to run, at which scale, running it, and the page about it."""
