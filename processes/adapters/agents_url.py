"""The URL of the agents' port as a person typed it: what can never be dialled is named before anything is. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

LOOKS_LIKE = "ws://HOST:PORT/ws or wss://HOST/ws"


class BadUrl(ValueError):
    """Nothing can be dialled there; the text says why, and begins with a verb."""


def parsed(url: str) -> WebSocketURI:
    """Return the URL's parts. Raises: BadUrl."""
    try:
        parts, found = urlsplit(url), parse_uri(url)
        found.host.encode("idna")  # what the resolver is asked for
    except UnicodeError:
        raise BadUrl("names no host: the parts of its name have 1 to 63 characters") from None
    except ValueError:
        raise BadUrl("is not a URL") from None
    except InvalidURI as error:
        raise BadUrl(f"must be {LOOKS_LIKE}: {error.msg}") from None
    if parts.port == 0 or "@" in parts.netloc:
        raise BadUrl(f"must be {LOOKS_LIKE}")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise BadUrl("holds a blank or a control character")
    return found
