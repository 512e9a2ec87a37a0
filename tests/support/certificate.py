"""A certificate for a server of a test, by openssl's own command."""

import subprocess
from pathlib import Path


def make_certificate(folder: Path, address: str) -> Path:
    """One for an IP address that vouches for itself; its key lies beside it, as `.key`."""
    certificate = folder / f"{address}.crt"
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate), "-days", "1"),
        *("-subj", "/CN=zturbo", "-addext", f"subjectAltName=IP:{address}"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return certificate
