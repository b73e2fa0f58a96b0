"""The one error of the devstack: something cannot be had, and what to do about it."""


class DevstackUnavailable(Exception):
    """A local server cannot be had.

    Args:
        what: one sentence, what is missing or went wrong.
        next_step: one sentence, what the reader can do now.
    """

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(f"{what} Next: {next_step}")
        self.what = what
        self.next_step = next_step
