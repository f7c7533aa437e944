"""Tokens of an issuer open what they say; forged ones open nothing; keys are read from nowhere they should not be."""

from __future__ import annotations

import base64
import hmac
import json
import time
from pathlib import Path

import httpx
import jwt
import pytest
from tests.issuer import AUDIENCE, ISSUER, answering, claims, key_file, key_set, pem, private, public, signed
from tests.small_service import account, event, item, served
from tests.test_service_keys import CALLS

from isthmus.errors import InputError
from isthmus.service.core import Service
from isthmus.service.lock.issuer import fetched, keys_of
from isthmus.service.lock.key import SCOPES
from isthmus.service.lock.operations import OPERATIONS
from isthmus.service.lock.tokens import Tokens
from isthmus.service.lock.vault import Vault
from isthmus.service.settings import TokenSettings

Client = httpx.AsyncClient
KINDS = ("rsa", "ec", "ed")


def rules(folder: Path, **more: object) -> dict[str, object]:
    return {"issuer": ISSUER, "audience": AUDIENCE, "jwks": str(key_file(folder, *KINDS)), **more}


def tokens(folder: Path, **more: object) -> Tokens:
    return Tokens(TokenSettings.model_validate(rules(folder, **more)), b"s" * 32, SCOPES)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def part(said: object) -> str:
    raw = said if isinstance(said, bytes) else json.dumps(said).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(header: object, said: object, signature: str = "") -> str:
    return f"{part(header)}.{part(said)}.{signature}"


def by_secret(secret: bytes, **headers: object) -> str:
    """Return a token signed with HMAC over a public key: the confusion of algorithms."""
    text = f"{part({'alg': 'HS256', 'typ': 'JWT', **headers})}.{part(claims())}"
    return f"{text}.{part(hmac.digest(secret, text.encode(), 'sha256'))}"


def swapped(token: str, place: int, text: str) -> str:
    parts = token.split(".")
    parts[place] = text
    return ".".join(parts)


