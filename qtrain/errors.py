"""The one exception users of qtrain see."""


class QtrainError(Exception):
    """Something the user can put right: the message is one line naming the cause and the cure."""
