"""Text of strangers, made fit to be shown in a terminal or a log."""


def printable(text: str) -> str:
    """The text with everything that would break or disguise a line, or command a terminal, spelled out (``\\n``)."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def printable_lines(text: str) -> str:
    """The same of text that may have lines."""
    return "\n".join(map(printable, text.split("\n")))


def first_line(reason: object) -> str:
    """Of a library's message, without the full stop."""
    return next(iter(str(reason).strip().splitlines()), type(reason).__name__).rstrip(".")
