"""Addresses of servers without the passwords that are in them, for all that is shown or written."""

import re

# What stands before the host, also where Hydra has escaped the colons of a job's words. A password
# of a database may have slashes, if it is none of http and does not begin as a port does (5432/).
_BEFORE_THE_HOST = re.compile(
    r"""(\w+\\?://)(?:[^/\s'"]+|(?<!http://)(?<!https://)(?<!http\\://)(?<!https\\://)"""
    r"""[^:/\s'"]+:(?!\d+[/,?])(?:(?!,\w+[:=])[^\s'"}\]])*)@"""
)
_AFTER_IT = re.compile(r"""([?&]\w*(?:password|passwd|pwd)\\?=)[^&\s'",}\]]+""", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """An address of a server may hold user and password, often from the environment."""
    return _AFTER_IT.sub(r"\1***", _BEFORE_THE_HOST.sub(r"\1***@", text))
