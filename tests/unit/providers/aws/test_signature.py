"""Signature Version 4: AWS' own test vector, and the same as botocore for any request."""

from __future__ import annotations

from datetime import UTC, datetime
from string import ascii_letters, digits

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given
from hypothesis import strategies as st

from constellation.base.secret import Secret
from constellation.providers.aws.signature import Credentials, signed_headers

AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
# AWS' published test suite for Signature Version 4, "get-vanilla"
KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
VANILLA = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"


def _credentials(token: str = "") -> Credentials:
    return Credentials(
        access_key_id="AKIDEXAMPLE",
        secret_access_key=Secret(KEY.encode()),
        session_token=Secret(token.encode()) if token else None,
        expires=None,
    )


def test_the_published_vector() -> None:
    headers = signed_headers(
        "GET",
        "https://example.amazonaws.com/",
        headers={},
        body=b"",
        credentials=_credentials(),
        region="us-east-1",
        service="service",
        now=AT,
    )
    assert headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={VANILLA}"
    )


WORDS = st.text(ascii_letters + digits + "-._~", min_size=1, max_size=12)


@given(
    body=st.binary(max_size=200),
    query=st.dictionaries(WORDS, WORDS, max_size=4),
    token=st.sampled_from(["", "a/session+token=="]),
    value=st.text(ascii_letters + " ", max_size=20),
)
def test_any_request_is_signed_as_botocore_signs_it(
    body: bytes, query: dict[str, str], token: str, value: str
) -> None:
    suffix = "?" + "&".join(f"{k}={v}" for k, v in query.items()) if query else ""
    url = f"https://ec2.eu-west-1.amazonaws.com/{suffix}"
    headers = signed_headers(
        "POST",
        url,
        headers={"X-Some": value},
        body=body,
        credentials=_credentials(token),
        region="eu-west-1",
        service="ec2",
        now=AT,
    )
    again = AWSRequest(method="POST", url=url, data=body, headers={"x-some": value})
    again.context["timestamp"] = "20150830T123600Z"
    again.headers["X-Amz-Date"] = "20150830T123600Z"
    if token:
        again.headers["X-Amz-Security-Token"] = token
    signer = SigV4Auth(BotocoreCredentials("AKIDEXAMPLE", KEY, token or None), "ec2", "eu-west-1")
    canonical = signer.canonical_request(again)
    signature = signer.signature(signer.string_to_sign(again, canonical), again)
    assert headers["authorization"].endswith(f"Signature={signature}")


def test_secrets_are_not_shown() -> None:
    assert KEY not in repr(_credentials("token"))
    assert "token" not in repr(_credentials("token")).replace("session_token", "")
