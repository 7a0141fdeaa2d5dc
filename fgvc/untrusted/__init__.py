"""Files and text that other people made -> values that are safe to read, print and run.

files: bounded reading of files, JSON and YAML. shell: words of printed commands. escape: text in
tables, Markdown, messages and terminals. Standard library only, so that every room may import it.
"""

from fgvc.untrusted.files import (
    ARRAYS as ARRAYS,
)
from fgvc.untrusted.files import (
    IMAGE as IMAGE,
)
from fgvc.untrusted.files import (
    LIST as LIST,
)
from fgvc.untrusted.files import (
    MIB as MIB,
)
from fgvc.untrusted.files import (
    TEXT as TEXT,
)
from fgvc.untrusted.files import (
    NotRegularError as NotRegularError,
)
from fgvc.untrusted.files import (
    TooLargeError as TooLargeError,
)
from fgvc.untrusted.files import (
    calls_resolver as calls_resolver,
)
from fgvc.untrusted.files import (
    check_pickles as check_pickles,
)
from fgvc.untrusted.files import (
    check_yaml as check_yaml,
)
from fgvc.untrusted.files import (
    folders_below as folders_below,
)
from fgvc.untrusted.files import (
    open_regular as open_regular,
)
from fgvc.untrusted.files import (
    parse_json as parse_json,
)
from fgvc.untrusted.files import (
    parse_yaml as parse_yaml,
)
from fgvc.untrusted.files import (
    placeholder as placeholder,
)
from fgvc.untrusted.files import (
    read_bytes as read_bytes,
)
from fgvc.untrusted.files import (
    read_json as read_json,
)
from fgvc.untrusted.files import (
    read_text as read_text,
)
from fgvc.untrusted.files import (
    read_yaml as read_yaml,
)
from fgvc.untrusted.files import (
    refuse_constant as refuse_constant,
)
from fgvc.untrusted.files import (
    require_regular as require_regular,
)
from fgvc.untrusted.files import (
    unique_keys as unique_keys,
)
