"""Explains why a host could not be contacted, in one sentence with a remedy, from what ssh printed.  Pure."""

import re

from db.models import FailureReason
from runner.ssh.known_hosts import FINGERPRINT, stored
from runner.ssh.target import Target

_REFUSED = (
    "refuses the login of '{user}' with {key}; add the public key to the authorized_keys of '{user}' on the host, or "
    "change the host's user or key"
)
_SENTENCES = (
    # (part of ssh's output, reason, sentence); the first that matches is used
    ("error in libcrypto", FailureReason.SSH_KEY_INVALID, "could not be logged in to: ssh cannot read the SSH key"),
    ("invalid format", FailureReason.SSH_KEY_INVALID, "could not be logged in to: ssh cannot read the SSH key"),
    ("Permission denied", FailureReason.AUTHENTICATION_FAILED, _REFUSED),
    ("Too many authentication failures", FailureReason.AUTHENTICATION_FAILED, _REFUSED),
    (
        "Connection refused",
        FailureReason.HOST_UNREACHABLE,
        "refuses the connection to {address} port {port}; see that sshd listens there, and the host's address and port",
    ),
    (
        "Could not resolve hostname",
        FailureReason.HOST_UNREACHABLE,
        "cannot be found: the name {address} is unknown; correct its address with updateHost",
    ),
    (
        "timed out",
        FailureReason.HOST_UNREACHABLE,
        "does not answer at {address} port {port}; see that it runs, and the firewalls on the way",
    ),
    (
        "No route to host",
        FailureReason.HOST_UNREACHABLE,
        "cannot be reached: there is no route to {address}; see the network of the server",
    ),
)
_MISMATCH = ("HOST IDENTIFICATION HAS CHANGED", "Host key verification failed")  # in ssh's output
_BAD_CERTIFICATE = re.compile(r"Certificate invalid: ([ -~]+)")


def explain(target: Target, error: str) -> tuple[FailureReason, str]:
    """Return the reason and the sentence for what ssh printed when it failed to contact the target."""
    if any(text in error for text in _MISMATCH):
        return FailureReason.HOST_KEY_MISMATCH, _mismatch(target, error)
    for text, reason, sentence in _SENTENCES:
        if text in error:
            names = {"user": target.user, "address": target.address, "port": target.port, "key": _key(target)}
            return reason, f"Host '{target.name}' {sentence.format(**names)}."
    return FailureReason.HOST_UNREACHABLE, f"Host '{target.name}' cannot be reached: {error.strip()}"


def _key(target: Target) -> str:
    """Return the key that is used to log in to the host, as an object of "with"."""
    if target.ssh_key is not None:
        return "its stored SSH key"
    return f"key {target.ssh_key_path}" if target.ssh_key_path is not None else "the keys of the server's user"


def _mismatch(target: Target, error: str) -> str:
    """Return a sentence about which keys differ, and what to do."""
    known = stored(target.known_hosts)
    pinned = [key.fingerprint for key in known if not key.is_authority]
    shown = FINGERPRINT.search(error)
    invalid = _BAD_CERTIFICATE.search(error)
    details = [
        f"shown is {shown[0]}" if shown else "",
        f"pinned is {', '.join(pinned)}" if pinned else "",
        f"no certificate of a trusted authority fits {target.address}" if len(pinned) < len(known) else "",
        f"its certificate is invalid: {invalid[1]}" if invalid else "",
    ]
    what = "; ".join(detail for detail in details if detail)
    wrong = "another host key than the pinned one" if pinned or not known else "a host key that nobody has vouched for"
    todo = "scanHostKey tells what it shows now; if that is right, trustHostKey pins it."
    return f"Host '{target.name}' shows {wrong}{': ' if what else ''}{what}. {todo}"
