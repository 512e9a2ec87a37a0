"""A certificate for this machine, made for a test and believed by nobody else."""

from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography.hazmat.primitives import serialization


class Certificate(NamedTuple):
    """PEM files in one folder, with `words.pem`, which is none, and `locked.key`, which has a password."""

    authority: Path
    cert: Path
    key: Path
    both: Path


def make_certificate(folder: Path) -> Certificate:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    made = Certificate(*(folder / name for name in ("authority.pem", "server.crt", "server.key", "both.pem")))
    authority.cert_pem.write_to_path(made.authority)
    issued.cert_chain_pems[0].write_to_path(made.cert)
    issued.private_key_pem.write_to_path(made.key)
    issued.private_key_and_cert_chain_pem.write_to_path(made.both)
    (folder / "words.pem").write_text("not a certificate")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = serialization.BestAvailableEncryption(b"a password")
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "locked.key").write_bytes(key.private_bytes(*form, locked))
    return made
