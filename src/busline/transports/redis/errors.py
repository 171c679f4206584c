"""What the client and the server say went wrong, in busline's words."""

import re

from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from busline.core.errors import BuslineError, ConfigError, Unavailable, wrong
from busline.transports.redis.place import ANSWER, Place

CODE = re.compile(
    r"\b(OOM|MISCONF|NOREPLICAS|LOADING|READONLY|MASTERDOWN|BUSY|TRYAGAIN|CLUSTERDOWN|UNBLOCKED|NOAUTH|WRONGPASS|NOPERM)\b"
)
LAYOUT = re.compile(r"LAYOUT (\S+) (.*)")  # ours, and the one that a script found
FULL = ("OOM", "MISCONF", "NOREPLICAS")
LOGIN = ("NOAUTH", "WRONGPASS")
# in scripts, without the word NOPERM
DENIED = re.compile(r"user executing the script can't|ACL failure in script|no permissions to")
# where in a script: of no use to a reader
PLACE = re.compile(r" (mentioned in the command )?script: .*")
RIGHTS = (
    "+@read +@write +@blocking +@scripting +@pubsub +@connection +client|setname +time '~{prefix}*'"
    " resetchannels '&{prefix}*'"
)


def code(error: Exception) -> str:
    """The word with which the server says what kind of error it is; scripts have it somewhere in
    their text."""
    given = getattr(error, "status_code", None)
    found = CODE.search(str(error))
    return str(given) if given not in (None, "ERR") else found[1] if found else ""


def is_full(error: Unavailable) -> bool:
    """Whether the server answered that it takes no writes: nothing was done, and asking again at
    once brings nothing."""
    return isinstance(error.__cause__, Exception) and code(error.__cause__) in FULL


def translated(error: Exception, place: Place, prefix: str) -> BuslineError:
    """The same error in busline's words: ConfigError where somebody must change something,
    Unavailable where it may be over soon by itself."""
    text, kind = str(error).partition(". ")[0][:300], code(error)
    if (told := _for_good(error, text, kind, place, prefix)) is not None:
        return ConfigError([told])
    if kind in FULL:
        expected, remedy = "takes writes", "Look at its maxmemory, its disk and its replicas."
        return Unavailable(wrong(place, f"a server that {expected}", text, remedy))
    if kind:
        remedy = "Wait until it is, or name the primary."
        return Unavailable(wrong(place, "a server that is ready for writes", text, remedy))
    got = text or f"none within {ANSWER:g} s"
    remedy = "Is Redis running there, and reachable from here?"
    return Unavailable(wrong(place, "an answer", got, remedy))


def _for_good(error: Exception, text: str, kind: str, place: Place, prefix: str) -> str | None:
    """What is wrong until somebody changes it."""
    if kind == "NOPERM" or isinstance(error, NoPermissionError) or DENIED.search(text):
        expected = "a login that may use the scripts, keys and channels of this namespace"
        rights = RIGHTS.replace("{prefix}", prefix)
        remedy = f"Type at the server: ACL SETUSER {place.user or 'default'} {rights}"
        return wrong(place, expected, PLACE.sub("", text), remedy)
    if layouts := LAYOUT.match(text):
        ours, found = layouts.groups()
        remedy = "A newer busline has written these keys: upgrade, or choose another namespace."
        return wrong(f"{prefix}layout", f"layout {ours}", f"layout {found}", remedy)
    if kind in LOGIN or isinstance(error, AuthenticationError):
        remedy = "Write redis://user:password@host."
        return wrong(place, "a login that the server accepts", text, remedy)
    if not kind and ("DB index" in text or "Invalid Database" in text):
        expected, got = "a database that the server has", "one that it has not"
        return wrong(place, expected, got, "Leave it out for 0, or raise `databases` there.")
    if not kind and isinstance(error, ResponseError):
        expected = "Redis 6.2 or newer, with keys as busline wrote them"
        remedy = "Look at its version, and at this namespace's keys."
        return wrong(place, expected, text, remedy)
    return None
