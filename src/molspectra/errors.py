"""Exceptions that a user of the package may meet; each message is one clear line."""


class MolspectraError(Exception):
    """Base of every error that the package raises on purpose."""


class InputError(MolspectraError):
    """Something that the user can mend: a file, an element, an option.

    The message is one line that says what is wrong, where (file and record), and what to do.
    """


class SimulationError(MolspectraError):
    """A quantum-chemical calculation did not reach a result for a valid input."""
