"""Files and text that other people made -> values that are safe to read, print and run.

files: bounded reading of files, JSON and YAML. file_format: formats by their first bytes.
shell: words of printed commands. escape: text in tables, Markdown, messages and terminals. Standard
library only, so that every room may import it.
"""

from fgvc.untrusted.files import (
    ARRAYS,
    IMAGE,
    LIST,
    MIB,
    NotRegularError,
    TooLargeError,
    check_pickles,
    folders_below,
    open_regular,
    parse_json,
    parse_yaml,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
    refuse_constant,
    require_regular,
    unique_keys,
)

__all__ = [
    "ARRAYS",
    "IMAGE",
    "LIST",
    "MIB",
    "NotRegularError",
    "TooLargeError",
    "check_pickles",
    "folders_below",
    "open_regular",
    "parse_json",
    "parse_yaml",
    "read_bytes",
    "read_json",
    "read_text",
    "read_yaml",
    "refuse_constant",
    "require_regular",
    "unique_keys",
]
