"""AWS' authority for Nitro attestation documents, of NitroTPM and enclaves alike.

Source: AWS, "Nitro Enclaves: verifying the root of trust", AWS_NitroEnclaves_Root-G1 (the page
states the digest); as carried by github.com/lockboot/vaportpm and github.com/Dstack-TEE/dstack.
"""

from __future__ import annotations

from constellation.attestation.roots.pem import certificate

__all__ = ["NITRO_ROOT_G1", "ROOTS"]

NITRO_ROOT_G1 = certificate(
    "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b",
    """\
-----BEGIN CERTIFICATE-----
MIICETCCAZagAwIBAgIRAPkxdWgbkK/hHUbMtOTn+FYwCgYIKoZIzj0EAwMwSTEL
MAkGA1UEBhMCVVMxDzANBgNVBAoMBkFtYXpvbjEMMAoGA1UECwwDQVdTMRswGQYD
VQQDDBJhd3Mubml0cm8tZW5jbGF2ZXMwHhcNMTkxMDI4MTMyODA1WhcNNDkxMDI4
MTQyODA1WjBJMQswCQYDVQQGEwJVUzEPMA0GA1UECgwGQW1hem9uMQwwCgYDVQQL
DANBV1MxGzAZBgNVBAMMEmF3cy5uaXRyby1lbmNsYXZlczB2MBAGByqGSM49AgEG
BSuBBAAiA2IABPwCVOumCMHzaHDimtqQvkY4MpJzbolL//Zy2YlES1BR5TSksfbb
48C8WBoyt7F2Bw7eEtaaP+ohG2bnUs990d0JX28TcPQXCEPZ3BABIeTPYwEoCWZE
h8l5YoQwTcU/9KNCMEAwDwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQUkCW1DdkF
R+eWw5b6cp3PmanfS5YwDgYDVR0PAQH/BAQDAgGGMAoGCCqGSM49BAMDA2kAMGYC
MQCjfy+Rocm9Xue4YnwWmNJVA44fA0P5W2OpYow9OYCVRaEevL8uO1XYru5xtMPW
rfMCMQCi85sWBbJwKKXdS6BptQFuZbT73o/gBh1qUxl/nNr12UO8Yfwr6wPLb+6N
IwLz3/Y=
-----END CERTIFICATE-----
""",
)
"""aws.nitro-enclaves; until 2049-10-28."""

ROOTS = (NITRO_ROOT_G1,)
"""Trusted by default: DER."""
