"""Why somebody acts by the command line: kept with the act, so it is never left empty."""

import typer

_LONGEST = 4000


def said(why: str) -> str:
    """Return a reason without the spaces around it; the callback of every ``--why``."""
    words = why.strip()
    if not words:
        raise typer.BadParameter("say why: it is kept")
    if len(words) > _LONGEST:
        raise typer.BadParameter(f"at most {_LONGEST} characters are kept")
    return words
