"""Text of models and programs, made safe for a terminal."""


def printable(text: str) -> str:
    """The text with a dot for every unprintable character but newlines: escape codes would paint the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "·" for char in text)
