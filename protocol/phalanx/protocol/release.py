"""Which release this is. The package takes its version from here, and so does what asks at run time.

Asking the installed package instead would mean to import a parser of mail headers for one word.
"""

#: The version of phalanx, as on PyPI; not that of the protocol.
VERSION = "0.1.0"
