"""File names and text -> whether they hold a secret; text -> text without secrets or user names.

A secret is recognised by the name of its file, by the format of its issuer, or as the value of an
environment variable with the name of a secret. A secret of unknown format in a file with an
ordinary name is not recognised.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from fgvc.untrusted import shell

MASK = "***"
SHORTEST_VALUE = 8  # minimum length of an environment variable's value to search for
SHORTEST_WORD = 16  # the same if the value is a plain word or number (SECRET=production)
NOT_PRIVATE = frozenset({"root", "user", "localhost"})  # names that identify nobody

_IMAGE_TOKENS = (  # what follows "token" in words of a model, as in tokens or token_embedding
    r"s|i[sz]|[_.-]?(?:merg|prun|pool|mix|drop|select|embed|grid|fus|reduc|shuffl|attention|attn"
    r"|count|number|type|level|wise|label|length|to[_-]|per[_-])"
)
_WORDS = (
    rf"secret|(?<!cls[_-])(?<!class[_-])(?<!patch[_-])(?<!mask[_-])token(?!{_IMAGE_TOKENS})"
    r"|(?:api|access|auth|hf)[_.-]?tokens|credential|passwo?r?d|passphrase"
    r"|(?:api|access|private)[_.-]?key|service[_.-]?account"
)
_NAME = re.compile(
    rf"{_WORDS}"
    r"|^\.env|\.env(?:\.|$)|^tokens(?:\.|$)"
    r"|\.(?:pem|key|p12|pfx|pkcs12|jks|keystore|ppk|kdbx?|asc|gpg|age|ovpn)$"
    r"|^id_(?:rsa|dsa|ecdsa|ed25519)|^[._]?netrc$|^kaggle\.json$|^authorized_keys$"
    r"|^\.(?:npmrc|yarnrc.*|pypirc|pgpass|my\.cnf|git-credentials|htpasswd|boto|s3cfg|vault-.*)$"
    r"|^\.(?:ssh|aws|azure|gnupg|kube|docker|dockercfg|gcloud|kaggle)$",
    re.IGNORECASE,
)
_VARIABLE = re.compile(rf"{_WORDS}|_(?:key|pat|auth|dsn)$", re.IGNORECASE)
_START, _MIXED_WORD = rb"(?<![A-Za-z0-9_])", rb"(?=[\w-]{0,80}[0-9])(?=[\w-]{0,80}[A-Za-z])"
# three or more words, as in vit_tiny_patch16_224 or sk_learn_linear_v2, are an ordinary name;
# every repetition is bounded, so that a long line does not take minutes
_NAME_PART = rb"(?>(?:[A-Z]?[a-z]{1,40}+|[A-Z]{1,5})(?:[0-9]{1,4}[a-z]{0,2})?|[0-9]{1,4})"
_NOT_A_NAME = (
    rb"(?!" + _NAME_PART + rb"(?:[_/.+=~-]++" + _NAME_PART + rb"){2,40}+[_/.+=~-]*+(?![A-Za-z0-9]))"
)
_STRONG = _NOT_A_NAME + _MIXED_WORD
_PASSWORD = rb"(?i:passwo?r?d|passphrase)[\w-]{0,40}[\"']?"
_ASSIGNED = rb"(?i:secret|token(?!i[sz])|api[_-]?key|access[_-]?key)[\w-]{0,40}[\"']?"
_MIXED = rb"(?=[^\s\"']{0,200}[0-9])(?=[^\s\"']{0,200}[A-Za-z])"
# an assigned literal holds letters and digits, unlike a word of prose
_QUOTED, _IN_SHELL = rb"[^\s\"']{16,}[\"']", rb"[\w+/=~-]{16,2000}+(?![\w+/=~.(-])"
_SK_KIND = rb"(?:(?:proj|ant|live|test|or|svcacct)[\w-]{0,40}[-_])?"
_FORMS = (
    _START + rb"hf_(?![a-z]{1,26}[0-9]{0,4}(?![A-Za-z0-9]))[A-Za-z0-9]{16,}",  # Hugging Face
    _START + rb"(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})",
    _START + rb"glpat-" + _NOT_A_NAME + rb"[\w-]{16,}",
    _START + rb"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])",  # Amazon
    _START + rb"sk[-_]" + _NOT_A_NAME + _SK_KIND + _MIXED_WORD + rb"[\w-]{20,}",
    _START + rb"[rp]k_(?:live|test)_[A-Za-z0-9]{16,}",
    _START + rb"xox[abeoprs]-" + _NOT_A_NAME + rb"[\w-]{10,}",  # Slack
    _START + rb"AIza[\w-]{35}",  # Google
    _START + rb"ya29\.[\w-]{20,}",
    _START + rb"(?:npm_[A-Za-z0-9]{30,}|dop_v1_[a-f0-9]{40,})",
    _START + rb"pypi-" + _NOT_A_NAME + rb"[\w-]{30,}",
    _START + rb"(?:r8_[A-Za-z0-9]{30,}|nvapi-[\w-]{30,}|wandb_v1_\w{20,}|KGAT_\w{16,})",
    _START + rb"eyJ[\w-]{8,2000}\.eyJ[\w-]{8,2000}\.[\w-]{8,}",  # JSON Web Token
    rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY",
    rb"(?<=://)[^\s/?#@:'\"{}<>]*:[^\s/?#@'\"{}<>]+(?=@)",  # a password in an address
    rb"(?i:(?<=bearer )|(?<=basic ))" + _STRONG + rb"[\w.~+/-]{20,}=*",
    _PASSWORD + rb"\s*[:=]\s*[\"']" + _MIXED + _QUOTED,
    _ASSIGNED + rb"\s*[:=]\s*[\"']" + _NOT_A_NAME + _MIXED + _QUOTED,
    rb"(?i:passwo?r?d|passphrase)[\"']?\s*[:=]\s*[\"'][^\s\"'{}<>]{6,}[\"']",
    _PASSWORD + rb"=" + _MIXED + _IN_SHELL,  # as in a file for a shell
    _ASSIGNED + rb"=" + _NOT_A_NAME + _MIXED + _IN_SHELL,
)
_SECRET = re.compile(b"|".join(b"(?:" + form + b")" for form in _FORMS))


def is_secret_name(path: str) -> bool:
    """Whether a file, or a folder above it, has a typical name of secrets.

    Args:
        path: relative to a root, whose own name does not count.
    """
    return any(_NAME.search(part) for part in path.split("/"))


def holds_secret(data: bytes) -> bool:
    """Whether bytes hold a secret of a known format, or a secret of this environment."""
    if b"\0" in data:  # UTF-16 has a zero byte beside each ASCII letter
        data = data.replace(b"\0", b"")
    if _SECRET.search(data):
        return True
    return any(pattern.search(data) for pattern in _environment_patterns())


def masked(text: str) -> str:
    data = _SECRET.sub(MASK.encode(), text.encode(errors="surrogatepass"))
    for pattern in _environment_patterns():
        data = pattern.sub(MASK.encode(), data)
    return data.decode(errors="surrogatepass")


def refusal(setting: str) -> str:
    """The error message for a command that holds a secret, which every record would keep.

    Args:
        setting: the key or file with the masked value.
    """
    return (
        f"{setting}: holds a password or token, which the record would keep. Give it outside the "
        "command: HF_TOKEN in the environment, or ~/.netrc. If it is none, rename it, or unset the "
        "environment variable (KEY, TOKEN, PASSWORD and the like) that has this value"
    )


def without_user_paths(text: str) -> str:
    """The text with `~` for the home folder, and USER and HOST for the names in paths.

    A name that is only part of a folder's name (/data/alice-old) stays.
    """
    homes = {os.environ.get("HOME", ""), os.path.expanduser("~")}  # noqa: PTH111 - never raises
    homes = {home.rstrip("/") for home in homes if home.startswith("/")}
    homes = (homes | {os.path.realpath(home) for home in homes}) - {"", "/"}
    for home in sorted(homes, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./~-]){re.escape(home)}(?![\w-])", "~", text)
    users = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")}
    users |= {Path(home).name for home in homes}
    hosts = {socket.gethostname(), os.environ.get("HOSTNAME", "")}
    hosts |= {name.partition(".")[0] for name in hosts}
    for names, stand_in in ((users, "USER"), (hosts, "HOST")):
        for name in sorted(names - NOT_PRIVATE - {""}, key=len, reverse=True):
            text = re.sub(rf"(?<=[/@]){re.escape(name)}(?![\w.-])", stand_in, text)
    return text


def portable_command(command: str) -> str:
    """A recorded command with a shell variable for each absolute path, the same on any machine.

    `runtime.cache_root=/data/a/c` becomes `runtime.cache_root="\\"$CACHE_ROOT\\""`: the inner
    quotes are Hydra's, so that the path may hold a space or a comma.

    Raises:
        ValueError: a shell cannot split the command into words.
    """
    words = []
    for word in shell.split(command):
        key, equals, value = word.partition("=")
        bare = value.lstrip("'\"[( ")
        if equals and re.fullmatch(r"[+~]*[A-Za-z][\w./@-]*", key) and _is_absolute_path(bare):
            name = re.sub(r"\W", "_", key.lstrip("+~").removeprefix("runtime.")).upper()
            words.append(shell.variable(key, name))
        else:
            is_path = not equals and _is_absolute_path(word)
            words.append('"$PLACE"' if is_path else shell.word(word))
    return " ".join(words)


def _is_absolute_path(value: str) -> bool:
    return value.startswith(("/", "~/", "file:")) or value == "~" or ",/" in value


def _environment_patterns() -> list[re.Pattern[bytes]]:
    """Patterns for the values of environment variables named like secrets, longest first."""
    values = {
        value
        for name, value in os.environ.items()
        if _VARIABLE.search(name)
        and len(value) >= (SHORTEST_WORD if value.isalpha() or value.isdigit() else SHORTEST_VALUE)
        and not value.startswith(("/", "~", "."))  # the path of a secret, not the secret
    }
    patterns = []
    for value in sorted(values, key=len, reverse=True):
        pattern = re.escape(value.encode(errors="surrogateescape"))
        if len(value) < SHORTEST_WORD:  # only as a whole word, because digests may contain it
            pattern = rb"(?<![A-Za-z0-9])" + pattern + rb"(?![A-Za-z0-9])"
        patterns.append(re.compile(pattern))
    return patterns