def forged() -> dict[str, str]:
    """Return tokens that open nothing, each for one reason."""
    now, good = int(time.time()), signed()
    flipped = good[:-10] + ("A" if good[-10] != "A" else "B") + good[-9:]
    return {
        "alg none": unsigned({"alg": "none", "kid": "rsa"}, claims()),
        "alg None": unsigned({"alg": "None", "kid": "rsa"}, claims()),
        "alg NONE with a signature": unsigned({"alg": "NONE", "kid": "rsa"}, claims(), good.split(".")[2]),
        "no alg": unsigned({"kid": "rsa"}, claims(), good.split(".")[2]),
        "alg a number": unsigned({"alg": 1, "kid": "rsa"}, claims(), "AA"),
        "signature gone": swapped(good, 2, ""),
        "signature of another": swapped(good, 2, signed("rsa", claims(sub="bob")).split(".")[2]),
        "one bit": flipped,
        "body changed": swapped(good, 1, part(claims(scope=" ".join(SCOPES)))),
        "HS256 over the PEM": by_secret(pem("rsa"), kid="rsa"),
        "HS256 over the modulus": by_secret(str(public("rsa")["n"]).encode(), kid="rsa"),
        "HS256 over the JWK": by_secret(json.dumps(public("rsa")).encode(), kid="rsa"),
        "HS256, Ed25519's public half": by_secret(str(public("ed")["x"]).encode(), kid="ed"),
        "HS256 over nothing": by_secret(b"", kid="rsa"),
        "RS384": jwt.encode(claims(), private("rsa"), "RS384", {"kid": "rsa"}),  # type: ignore[arg-type]
        "PS256": jwt.encode(claims(), private("rsa"), "PS256", {"kid": "rsa"}),  # type: ignore[arg-type]
        "the key of another kind": signed("ec", kid="rsa"),
        "Ed25519 called P-256": signed("ed", kid="ec"),
        "a stranger's key under a known name": signed("stranger", kid="rsa"),
        "a key nobody knows": signed("stranger"),
        "no kid": signed(kid=None),
        "kid empty": signed(kid=""),
        "kid a path": signed(kid="../../../../dev/null"),
        "kid an address": signed(kid="http://127.0.0.1/keys"),
        "kid SQL": signed(kid="' UNION SELECT 'x' --"),
        "kid very long": signed(kid="k" * 4000),
        "jku": signed(jku="https://evil.example/keys"),
        "x5u": signed(x5u="https://evil.example/cert"),
        "jwk inside": signed("stranger", kid="rsa", jwk=public("stranger")),
        "x5c inside": signed(x5c=["MIIB"]),
        "crit": signed(crit=["exp"]),
        "b64 off": signed(b64=False, crit=["b64"]),
        "another typ": signed(typ="secevent+jwt"),
        "zip": signed(zip="DEF"),
        "expired": signed(said=claims(exp=now - 31)),
        "expired long ago": signed(said=claims(exp=1)),
        "no exp": signed(said=claims(exp=None)),
        "exp a text": signed(said=claims(exp="tomorrow")),
        "exp infinite": swapped(good, 1, part(b'{"exp": Infinity}')),
        "good for years": signed(said=claims(exp=now + 40 * 86400)),
        "exp huge": signed(said=claims(exp=10**400)),
        "not yet": signed(said=claims(nbf=now + 60)),
        "made in the future": signed(said=claims(iat=now + 600)),
        "another issuer": signed(said=claims(iss="https://evil.example")),
        "issuer with a slash": signed(said=claims(iss=ISSUER + "/")),
        "no issuer": signed(said=claims(iss=None)),
        "another audience": signed(said=claims(aud="other")),
        "audience a part": signed(said=claims(aud="isth")),
        "no audience": signed(said=claims(aud=None)),
        "no audience in the list": signed(said=claims(aud=[])),
        "no subject": signed(said=claims(sub=None)),
        "oversized": signed(said=claims(pad="x" * 9000)),
        "four parts": good + ".AAAA",
        "two parts": good.rpartition(".")[0],
        "not base64": "%%%.%%%.%%%",
        "dots": "..",
        "header a list": unsigned([], claims(), "AA"),
        "header too deep": unsigned(b'{"alg":' + b"[" * 5000, claims(), "AA"),
        "body no JSON": jwt.api_jws.encode(b"hello", private("rsa"), "RS256", {"kid": "rsa"}),  # type: ignore[arg-type]
        "body a list": jwt.api_jws.encode(b"[1]", private("rsa"), "RS256", {"kid": "rsa"}),  # type: ignore[arg-type]
        "a key's form": "isk_" + good,
        "blank before": " " + good.replace(".", " ."),
    }


def test_forged_tokens_open_nothing(tmp_path: Path) -> None:
    cases = forged()
    assert len(cases) >= 40

    async def test(client: Client, service: Service) -> None:
        body = {"persons": [account()]}
        for kind in KINDS:
            assert (await client.post("/v1/recommend", json=body, headers=bearer(signed(kind)))).status_code == 200
        for name, token in cases.items():
            for headers in (bearer(token), {"x-api-key": token}):
                answer = await client.post("/v1/recommend", json=body, headers=headers)
                assert answer.status_code == 401, name
                assert answer.json()["detail"] == "a valid key is needed", name
        assert (await client.post("/v1/recommend", json=body)).status_code == 401

    served(tmp_path, test, tokens=rules(tmp_path), guesses=0)


def test_every_operation_opens_to_a_token_with_its_scope_only(tmp_path: Path) -> None:
    Vault(tmp_path).close()

    async def test(client: Client, service: Service) -> None:
        for one in OPERATIONS:
            path, body = CALLS[one.name]
            for scope in (*SCOPES, ""):
                token = signed("ed", claims(scope=f"openid {scope}"))
                got = (await client.request(one.method, path, json=body, headers=bearer(token))).status_code
                assert (got == 403) == (bool(one.scope) and scope != one.scope), (one.name, scope, got)
                assert got != 401
            late = bearer(signed("ed", claims(exp=int(time.time()) - 60, scope=" ".join(SCOPES))))
            got = (await client.request(one.method, path, json=body, headers=late)).status_code
            assert (got == 401) == bool(one.scope), (one.name, got)
            lost = bearer(signed("ed", claims(scope=" ".join(SCOPES), tenant="other")))
            got = (await client.request(one.method, path, json=body, headers=lost)).status_code
            assert got not in (401, 403), "the claim means nothing unless it was named"

    served(tmp_path, test, tokens=rules(tmp_path))


