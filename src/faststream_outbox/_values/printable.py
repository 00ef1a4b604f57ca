"""Text of others, as it may stand in a line of a log."""


def printable(text: str) -> str:
    r"""Return the text with everything escaped that is not seen, or is seen as something else.

    Whoever writes rows chooses keys, queue names and what stands in errors. With a line break, or with the commands of
    a terminal, one of them could write lines of its own into the log. They are written as Python writes them: ``\n``.

    Example:
        >>> printable("order-1\nERROR: all is lost")
        'order-1\\nERROR: all is lost'
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
