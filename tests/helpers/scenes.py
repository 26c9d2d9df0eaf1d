"""Queries about synthetic scenes."""


def facts(query):
    """Return the color, shape and motion that a query describes."""
    article, *words = query.split()
    assert (article, len(words)) == ("a", 3)
    return tuple(words)
