"""Roles, identities and what the access file may say: the pure half of access."""

from __future__ import annotations

import pytest

from streamkit.access.roles import BUILT_IN, union
from streamkit.access.rules import Rules, parse_rules
from streamkit.access.tokens import new_token, sha256_of
from streamkit.errors import InvalidArgumentError
from streamkit.rights import Action, Identity

SECRET = new_token("ci")

FILE = f"""
[[token]]
id = "ci"
sha256 = "{sha256_of(SECRET)}"
roles = ["shop", "tails"]
expires = 2030-01-01T00:00:00Z

[[certificate]]
san = "spiffe://shop/worker"
roles = ["shop"]

[[peer]]
uid = 1000
roles = ["admin"]

[role.shop]
subscribe = ["orders.>"]
publish = ["orders.eu.*"]
streams = 10
queries = 2

[role.tails]
logs = ["api-*"]
methods = ["/shop.Orders/*"]
streams = 20
"""
NOW = 1_800_000_000.0


def rules() -> Rules:
    return parse_rules(FILE)


def test_a_token_has_the_union_of_its_roles() -> None:
    holder = rules().token_holder(SECRET, NOW)
    assert holder is not None and holder.name == "token:ci"
    grants = rules().grants_of(holder)
    assert grants.allows(Action.SUBSCRIBE, "orders.eu.*")
    assert not grants.allows(Action.SUBSCRIBE, ">")
    assert grants.allows(Action.PUBLISH, "orders.eu.1")
    assert not grants.allows(Action.PUBLISH, "orders.us.1")
    assert grants.allows(Action.LOGS, "api-*-x") and not grants.allows(Action.LOGS, "*")
    assert grants.allows(Action.METHODS, "/shop.Orders/Watch")
    assert not grants.allows(Action.METHODS, "/shop.Stock/Watch")
    assert not any(
        grants.allows(action, "x") for action in (Action.JOBS, Action.QUERY, Action.ADMIN)
    )
    assert (grants.quota.streams, grants.quota.queries) == (20, 2)
    assert grants.narrowed(Action.LOGS) == ("api-*",)
    assert grants.narrowed(Action.JOBS) == ()


def test_the_built_in_roles() -> None:
    reader, writer, admin = (union([BUILT_IN[name]]) for name in ("reader", "writer", "admin"))
    reads = {Action.SUBSCRIBE, Action.LOGS, Action.JOBS, Action.QUERY}
    writes = {Action.PUBLISH, Action.WRITE_LOGS, Action.REPORT_JOBS, Action.CANCEL_JOBS}
    for action in Action:
        everything = ">" if action.of_topics else "*"
        assert reader.allows(action, everything) is (action in reads)
        assert writer.allows(action, everything) is (action in writes)
        assert admin.allows(action, everything)
    assert reader.narrowed(Action.LOGS) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk_ci_",
        "sk_ci_" + "A" * 43,
        SECRET[:-1],
        SECRET + "A",
        SECRET.replace("ci", "cd"),
        SECRET.upper(),
        "ä" * 50,
        "x" * 1_000_000,
    ],
    ids=range(9),
)
def test_no_other_text_is_the_token(text: str) -> None:
    assert rules().token_holder(text, NOW) is None


def test_expired_and_revoked_tokens_are_nobodys() -> None:
    late = 1_893_456_000.0  # 2030-01-01
    assert rules().token_holder(SECRET, late - 1) is not None
    assert rules().token_holder(SECRET, late) is None
    assert Rules().token_holder(SECRET, NOW) is None


def test_identities_are_decided_again_under_new_rules() -> None:
    old = rules()
    holder = old.token_holder(SECRET, NOW)
    assert holder is not None
    worker = Identity("cert:spiffe://shop/worker", ("shop",))
    local = Identity("uid:1000", ("admin",))
    signed = Identity("jwt:ann", ("shop",), NOW + 1)
    fewer = parse_rules(FILE.replace('roles = ["shop", "tails"]', 'roles = ["tails"]'))
    for identity in (holder, worker, local):
        assert old.still(identity, NOW) == identity
        assert Rules().still(identity, NOW) is None
    assert fewer.still(holder, NOW) == Identity("token:ci", ("tails",), holder.expires)
    assert old.still(signed, NOW) is None
    believing = parse_rules('[jwt]\nissuer = "i"\naudience = "a"\njwks_file = "f"')
    assert believing.still(signed, NOW) == signed
    assert believing.still(signed, NOW + 1) is None
    # A role that is gone allows nothing; the identity itself stays.
    assert not Rules().grants_of(worker).allows(Action.SUBSCRIBE, "orders.eu")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[role.reader]", "role.reader is built in"),
        ("[role.x]\nsubscribed = []", "did you mean 'subscribe'?"),
        ('[role.x]\nsubscribe = "orders"', "role.x.subscribe must be a list"),
        ('[role.x]\nsubscribe = ["o*"]', "is no topic pattern"),
        ('[role.x]\nlogs = [""]', "must not be empty"),
        ('[role.x]\nmethods = ["shop"]', "/package.Service/Method"),
        ("[role.x]\nstreams = 0", "role.x.streams must be"),
        ("[role.x]\nstreams = true", "role.x.streams must be"),
        ("[role.x]\nadmin = 1", "role.x.admin"),
        (f"[role.x]\nlogs = {['x'] * 257}", "more than 256 patterns"),
        ("[roles.x]", "did you mean 'role'?"),
        ("[token]", "written as [[token]]"),
        ('[[token]]\nid = "a_b"', "token[0].id"),
        ('[[token]]\nid = "a"\nsha256 = "12"', "token[0].sha256"),
        (f'[[token]]\nid = "a"\nsha256 = "{"0" * 64}"\nroles = ["reder"]', "'reader'"),
        (f'[[token]]\nid = "a"\nsha256 = "{"0" * 64}"\nexpires = 2030-01-01', "expires"),
        (f'[[token]]\nid = "a"\nsha256 = "{"0" * 64}"\n' * 2, "there twice"),
        ('[[peer]]\nuid = "root"', "peer[0].uid"),
        ("[[certificate]]", "certificate[0].san"),
        ('[jwt]\nissuer = "i"', "jwt.audience"),
        ('[jwt]\nissuer = "i"\naudience = "a"', "jwks_file or jwks_url"),
        ('[jwt]\nissuer="i"\naudience="a"\njwks_url="http://127.0.0.1.example/x"', "https"),
        ('[jwt]\nissuer="i"\naudience="a"\njwks_file="f"\nalgorithms=["HS256"]', "HS256"),
        ('[jwt]\nissuer="i"\naudience="a"\njwks_file="f"\nalgorithms=["none"]', "none"),
        ("= 1", "the access file"),
    ],
)
def test_a_wrong_file_is_told_by_its_entry(text: str, told: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_rules(text)
    assert told in str(caught.value)


def test_rules_show_no_digest() -> None:
    assert sha256_of(SECRET) not in repr(rules())
