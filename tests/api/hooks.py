"""What schemathesis has to know of a node that the description cannot say."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """A generated value is one line; an example is lines already."""
    if isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


@schemathesis.serializer(
    "application/merge-patch+json", "application/json-patch+json", "application/vnd.folkmoot.edit+json"
)
def patch(context, value):
    """Patches are JSON."""
    if isinstance(value, bytes):
        return value
    return json.dumps(value).encode("utf-8", "surrogatepass")


@schemathesis.serializer("application/vnd.automerge")
def file(context, value):
    """A generated value is no file of Automerge, which is what is refused."""
    if isinstance(value, bytes):
        return value
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


@schemathesis.hook
def before_call(context, case, kwargs):
    """Nobody waits: streams have no end, and a node alone never reaches the durability or the session that is asked for."""
    for given in (case.query, case.headers):
        if given is None:
            continue
        for name in list(given):
            low = name.lower()
            if low == "feed" and given[name] in ("sse", "longpoll"):
                given[name] = "normal"
            elif low == "wait":
                del given[name]
    # With this the answer is the document, whatever its form.
    if case.headers and "return=representation" in str(case.headers.get("Prefer")):
        del case.headers["Prefer"]
    # Fewer requests would get past a token that is none.
    if case.headers and "Folkmoot-Session" in case.headers and not case.path.endswith("/session"):
        del case.headers["Folkmoot-Session"]
    if case.headers and ("Folkmoot-Durability" in case.headers or "Folkmoot-Session" in case.headers):
        case.headers["Folkmoot-Timeout"] = "20ms"
