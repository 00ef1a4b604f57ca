"""Text of others, as it may stand in a line of a log."""


def printable(text: str) -> str:
    r"""Return the text with all characters escaped that are not seen, or are seen as something else.

    The writer of a row chooses its key, its queue's name and texts of errors. With a line break, or with the commands
    of a terminal, such a text could write lines of its own into the log. It is written as Python writes it: ``\n``.

    Example:
        >>> printable("order-1\nERROR: all is lost")
        'order-1\\nERROR: all is lost'
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