def test_tenant_and_platforms_come_from_the_claims_that_were_named(tmp_path: Path) -> None:
    named = {"tenant_claim": "org", "platforms_claim": "https://shop.example/platforms"}

    async def test(client: Client, service: Service) -> None:
        async def status(platform: str, **said: object) -> int:
            more = {("https://shop.example/platforms" if name == "at" else name): one for name, one in said.items()}
            who = account(0, platform)
            headers = bearer(signed("ec", claims(**more)))
            return (await client.post("/v1/recommend", json={"persons": [who]}, headers=headers)).status_code

        assert await status("north", org="default", at=["north"]) == 200
        assert await status("north", org="other", at="north south") == 200
        assert await status("south", org="default", at=["north"]) == 403
        assert await status("north", org="nobody", at=["north"]) == 404
        for wrong in (
            {"org": "default"},
            {"at": ["north"]},
            {"org": "", "at": ["north"]},
            {"org": "default", "at": []},
        ):
            assert await status("north", **wrong) == 401, wrong
        assert await status("north", org=["default"], at=["north"]) == 401
        assert await status("north", org="default", at=[1]) == 401
        assert await status("north", org="default", at=["north"], scope=None, permissions=["recommend"]) == 200
        headers = bearer(signed("ec", claims(org="default", scope="items", **{named["platforms_claim"]: "north"})))
        await client.delete(f"/v1/items/north:{item(2)['item']}", headers=headers)
        log = service.vault.audit()
        assert [one["actor"][:4] for one in log] == ["jwt-"], "changes are written down under a keyed name"
        assert "ann@" not in json.dumps(log)

    served(tmp_path, test, tokens=rules(tmp_path, **named), tenants=("default", "other"))


