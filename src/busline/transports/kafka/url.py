"""Where a cluster's servers are, from a URL."""

from urllib.parse import urlsplit

from busline.core.errors import Invalid, wrong

PORT = 9092
FORM = "kafka://host:9092, or several hosts with commas between"


def servers(url: str) -> list[str]:
    """Each `host:port`. Raises Invalid for what is no such URL, or asks for what is not there
    yet."""
    scheme, _, rest = url.partition("://")
    place = rest.rpartition("@")[2].rstrip("/")
    shown = f"{scheme}://{place}"
    if scheme == "kafka+ssl":
        raise Invalid(
            wrong(shown, "kafka://", "kafka+ssl://: not yet", "Name a listener without TLS.")
        )
    if scheme != "kafka" or not place or set(place) & set("/?#"):
        raise Invalid(wrong(shown, FORM, "another form", "Correct the URL."))
    if "@" in rest:
        raise Invalid(
            wrong(
                shown,
                "no user and password: not yet",
                "some",
                "Name a listener that asks for none.",
            )
        )
    return [_server(shown, one) for one in place.split(",")]


def _server(shown: str, text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        host, port = None, 0
    if not host:
        raise Invalid(wrong(shown, FORM, repr(text), "Correct the URL."))
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
