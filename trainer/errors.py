"""The three ways a step can end badly, each with its own exit code (standard library only)."""


class UserError(Exception):
    """Something the caller can mend; shown as one line without a traceback, exit code 2.

    The message says what must hold, what came, and what would work.
    """

    exit_code = 2


class TryAgain(Exception):
    """The work was cut short by its surroundings (preemption, network); exit code 75."""

    exit_code = 75


class BadItem(Exception):
    """One item of a dataset cannot be used; it goes to the quarantine and the others go on.

    Attributes:
        reason: what is wrong with the item, such as "the file is empty (0 bytes)".
        expected: what would have been accepted, such as "a JPEG or PNG image".
    """

    def __init__(self, reason: str, expected: str):
        super().__init__(f"{reason}; expected {expected}")
        self.reason = reason
        self.expected = expected