def test_keys_and_tokens_stand_beside_each_other(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    key = vault.create(tenant="default", scopes=["events"])[1]
    vault.close()

    async def test(client: Client, service: Service) -> None:
        body = {"events": [event(1)]}
        assert (await client.post("/v1/events", json=body, headers=bearer(key))).status_code == 202
        assert (await client.post("/v1/events", json=body, headers=bearer(signed()))).status_code == 202
        assert (await client.post("/v1/events", json=body)).status_code == 401

    served(tmp_path, test, tokens=rules(tmp_path))


def test_new_keys_of_the_issuer_are_read_and_not_too_often(tmp_path: Path) -> None:
    said = {"issuer": "", "jwks_uri": ""}
    answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
    with answering(answers) as (address, asked):
        said.update(issuer=address, jwks_uri=address + "/keys")
        answers["/.well-known/openid-configuration"] = (200, {}, json.dumps(said).encode())
        answers["/keys"] = (200, {}, json.dumps(key_set("rsa")).encode())

        async def test(client: Client, service: Service) -> None:
            async def status(kind: str) -> int:
                headers = bearer(signed(kind, claims(iss=address)))
                return (await client.post("/v1/recommend", json={"persons": [account()]}, headers=headers)).status_code

            assert await status("rsa") == 200
            before = len(asked)
            assert await status("ec") == 401
            assert len(asked) == before, "just read: not again so soon"
            service.vault.tokens._tried -= 60.0
            assert await status("ec") == 401
            assert len(asked) == before + 2
            answers["/keys"] = (200, {}, json.dumps(key_set("ec")).encode())
            service.vault.tokens._tried -= 60.0
            assert await status("ec") == 200
            assert await status("rsa") == 401, "a key the issuer took back"
            answers["/keys"] = (500, {}, b"")
            service.vault.tokens._tried -= 60.0
            assert await status("ed") == 401
            assert await status("ec") == 200, "an issuer out of order: what is known holds"
            many = len(asked)
            for _ in range(50):
                assert await status("stranger") == 401
            assert len(asked) == many, "unknown keys do not make it ask each time"

        served(tmp_path, test, tokens={"issuer": address, "audience": AUDIENCE})


NEVER = (
    "file:///etc/passwd",
    "ftp://login.example/keys",
    "gopher://127.0.0.1:6379/_keys",
    "data:application/json,{}",
    "http://login.example/keys",
    "http://169.254.169.254/latest/meta-data",
    "http://[fd00:ec2::254]/latest",
    "http://10.0.0.1/keys",
    "http://192.168.1.1/keys",
    "http://172.16.0.1/keys",
    "http://0.0.0.0/keys",
    "http://127.1/keys",
    "http://127.0.0.2/keys",
    "http://2130706433/keys",
    "http://0x7f000001/keys",
    "http://017700000001/keys",
    "http://[::ffff:127.0.0.1]/keys",
    "http://localhost.login.example/keys",
    "http://127.0.0.1.login.example/keys",
    "http://127.0.0.1@login.example/keys",
    "https://127.0.0.1:x/keys",
    "https://ann:secret@login.example/keys",
    "https://login.example\\@127.0.0.1/keys",
    "https://lоgin.example/keys",
    "https:///keys",
    "//127.0.0.1/keys",
    "HTTP://LOGIN.EXAMPLE/keys",
    "http://127.0.0.1%2f@login.example/",
    "http://[::1/keys",
    "unix:///var/run/docker.sock",
)
INSIDE = (
    "https://10.0.0.1/keys",
    "https://169.254.169.254/keys",
    "https://[::1]/keys",
    "https://[fe80::1]/keys",
    "https://[::ffff:10.0.0.1]/keys",
    "https://localhost/keys",
    "https://100.64.0.1/keys",
    "https://0/keys",
)


def test_keys_are_read_from_no_address_inside_and_redirects_lead_nowhere() -> None:
    assert len(NEVER) >= 30
    for url in NEVER:
        with pytest.raises(InputError, match=r"is not asked for keys|is no address"):
            fetched(url)
    keys = json.dumps(key_set("rsa")).encode()
    with answering({"/keys": (200, {}, keys)}) as (inside, hit):
        answers = {f"/{status}": (status, {"location": f"{inside}/keys"}, b"") for status in (301, 302, 303, 307, 308)}
        answers["/long"] = (200, {}, b" " * (1 << 20))
        answers["/deep"] = (200, {}, b"[" * 100_000)
        with answering(answers) as (address, asked):
            for path in answers:
                with pytest.raises(InputError):
                    fetched(address + path)
            assert len(asked) == len(answers)
            for url in (*NEVER, *INSIDE):
                said = {"issuer": address, "jwks_uri": url}
                answers["/.well-known/openid-configuration"] = (200, {}, json.dumps(said).encode())
                with pytest.raises(InputError):
                    keys_of(address)
            answers["/.well-known/openid-configuration"] = (200, {}, json.dumps({**said, "issuer": "x"}).encode())
            with pytest.raises(InputError, match="another issuer"):
                keys_of(address)
        assert not hit


def test_weak_and_private_and_foreign_keys_are_left_out(tmp_path: Path) -> None:
    odd = [
        public("weak"),
        public("p384"),
        {**public("ec"), "kid": "encrypts", "use": "enc"},
        {**public("ec"), "kid": "another", "alg": "ES512"},
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
        {**public("ec"), "kid": 5},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "!"},
        "text",
    ]
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({"keys": [*odd, public("ed")]}))
    settings = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": str(path)}
    assert set(Tokens(TokenSettings.model_validate(settings), b"s", SCOPES).keys) == {"ed"}
    for content in ({"keys": odd}, {"keys": {}}, {}, []):
        path.write_text(json.dumps(content))
        with pytest.raises(InputError):
            Tokens(TokenSettings.model_validate(settings), b"s", SCOPES)
    with pytest.raises(InputError, match="cannot be read"):
        Tokens(TokenSettings.model_validate({**settings, "jwks": str(tmp_path / "none")}), b"s", SCOPES)


def test_a_token_says_as_much_as_a_key(tmp_path: Path) -> None:
    found = tokens(tmp_path).find(signed("ec", claims(scope="recommend admin events")))
    assert found is not None
    assert (found.tenant, found.scopes, found.platforms) == ("default", ("recommend", "events"), ())
    assert found.prefix == tokens(tmp_path).find(signed("rsa")).prefix, "one owner, one name"
    assert found.prefix != tokens(tmp_path).find(signed("rsa", claims(sub="bob"))).prefix
