"""How numbers are put into sentences."""


def counted(number: int, thing: str, things: str = "") -> str:
    """Return "1 scan" or "3 scans".

    Args:
        number: How many.
        thing: What one of them is called.
        things: What several are called; empty = `thing` with an s.
    """
    return f"{number} {named(number, thing, things)}"


def named(number: int, thing: str, things: str = "") -> str:
    """Return "scan" for one and "scans" for any other number, where the number stands apart."""
    return thing if number == 1 else things or f"{thing}s"
