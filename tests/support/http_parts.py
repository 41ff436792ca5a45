"""Bodies, signatures and tokens of parts over HTTP, as runners send them."""

import base64
import hashlib
from pathlib import Path

import jwt


def body(content: bytes = b"hello\0\xff", **fields: object) -> dict[str, object]:
    """The body of a part; the base64 has line breaks, as hub sends it."""
    text = base64.encodebytes(content).decode()
    return {"@type": "log_part", "content": text, "encoding": "base64", "final": False, **fields}


def many(*parts: dict[str, object]) -> dict[str, str]:
    """The header that signs the tokens of these parts."""
    digest = hashlib.sha1("".join(str(part.get("tok") or "") for part in parts).encode())
    return {"Authorization": f"token sig:{digest.hexdigest()}"}


def runner_token(data_dir: Path, job_id: object, **claims: object) -> str:
    """A token as runners get it, signed with the stack's private key."""
    key = (data_dir / "jwt_private.pem").read_text()
    return jwt.encode({"sub": str(job_id), **claims}, key, "RS512")
