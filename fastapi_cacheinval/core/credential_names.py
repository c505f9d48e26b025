"""How the name of a header field, a query parameter, a part of a path or a cookie says that it is a credential.

A credential lets its bearer in, and can be revoked. An identity says who or what is asked about, as `user_id` and
`email` do in a path or a query: what names it there is a part of the cache key, and that is enough. In a header field
an identity says who asks, because proxies and gateways hand it on there.
"""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["is_callers_header", "is_credential", "is_headers_credential"]

# Each says so as a word of a name: as parts they stand in ordinary ones, such as "author", "aside" and "shopping".
_WORDS = frozenset(
    {
        "accesskey", "apikey", "assertion", "auth", "authn", "authorization", "authz", "bearer", "cert", "cred",
        "credential", "credentials", "creds", "csrf", "dpop", "hmac", "jwt", "macaroon", "oauth", "otp", "pass",
        "passcode", "passkey", "passphrase", "passwd", "password", "pin", "pincode", "pkey", "privkey", "psk", "pw",
        "pwd", "saml", "secret", "session", "sessionid", "sid", "sig", "signature", "sso", "ticket", "tok", "token",
        "totp", "xsrf",
    }
)  # fmt: skip
_ENDINGS = ("apikey", "passcode", "passphrase", "password", "secret", "sessid", "sessionid", "token")
# A key and a code say so alone, and with one of these.
_KEYS_OF = frozenset(
    {
        "access", "account", "admin", "api", "app", "client", "licence", "license", "master", "private", "secret",
        "service", "share", "signing", "subscription", "user",
    }
)  # fmt: skip
_CODES_OF = frozenset(
    {
        "access", "activation", "backup", "confirmation", "entry", "invitation", "invite", "login", "mfa", "reset",
        "recovery", "security", "share", "sms", "verification", "verify",
    }
)  # fmt: skip
# A token of these says where a list goes on.
_PLACES = frozenset({"continuation", "cursor", "next", "page", "prev", "previous", "resume", "sync"})
# What names a credential without being one: `token_id`, `ticket_type`. The id of a session lets in.
_OF_A_THING = frozenset({"id", "ids", "name", "type", "kind", "count", "number", "status"})
_SESSIONS = frozenset({"session", "sid"})

# Parts of the names of header fields by which proxies, gateways and apps hand on who somebody is.
_IN_HEADERS = re.compile(
    "token|auth|key|session|user|jwt|cookie|passw|secret|credential|signature|assertion|oidc|cf-access|"
    "client-cert|ssl-client|principal|identity|email|login|bearer|macaroon|impersonat|certificate"
)
_WORDS_IN_HEADERS = frozenset({"uid"})
# What gateways say of somebody beside a name. A handler that declares one of these has it in its key.
_WORDS_OF_CALLERS = frozenset(
    {
        "2fa", "account", "accounts", "acl", "acting", "actor", "admin", "basket", "behalf", "branch", "caller",
        "callers", "cart", "claim", "claims", "clientcert", "clientid", "company", "consumer", "customer",
        "customers", "department", "dn", "entitlements", "eppn", "family", "group", "groups", "guest", "holder",
        "household", "member", "merchant", "mfa", "msisdn", "nickname", "nonce", "operator", "org", "organisation",
        "organization", "orgs", "owner", "partner", "permission", "permissions", "perms", "person", "player",
        "realm", "role", "roles", "scope", "scopes", "seller", "serial", "shib", "shibboleth", "spiffe", "staff",
        "sub", "subaccount", "subject", "subscriber", "team", "teams", "tenant", "tenants", "verify", "workspace",
    }
)  # fmt: skip
# Without an id a device is a kind of them, as in `Device-Memory`.
_WITH_AN_ID = frozenset({"agent", "client", "device", "profile", "store", "visitor"})
_IDS = frozenset({"id", "guid", "uuid"})
# What software is asking, and whether a click did.
_OF_SOFTWARE = frozenset({"user-agent", "sec-fetch-user"})
_ORDINARY_WORDS = re.compile("monkey|donkey|turkey|hockey|whiskey|keyboard|keyword|keynote|keypad")


def _words_of(name: str) -> list[str]:
    split = re.sub("([a-z0-9])([A-Z])", r"\1-\2", name).lower().replace("_", "-").replace(".", "-")
    words = [word for word in split.split("-") if word]
    # `X-Code` is a code.
    return words[1:] if len(words) > 1 and words[0] == "x" else words


def is_credential(name: str) -> bool:
    """Whether a parameter's name suggests that what comes there lets in, as `token`, `apiKey` and `pin` do."""
    words = _words_of(name)
    if not words:
        return False
    for word, qualifiers in (("key", _KEYS_OF), ("code", _CODES_OF)):
        if words == [word] or (words[-1] == word and not qualifiers.isdisjoint(words)):
            return True
    found = {word for word in words if word in _WORDS or word.endswith(_ENDINGS)}
    if not found or (found == {"token"} and not _PLACES.isdisjoint(words)):
        return False
    return words[-1] not in _OF_A_THING or not _SESSIONS.isdisjoint(found)


def is_headers_credential(name: str) -> bool:
    """Whether a header field's name suggests that it says who the caller is, or lets in."""
    dashed = _ORDINARY_WORDS.sub("", name.lower().replace("_", "-"))
    if dashed in _OF_SOFTWARE:
        return False
    words = _words_of(dashed)
    return is_credential(dashed) or _IN_HEADERS.search(dashed) is not None or not _WORDS_IN_HEADERS.isdisjoint(words)


def is_callers_header(name: str) -> bool:
    """Whether a header field's name suggests that a page may be for some callers alone, where nothing else tells."""
    words = _words_of(name)
    with_an_id = any(word in _WITH_AN_ID and after in _IDS for word, after in pairwise(words))
    return with_an_id or not _WORDS_OF_CALLERS.isdisjoint(words) or is_headers_credential(name)
