"""The error for a refused request."""

from http import HTTPStatus


class RefusalError(Exception):
    """A request that is not answered as it was asked.

    Args:
        status: The code of the answer.
        message: One line that says which rule does not hold.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)
